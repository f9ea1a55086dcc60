// SPDX-License-Identifier: Apache-2.0
// Pipeline schedules against their closed forms. Passes take whole units, so every expectation is exact but for
// rounding.
#include <gtest/gtest.h>

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "sim/base/error.hpp"
#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

// Forward 1, backward 2 (input 1, weight 1), divided by the chunks of a stage.
std::vector<PositionTime> equal(const PipelineSchedule& schedule, int stages, int chunks) {
  const double share = schedule.name() == "interleaved" ? 1.0 / chunks : 1.0;
  return std::vector<PositionTime>(static_cast<size_t>(schedule.positions(stages, chunks)), {share, 2 * share, share});
}

PipelineTiming run(const std::string& name, int stages, int micro_batches, int virtual_stages = 1) {
  const auto& schedule = find_schedule(name);
  const int chunks = schedule.chunks_per_stage(virtual_stages);
  return run_pipeline(schedule, stages, micro_batches, chunks, equal(schedule, stages, chunks), 0);
}

constexpr double kWork = 3;  // of one micro-batch on one stage

TEST(TrainingSchedule, BubbleOfGpipeAndOneForwardOneBackward) {
  // Makespan (m + p − 1)(f + b): the bubble is (p − 1)/(m + p − 1) of the step.
  for (const char* name : {"gpipe", "1f1b"})
    for (const int p : {1, 2, 4, 7, 16})
      for (const int m : {1, 3, 8, 40}) {
        const auto timing = run(name, p, m);
        EXPECT_NEAR(timing.makespan_s, (m + p - 1) * kWork, 1e-9) << name << " p " << p << " m " << m;
        EXPECT_NEAR(1 - timing.busy_s[0] / timing.makespan_s, (p - 1.0) / (m + p - 1), 1e-12);
      }
}

TEST(TrainingSchedule, InterleavingDividesTheBubbleByItsChunks) {
  for (const int p : {2, 4, 8})
    for (const int v : {2, 3, 4})
      for (const int rounds : {1, 2, 5}) {
        const int m = p * rounds;
        EXPECT_NEAR(run("interleaved", p, m, v).makespan_s - m * kWork, (p - 1) * kWork / v, 1e-9)
            << "p " << p << " v " << v << " m " << m;
      }
}

TEST(TrainingSchedule, ZeroBubbleFillsItsBubbleWithWeightGradients) {
  // ZB-H1: (p − 1)(f + b_input − b_weight) = p − 1 units, a third of 1f1b's (p − 1)(f + b), in the memory of 1f1b.
  for (const int p : {2, 4, 8, 16}) {
    const int m = 4 * p;
    const auto zero = run("zero-bubble", p, m), usual = run("1f1b", p, m);
    EXPECT_NEAR(zero.makespan_s - m * kWork, p - 1, 1e-9) << p;
    EXPECT_EQ(*std::max_element(zero.peak_in_flight.begin(), zero.peak_in_flight.end()), usual.peak_in_flight[0]) << p;
  }
}

TEST(TrainingSchedule, DualPipeHasTheBubbleOfItsPaper) {
  // DeepSeek-V3, table 2: (p/2 − 1)(f&b + b − 3w) at most, and p + 1 micro-batches in flight.
  const auto& schedule = find_schedule("dualpipe");
  for (const auto& [f, b, w] : {std::tuple{1.0, 2.0, 1.0}, {1.0, 2.3, 0.8}, {1.0, 3.0, 1.0}})
    for (const int p : {2, 4, 8, 16}) {
      const int m = 8 * p;
      const std::vector<PositionTime> times(static_cast<size_t>(p), {f, b, w});
      const auto timing = run_pipeline(schedule, p, m, schedule.chunks_per_stage(1), times, 0);
      for (const double busy : timing.busy_s) EXPECT_NEAR(busy, m * (f + b), 1e-9);
      EXPECT_LE(timing.makespan_s - m * (f + b), (p / 2.0 - 1) * (f + 2 * b - 3 * w) + 1e-9) << p;
      EXPECT_LE(*std::max_element(timing.peak_in_flight.begin(), timing.peak_in_flight.end()), p + 1) << p;
    }
  EXPECT_NEAR(run("dualpipe", 2, 8).makespan_s, 8 * kWork, 1e-9);
}

TEST(TrainingSchedule, DualPipeHidesWhatItsPairsSave) {
  // All micro-batches but those of filling and draining run as pairs; a pair takes f + b less what both save.
  const auto& schedule = find_schedule("dualpipe");
  const double f = 2, b = 4, w = 1, saved = 1.5;
  for (const int p : {4, 8, 16}) {
    const int m = 8 * p;
    const std::vector<PositionTime> alone(static_cast<size_t>(p), {f, b, w}),
        paired(static_cast<size_t>(p), {f, b, w, saved / 2, saved / 2});
    const auto without = run_pipeline(schedule, p, m, 2, alone, 0), with = run_pipeline(schedule, p, m, 2, paired, 0);
    for (int s = 0; s < p; ++s) {
      const int r = std::min(s, p - 1 - s), fill = p / 2 - r - 1, middle = fill == 0 ? 1 : 0;
      const double pairs = 2 * (m / 2 - p + r + 1) - middle + fill;
      EXPECT_NEAR(without.busy_s[static_cast<size_t>(s)] - with.busy_s[static_cast<size_t>(s)], pairs * saved, 1e-9)
          << "p " << p << " stage " << s;
    }
    EXPECT_LT(with.makespan_s, without.makespan_s - 0.7 * m * saved);
  }
}

TEST(TrainingSchedule, MicroBatchesInFlight) {
  for (const int p : {2, 4, 8}) {
    const int m = 3 * p;
    const auto gpipe = run("gpipe", p, m), one = run("1f1b", p, m), zero = run("zero-bubble", p, m);
    for (int s = 0; s < p; ++s) {
      EXPECT_EQ(gpipe.peak_in_flight[static_cast<size_t>(s)], m);
      EXPECT_EQ(one.peak_in_flight[static_cast<size_t>(s)], p - s);
      // ZB-H1: what the first stage of 1f1b keeps, on every stage: p − s under way and s whose weight gradients wait.
      EXPECT_EQ(zero.peak_in_flight[static_cast<size_t>(s)], p);
    }
    // Megatron's interleaved schedule warms up with 2(p − 1) + (v − 1) p chunks and one more.
    EXPECT_EQ(run("interleaved", p, m, 2).peak_in_flight[0], 2 * (p - 1) + p + 1);
  }
}

TEST(TrainingSchedule, StagesHoldEveryPositionAsOftenAsThereAreCopies) {
  for (const auto& name : schedule_names()) {
    const auto& schedule = find_schedule(name);
    const int p = 6, chunks = schedule.chunks_per_stage(name == "interleaved" ? 3 : 1);
    std::map<int, int> holders;
    for (int s = 0; s < p; ++s)
      for (const int position : schedule.positions_on(s, p, chunks)) ++holders[position];
    ASSERT_EQ(static_cast<int>(holders.size()), schedule.positions(p, chunks)) << name;
    for (const auto& [position, count] : holders) EXPECT_EQ(count, schedule.weight_copies()) << name << " " << position;
    // Where a pass of a micro-batch runs, its weights are.
    for (int position = 0; position < schedule.positions(p, chunks); ++position)
      for (const int micro_batch : {0, 11}) {
        const auto held = schedule.positions_on(schedule.stage_of(position, p, micro_batch, 12), p, chunks);
        EXPECT_NE(std::find(held.begin(), held.end(), position), held.end()) << name << " " << position;
      }
  }
}

TEST(TrainingSchedule, EveryMicroBatchGoesOnceThroughEveryChunk) {
  for (const auto& name : schedule_names()) {
    const auto& schedule = find_schedule(name);
    const int p = 4, m = 16, chunks = schedule.chunks_per_stage(name == "interleaved" ? 2 : 1);
    size_t forwards = 0, backwards = 0, split = 0, weights = 0;
    for (int s = 0; s < p; ++s) {
      std::map<std::pair<int, int>, int> seen;
      for (const auto& pass : schedule.passes(s, p, m, chunks)) {
        if (pass.kind == PassKind::forward) {
          ++forwards;
          EXPECT_EQ(seen[std::pair(pass.chunk, pass.micro_batch)]++, 0) << name;
        } else if (pass.kind == PassKind::backward_weight) {
          ++weights;
        } else {
          ++backwards;
          if (pass.kind == PassKind::backward_input) ++split;
          EXPECT_EQ(seen[std::pair(pass.chunk, pass.micro_batch)]++, 1) << name;
        }
      }
    }
    const size_t expected = static_cast<size_t>(m * schedule.positions(p, chunks));
    EXPECT_EQ(forwards, expected) << name;
    EXPECT_EQ(backwards, expected) << name;
    EXPECT_EQ(weights, split) << name;  // as many as backwards that left theirs for later
  }
}

TEST(TrainingSchedule, CollapsedRunEqualsTheWholeOne) {
  // Unequal positions and a transfer, so that the steady state is not the trivial one.
  for (const auto& name : schedule_names())
    for (const int p : {2, 4, 8})
      for (const int m : {8 * p, 10 * p, 32 * p}) {
        const auto& schedule = find_schedule(name);
        const int chunks = schedule.chunks_per_stage(name == "interleaved" ? 2 : 1);
        auto times = equal(schedule, p, chunks);
        times.front().forward_s *= 1.1;
        times.back().backward_s *= 1.4;
        const auto whole = run_pipeline(schedule, p, m, chunks, times, 0.07);
        const auto collapsed = run_pipeline_collapsed(schedule, p, m, chunks, times, 0.07);
        const auto what = fmt::format("{} p {} m {}", name, p, m);
        EXPECT_NEAR(collapsed.makespan_s, whole.makespan_s, 1e-9 * whole.makespan_s) << what;
        EXPECT_EQ(collapsed.peak_in_flight, whole.peak_in_flight) << what;
        for (size_t s = 0; s < whole.busy_s.size(); ++s)
          EXPECT_NEAR(collapsed.busy_s[s], whole.busy_s[s], 1e-9 * whole.busy_s[s]) << what;
        if (m == 32 * p) {
          EXPECT_LT(collapsed.passes, whole.passes) << what;
        }
      }
}

TEST(TrainingSchedule, ATransferDelaysEveryMicroBatch) {
  // 1f1b on two stages keeps two micro-batches in flight; they share one round trip, two transfers.
  const auto& schedule = find_schedule("1f1b");
  const std::vector<PositionTime> times(2, {1, 2, 1});
  const double without = run_pipeline(schedule, 2, 10, 1, times, 0).makespan_s;
  EXPECT_NEAR(run_pipeline(schedule, 2, 10, 1, times, 0.1).makespan_s - without, 10 * 2 * 0.1 / 2, 1e-9);
}

TEST(TrainingSchedule, RefusesWhatItCannotDivide) {
  EXPECT_NE(find_schedule("interleaved").problem(4, 6, 2), "");
  EXPECT_NE(find_schedule("interleaved").problem(4, 8, 1), "");
  EXPECT_NE(find_schedule("dualpipe").problem(3, 12, 1), "");
  EXPECT_NE(find_schedule("dualpipe").problem(4, 6, 1), "");
  EXPECT_NE(find_schedule("1f1b").problem(4, 8, 2), "");
  EXPECT_EQ(find_schedule("1f1b").problem(4, 6, 1), "");
  EXPECT_THROW(find_schedule("1f2b"), Error);
}

}  // namespace
}  // namespace dssim
