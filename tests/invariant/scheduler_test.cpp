// SPDX-License-Identifier: Apache-2.0
// The scheduler alone, with steps of one second: order, limits, preemption, and what is conserved at every step.
#include "sim/serving/scheduler.hpp"

#include <gtest/gtest.h>

#include <map>
#include <random>

#include "sim/serving/policy.hpp"

namespace dssim {
namespace {

Request request(uint64_t id, int64_t input, int64_t output, double arrival_s = 0) {
  Request r;
  r.id = id;
  r.arrival_s = arrival_s;
  r.input_tokens = input;
  r.output_tokens = output;
  r.prompt.rest_id = 1000 + id;
  return r;
}

Scheduler make(const SchedulerLimits& limits, int64_t blocks, const char* policy = "chunked-prefill",
               bool prefix_cache = false) {
  return Scheduler(limits, KvCache(blocks, 16, prefix_cache), make_policy(policy));
}

struct Step {
  int64_t decodes = 0;
  std::vector<PrefillChunk> chunks;
};
Step step(Scheduler& s, double now_s, int batch = 0) {
  s.plan(batch, now_s);
  const StepShape shape = s.shape(batch);
  Step taken{shape.decode_sequences, {shape.prefill.begin(), shape.prefill.end()}};
  s.complete(batch, now_s + 1);
  return taken;
}

TEST(Scheduler, ChunksAPromptWithinTheTokenBudgetAfterTheDecodes) {
  SchedulerLimits limits;
  limits.max_batched_tokens = 100;
  limits.max_sequences = 10;
  Scheduler s = make(limits, 1000);
  s.submit(request(0, 40, 5), 0);
  Step taken = step(s, 0);
  ASSERT_EQ(taken.chunks.size(), 1u);
  EXPECT_EQ(taken.chunks[0].new_tokens, 40);
  s.submit(request(1, 250, 2), 0);
  taken = step(s, 1);  // 1 decode and 99 tokens of the new prompt
  EXPECT_EQ(taken.decodes, 1);
  EXPECT_EQ(taken.chunks[0].new_tokens, 99);
  EXPECT_FALSE(taken.chunks[0].ends_prompt);
  taken = step(s, 2);
  EXPECT_EQ(taken.chunks[0].new_tokens, 99);
  EXPECT_EQ(taken.chunks[0].past_tokens, 99);
  taken = step(s, 3);
  EXPECT_EQ(taken.chunks[0].new_tokens, 52);
  EXPECT_TRUE(taken.chunks[0].ends_prompt);
  taken = step(s, 4);  // request 0: tokens at 1, 2, 3, 4, 5 → done; request 1: first at 4, second at 5
  EXPECT_EQ(taken.decodes, 2);
  ASSERT_EQ(s.ended().size(), 2u);
  EXPECT_EQ(s.ended()[0].first_token_s, 1);
  EXPECT_EQ(s.ended()[0].done_s, 5);
  EXPECT_EQ(s.ended()[1].first_token_s, 4);
  EXPECT_EQ(s.ended()[1].done_s, 5);
  EXPECT_EQ(s.outstanding(), 0);
}

TEST(Scheduler, PrefillFirstStallsDecodesAndNeverCutsAPrompt) {
  SchedulerLimits limits;
  limits.max_batched_tokens = 100;
  limits.max_sequences = 10;
  Scheduler s = make(limits, 1000, "prefill-first");
  s.submit(request(0, 60, 5), 0);
  s.submit(request(1, 60, 5), 0);
  Step taken = step(s, 0);
  EXPECT_EQ(taken.chunks.size(), 1u);  // the second does not fit whole
  taken = step(s, 1);
  EXPECT_EQ(taken.decodes, 0);
  EXPECT_EQ(taken.chunks.size(), 1u);
  taken = step(s, 2);
  EXPECT_EQ(taken.decodes, 2);
  s.submit(request(2, 500, 2), 0);  // longer than the budget: runs alone, whole
  taken = step(s, 3);
  ASSERT_EQ(taken.chunks.size(), 1u);
  EXPECT_EQ(taken.chunks[0].new_tokens, 500);
}

TEST(Scheduler, StaticBatchAnswersTogether) {
  SchedulerLimits limits;
  limits.max_batched_tokens = 100;
  limits.max_sequences = 2;
  Scheduler s = make(limits, 1000, "static-batch");
  for (uint64_t i = 0; i < 3; ++i) s.submit(request(i, 20, i == 0 ? 2 : 4), 0);
  Step taken = step(s, 0);
  EXPECT_EQ(taken.chunks.size(), 2u);
  for (int now = 1; now <= 3; ++now) EXPECT_EQ(step(s, now).decodes, 2);  // the finished one stays as padding
  ASSERT_EQ(s.ended().size(), 2u);
  EXPECT_EQ(s.ended()[0].done_s, 4);
  EXPECT_EQ(s.ended()[1].done_s, 4);
  s.clear_ended();
  EXPECT_EQ(step(s, 4).chunks.size(), 1u);  // only now does the third start
}

TEST(Scheduler, PreemptsTheNewestAndRecomputes) {
  SchedulerLimits limits;
  limits.max_batched_tokens = 1000;
  limits.max_sequences = 10;
  Scheduler s = make(limits, 4);  // two prompts of 32 fill it
  s.submit(request(0, 32, 20), 0);
  s.submit(request(1, 32, 5), 0);
  step(s, 0);
  Step taken = step(s, 1);  // both would start a block
  EXPECT_EQ(taken.decodes, 1);
  EXPECT_EQ(s.running(), 1);
  EXPECT_EQ(s.waiting(), 1);
  int now = 2;
  while (s.outstanding() > 0) {
    ASSERT_LT(now, 100);
    taken = step(s, now++);
    // The recomputed prompt holds what had been generated: 32 + 1.
    for (const auto& chunk : taken.chunks) EXPECT_EQ(chunk.new_tokens, 33);
  }
  ASSERT_EQ(s.ended().size(), 2u);
  EXPECT_EQ(s.ended()[0].id, 0u);
  EXPECT_EQ(s.ended()[0].done_s, 20);
  EXPECT_EQ(s.ended()[1].preemptions, 1u);
  EXPECT_EQ(s.ended()[1].first_token_s, 1);  // its first token came before
  EXPECT_EQ(s.kv().free_blocks(), 4);
}

TEST(Scheduler, RefusesWhatCanNeverRunAndWhatFindsTheQueueFull) {
  SchedulerLimits limits;
  limits.max_waiting = 1;
  limits.max_request_tokens = 100;
  Scheduler s = make(limits, 4);
  EXPECT_FALSE(s.submit(request(0, 64, 2), 0));  // 65 stored tokens in 64 slots
  EXPECT_TRUE(s.submit(request(1, 64, 1), 0));
  EXPECT_FALSE(s.submit(request(2, 10, 1), 0));  // one waits already
  ASSERT_EQ(s.ended().size(), 2u);
  EXPECT_EQ(s.ended()[0].outcome, Outcome::rejected);
  Scheduler long_context = make(limits, 100);
  EXPECT_FALSE(long_context.submit(request(0, 90, 11), 0));
  EXPECT_TRUE(long_context.submit(request(1, 90, 10), 0));
}

TEST(Scheduler, ClientsGiveUp) {
  SchedulerLimits limits;
  limits.max_sequences = 1;
  limits.client_timeout_s = 5;
  Scheduler s = make(limits, 100);
  s.submit(request(0, 10, 50), 0);
  s.submit(request(1, 10, 2), 0);
  int now = 0;
  while (s.outstanding() > 0 && now < 50) step(s, now++);
  ASSERT_EQ(s.ended().size(), 2u);
  for (const auto& record : s.ended()) EXPECT_EQ(record.outcome, Outcome::timed_out);
  EXPECT_EQ(s.kv().free_blocks(), 100);
}

TEST(Scheduler, PrefixCacheSkipsWhatItHolds) {
  SchedulerLimits limits;
  Scheduler s = make(limits, 100, "chunked-prefill", true);
  Request same = request(0, 100, 1);
  s.submit(same, 0);
  step(s, 0);
  same.id = 1;
  s.submit(same, 0);
  const Step taken = step(s, 1);
  ASSERT_EQ(taken.chunks.size(), 1u);
  EXPECT_EQ(taken.chunks[0].past_tokens, 96);  // six full blocks of sixteen
  EXPECT_EQ(taken.chunks[0].new_tokens, 4);
  same.id = 2;
  same.input_tokens = 96;  // all of it is held, but the last token must be computed: five blocks are used
  s.submit(same, 0);
  EXPECT_EQ(step(s, 2).chunks[0].past_tokens, 80);
}

TEST(Scheduler, PlanningAheadSeesArrivalsAndFreedSlotsOneStepLater) {
  SchedulerLimits limits;
  limits.max_sequences = 2;
  limits.schedules_ahead = true;
  Scheduler s = make(limits, 100);
  s.submit(request(0, 10, 3), 0);
  EXPECT_EQ(step(s, 0).chunks.size(), 1u);  // idle: starts at once
  s.submit(request(1, 10, 9), 0.5);         // while the step from 0 to 1 runs
  EXPECT_EQ(step(s, 1).chunks.size(), 0u);  // that step was put together at 0
  EXPECT_EQ(step(s, 2).chunks.size(), 1u);  // request 0 ends with it, at 3
  s.submit(request(2, 10, 3), 1.5);
  EXPECT_EQ(s.ended().size(), 1u);
  EXPECT_EQ(step(s, 3).chunks.size(), 0u);  // put together at 2, when both slots were taken
  EXPECT_EQ(step(s, 4).chunks.size(), 1u);
}

// Eight of twelve blocks are free: room for the first chunk of a prompt of ten blocks, not for all of it.
TEST(Scheduler, AdmitsByTheWholePromptWhereTheEngineDoes) {
  for (const bool whole : {false, true}) {
    SchedulerLimits limits;
    limits.max_batched_tokens = 64;
    limits.prompt_must_fit = whole;
    Scheduler s = make(limits, 12);
    s.submit(request(0, 50, 9), 0);
    step(s, 0);
    s.submit(request(1, 150, 2), 0);
    EXPECT_EQ(step(s, 1).chunks.size(), whole ? 0U : 1U);
    for (int now = 2; s.outstanding() > 0; ++now) {
      ASSERT_LT(now, 100);
      step(s, now);
    }
  }
}

struct Load {
  const char* policy;
  bool prefix_cache;
  int batches;
  bool timeouts;
  bool ahead = false;
  bool prompt_must_fit = false;
};
class RandomLoad : public testing::TestWithParam<Load> {};

// Random requests on a small cache: at every step blocks and requests are conserved, limits hold, and in the end every
// request has ended exactly once with as many tokens computed as it takes.
TEST_P(RandomLoad, ConservesBlocksRequestsAndTokens) {
  const Load load = GetParam();
  std::mt19937 random(11);
  SchedulerLimits limits;
  limits.max_batched_tokens = 64;
  limits.max_sequences = 12;
  limits.batches = load.batches;
  limits.schedules_ahead = load.ahead;
  limits.prompt_must_fit = load.prompt_must_fit;
  if (load.timeouts) limits.client_timeout_s = 40;
  Scheduler s = make(limits, 40, load.policy, load.prefix_cache);
  std::map<uint64_t, int> ended;
  int64_t submitted = 0, decoded = 0, yielded = 0, expected_tokens = 0, preemptions = 0, completed = 0;
  for (int now = 0; now < 6000 || s.outstanding() > 0; ++now) {
    ASSERT_LT(now, 60000) << "the scheduler is stuck with " << s.outstanding();
    if (now < 5000 && random() % 3 == 0) {
      Request r = request(static_cast<uint64_t>(submitted++), 1 + random() % 200, 1 + random() % 60, now);
      r.prompt.prefix_id = random() % 3;
      r.prompt.prefix_tokens = std::min<int64_t>(r.input_tokens, 48);
      s.submit(r, now);
    }
    const int batch = now % load.batches;
    s.plan(batch, now);
    const StepShape shape = s.shape(batch);
    int64_t tokens = shape.decode_sequences;
    for (const auto& chunk : shape.prefill) {
      EXPECT_GT(chunk.new_tokens, 0);
      tokens += chunk.new_tokens;
      if (chunk.ends_prompt) ++yielded;
    }
    if (std::string(load.policy) == "chunked-prefill") EXPECT_LE(tokens, limits.max_batched_tokens);
    EXPECT_LE(s.running(), limits.max_sequences);
    decoded += shape.decode_sequences;
    s.complete(batch, now + 1);
    ASSERT_EQ(s.kv().free_blocks() + s.held_blocks(), s.kv().total_blocks()) << "after step " << now;
    for (const auto& record : s.ended()) {
      ++ended[record.id];
      if (record.outcome != Outcome::completed) continue;
      ++completed;
      expected_tokens += record.output_tokens;
      preemptions += record.preemptions;
      EXPECT_LE(record.arrival_s, record.scheduled_s);
      EXPECT_LT(record.scheduled_s, record.first_token_s);
      EXPECT_LE(record.first_token_s, record.done_s);
    }
    s.clear_ended();
    ASSERT_EQ(static_cast<int64_t>(ended.size()) + s.outstanding(), submitted);
  }
  s.plan(0, 1e9);  // lets go of what the last completions still held
  EXPECT_EQ(s.kv().free_blocks(), s.kv().total_blocks());
  for (const auto& [id, times] : ended) EXPECT_EQ(times, 1) << id;
  EXPECT_GT(completed, 50);
  // Every output token came from a decode or from the end of a (re)computed prompt. Static batching pads beyond that,
  // and requests that timed out leave tokens behind.
  if (load.timeouts || std::string(load.policy) == "static-batch")
    EXPECT_GE(decoded + yielded, expected_tokens);
  else
    EXPECT_EQ(decoded + yielded, expected_tokens);
  if (std::string(load.policy) == "chunked-prefill" && !load.timeouts)
    EXPECT_GT(preemptions, 0) << "the cache was meant to be too small";
}

INSTANTIATE_TEST_SUITE_P(
    All, RandomLoad,
    testing::Values(Load{"chunked-prefill", false, 1, false}, Load{"chunked-prefill", true, 1, false},
                    Load{"chunked-prefill", false, 3, false}, Load{"chunked-prefill", true, 2, true},
                    Load{"chunked-prefill", false, 1, false, true}, Load{"chunked-prefill", true, 1, true, true},
                    Load{"chunked-prefill", true, 1, true, true, true},
                    Load{"chunked-prefill", false, 2, false, false, true}, Load{"prefill-first", false, 1, false},
                    Load{"prefill-first", true, 1, true}, Load{"static-batch", false, 1, false},
                    Load{"static-batch", true, 1, true}));

}  // namespace
}  // namespace dssim
