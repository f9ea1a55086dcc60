// SPDX-License-Identifier: Apache-2.0
#pragma once

// What one replica runs next: continuous batching over a paged KV cache, without any notion of how long a step takes.
// The simulated replica and a real engine drive it alike: plan() names the next step, complete() says that it ended at
// `now`.
//
// Order of vLLM's V1 scheduler: running sequences first (one token each, in the order they were admitted), then prompts
// that are part-way through, then waiting ones, first come first served, in chunks, as long as the token budget, the
// sequence limit and free KV blocks last. When a decoding sequence needs a block and none is free, the newest sequence
// gives its blocks back, goes to the head of the queue, and later recomputes its prompt and what it had generated.
//
// With asynchronous scheduling (`schedules_ahead`) the next step is put together while one runs: what arrives, or gives
// back its slot and blocks, during a step counts only for the step after the next. An idle engine starts at once.
//
// A replica with p pipeline stages keeps p batches in flight; a sequence stays with the batch that admitted it.
//
// Cost: nothing is done per sequence in a decode step. A sequence's KV length follows from the step at which it joined;
// the steps at which sequences finish are in a heap; how many need a block at step i is a count kept per (i mod block
// size).
//
// Conservation, held by tests at every step: KV blocks free + held = total; submitted = waiting + running + ended.

#include <cstdint>
#include <deque>
#include <limits>
#include <memory>
#include <queue>
#include <set>
#include <span>
#include <vector>

#include "sim/results/request_record.hpp"
#include "sim/serving/kv_cache.hpp"
#include "workloads/request_stream.hpp"
#include "workloads/step.hpp"

namespace dssim {

class SchedulerPolicy;

struct SchedulerLimits {
  int64_t max_batched_tokens = 2048;
  int64_t max_sequences = 256;
  int64_t max_waiting = std::numeric_limits<int64_t>::max();         // a request that finds more waiting is refused
  int64_t max_request_tokens = std::numeric_limits<int64_t>::max();  // a longer request (input + output) is refused
  double client_timeout_s = std::numeric_limits<double>::infinity();
  int batches = 1;               // pipeline stages
  bool schedules_ahead = false;  // only with one batch: vLLM has none with pipeline stages
  bool prompt_must_fit = false;  // a request is admitted only where its whole prompt fits, not just the first chunk
};

struct Sequence {
  enum class State : uint8_t { unused, waiting, prefilling, decoding };
  Request request;
  State state = State::unused;
  uint32_t serial = 0;  // changes when the slot is used again or the sequence is preempted
  int batch = 0;
  double queued_s = 0, scheduled_s = 0, first_token_s = 0;
  bool was_scheduled = false;
  int64_t prompt_tokens = 0;  // to prefill: the input, and after a preemption what had been generated too
  int64_t prefilled = 0;
  int64_t generated = 0;  // when it joined the decoding batch; more since
  int64_t join_step = 0;
  int64_t reserved_blocks = 0;  // taken in advance (static batching)
  int64_t cached_tokens = 0;
  uint32_t preemptions = 0;
  uint32_t previous = UINT32_MAX, next = UINT32_MAX;  // running order of its batch
  KvCache::HashedBlocks held;
  std::vector<uint64_t> hashes;  // of the prompt's full blocks; only with prefix caching
};

struct PlannedChunk {
  uint32_t sequence = 0;
  PrefillChunk chunk;
};

// The next step of one batch. `decode` covers every decoding sequence of the batch.
struct StepPlan {
  bool decode = false;
  std::vector<PlannedChunk> chunks;
  std::vector<PrefillChunk> shapes;  // the chunks again, as the step model takes them
  bool empty() const { return !decode && chunks.empty(); }
};

class Scheduler {
 public:
  Scheduler(const SchedulerLimits& limits, KvCache kv, std::unique_ptr<SchedulerPolicy> policy, uint32_t replica = 0);
  ~Scheduler();
  Scheduler(Scheduler&&) noexcept;

  // Queues the request at `now_s`; false if it is refused (queue full, longer than max_request_tokens or than the whole
  // KV cache). It then appears in ended().
  bool submit(const Request& request, double now_s);

  // Decides the next step of `batch`, which must not be in flight; empty where there is nothing it can do now.
  const StepPlan& plan(int batch, double now_s);
  StepShape shape(int batch) const;
  // The planned step of `batch` ended, and its tokens are with the clients at `now_s`.
  void complete(int batch, double now_s);

  // Requests that ended since the last clear_ended(), in the order they did.
  const std::vector<RequestRecord>& ended() const { return ended_; }
  void clear_ended() { ended_.clear(); }

  int64_t waiting() const { return waiting_count_; }
  int64_t running() const { return running_count_; }
  int64_t outstanding() const { return waiting_count_ + running_count_; }
  int64_t decoding(int batch) const { return batches_[batch].decoding; }
  const KvCache& kv() const { return kv_; }
  const Sequence& sequence(uint32_t index) const { return sequences_[index]; }
  int64_t kv_tokens(uint32_t index) const;  // tokens of a sequence that are stored now
  int64_t held_blocks() const;              // summed over every sequence: for tests

  // --- for policies, while planning ---
  const SchedulerLimits& limits() const { return limits_; }
  bool has_decoding(int batch) const { return batches_[batch].decoding > 0; }
  bool has_running(int batch) const { return batches_[batch].first != kNone; }
  // Plans one token for every decoding sequence, preempting the newest where blocks run out. True if any was preempted.
  bool decode(int batch);
  // Plans the next chunk of prompts that are part-way, and takes their tokens off `budget`. True if any was preempted.
  bool continue_prefills(int batch, int64_t& budget);
  // Admits waiting requests. `whole_prompts`: never cuts a prompt, except that one longer than the whole budget runs
  // alone.
  void admit(int batch, int64_t& budget, bool whole_prompts, double now_s);
  // Static batching: admits a batch whose sequences all keep their blocks until the longest of them is done.
  void admit_static(int batch, double now_s);
  // Sequences that finish are answered together when the last one of the batch does.
  void answer_together() { answer_together_ = true; }

 private:
  static constexpr uint32_t kNone = UINT32_MAX;

  struct Finish {
    int64_t step;
    uint32_t sequence, serial;
    bool operator>(const Finish& o) const { return step != o.step ? step > o.step : sequence > o.sequence; }
  };
  struct Batch {
    StepPlan plan;
    uint32_t first = kNone, last = kNone;  // running sequences, oldest first
    int64_t decoding = 0;
    int64_t kv_tokens = 0;            // stored, summed over decoding sequences
    int64_t step = 0;                 // decode steps done
    std::vector<int64_t> need_block;  // by (step mod block size): decoding sequences that start a block then
    std::priority_queue<Finish, std::vector<Finish>, std::greater<>> finishes;
    std::multiset<int64_t> lengths;  // of decoding sequences: tokens stored − step, which stays as they grow together
    std::vector<uint32_t> prefilling;  // in the order they were admitted
    std::vector<uint32_t> answered;    // static batching: done, waiting for the rest
    bool idle = true;                  // nothing was planned last time
    double planned_s = 0;              // when the last step was planned: its start
    std::vector<uint32_t> abandoned;   // running sequences whose clients gave up; dropped at the next plan
  };

  // What ended sequences still hold while the next step is planned ahead.
  struct Lingering {
    int64_t unhashed;
    KvCache::HashedBlocks held;
  };

  uint32_t new_sequence(const Request& request, double now_s);
  void end(uint32_t index, Outcome outcome, double now_s);
  void refuse(const Request& request, Outcome outcome);
  void link(uint32_t index, int batch);
  void unlink(uint32_t index);
  void start_decoding(uint32_t index, double now_s);
  void stop_decoding(uint32_t index);
  void finish_decode_step(int batch, double now_s);
  void finish_chunk(const PlannedChunk& planned, double now_s);
  void finish_output(uint32_t index, double now_s);
  void answer_if_all_done(int batch, double now_s);
  void preempt(uint32_t index);
  void release_blocks(uint32_t index);
  void give_back(uint32_t index);
  void release_lingering();
  bool try_admit(uint32_t index, int batch, int64_t& budget, bool whole_prompt, bool alone, double now_s);
  void plan_chunk(uint32_t index, int64_t new_tokens);
  void drop_timed_out(int batch, double now_s);
  void skip_ended_waiting();
  void leave_batch(uint32_t index);
  size_t block_phase(const Sequence& s) const;
  std::span<const uint64_t> reusable_hashes(const Sequence& s) const;

  SchedulerLimits limits_;
  KvCache kv_;
  std::unique_ptr<SchedulerPolicy> policy_;
  uint32_t replica_;
  bool answer_together_ = false;
  std::vector<Sequence> sequences_;
  std::vector<uint32_t> unused_;
  std::deque<uint32_t> waiting_;  // may hold sequences that timed out; they are passed over
  int64_t waiting_count_ = 0, running_count_ = 0;
  std::vector<Batch> batches_;
  struct Deadline {
    double at_s;
    uint32_t sequence;
    uint64_t request;
  };
  std::deque<Deadline> deadlines_;
  double seen_until_s_ = 0;  // requests queued later are not known to the plan in hand
  std::vector<Lingering> lingering_;
  std::vector<RequestRecord> ended_;
};

}  // namespace dssim
