// SPDX-License-Identifier: Apache-2.0
// The planning half of Scheduler: which sequences the next step of a batch works on, and on how many of their tokens.
#include <algorithm>

#include "sim/serving/policy.hpp"
#include "sim/serving/scheduler.hpp"

namespace dssim {

const StepPlan& Scheduler::plan(int batch, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  b.plan.decode = false;
  b.plan.chunks.clear();
  b.plan.shapes.clear();
  if (!deadlines_.empty() || !b.abandoned.empty()) drop_timed_out(batch, now_s);
  seen_until_s_ = limits_.schedules_ahead && !b.idle ? b.planned_s : now_s;
  policy_->plan(*this, batch, now_s);
  release_lingering();
  if (b.plan.empty() && seen_until_s_ < now_s) {
    // Nothing was known when the last step started: the engine waits for its end and looks again.
    seen_until_s_ = now_s;
    policy_->plan(*this, batch, now_s);
  }
  b.idle = b.plan.empty();
  b.planned_s = now_s;
  return b.plan;
}

StepShape Scheduler::shape(int batch) const {
  const Batch& b = batches_[static_cast<size_t>(batch)];
  StepShape shape;
  if (b.plan.decode) {
    shape.decode_sequences = b.decoding;
    shape.decode_kv_tokens = b.kv_tokens + b.decoding;
    if (b.decoding > 0) shape.decode_longest = *b.lengths.rbegin() + b.step + 1;
  }
  shape.prefill = b.plan.shapes;
  return shape;
}

bool Scheduler::decode(int batch) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  bool preempted = false;
  const auto phase = static_cast<size_t>(b.step % kv_.block_tokens());
  while (b.decoding > 0 && b.need_block[phase] > kv_.free_blocks()) {
    preempt(b.last);
    preempted = true;
  }
  kv_.take(b.need_block[phase]);
  b.plan.decode = b.decoding > 0;
  return preempted;
}

// Blocks of a prompt can be shared as soon as their chunk is planned: whoever finds them runs in the same step or later.
void Scheduler::plan_chunk(uint32_t index, int64_t new_tokens) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  const PrefillChunk chunk{new_tokens, s.prefilled, s.prefilled + new_tokens == s.prompt_tokens};
  b.plan.chunks.push_back({index, chunk});
  b.plan.shapes.push_back(chunk);
  if (s.reserved_blocks > 0) return;
  const auto full =
      std::min<int64_t>((s.prefilled + new_tokens) / kv_.block_tokens(), static_cast<int64_t>(s.hashes.size()));
  kv_.publish(s.hashes, full, s.held);
}

bool Scheduler::continue_prefills(int batch, int64_t& budget) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  bool preempted = false;
  for (size_t i = 0; i < b.prefilling.size() && budget > 0; ++i) {
    const uint32_t index = b.prefilling[i];
    const Sequence& s = sequences_[index];
    const int64_t tokens = std::min(s.prompt_tokens - s.prefilled, budget);
    if (s.reserved_blocks == 0) {
      const int64_t blocks = kv_.blocks_for(s.prefilled + tokens) - kv_.blocks_for(s.prefilled);
      while (blocks > kv_.free_blocks() && b.last != index) preempt(b.last), preempted = true;
      if (blocks > kv_.free_blocks()) {
        preempt(index);
        return true;
      }
      kv_.take(blocks);
    }
    plan_chunk(index, tokens);
    budget -= tokens;
  }
  return preempted;
}

std::span<const uint64_t> Scheduler::reusable_hashes(const Sequence& s) const {
  // The last prompt token is always computed, since it yields the first output token.
  const auto most = static_cast<size_t>((s.prompt_tokens - 1) / kv_.block_tokens());
  return std::span(s.hashes).first(std::min(most, s.hashes.size()));
}

bool Scheduler::try_admit(uint32_t index, int batch, int64_t& budget, bool whole_prompt, bool alone, double now_s) {
  Sequence& s = sequences_[index];
  const KvCache::Match cached = kv_.match(reusable_hashes(s));
  const int64_t past = cached.blocks * kv_.block_tokens();
  int64_t tokens = s.prompt_tokens - past;
  if (tokens > budget) {
    if (whole_prompt && !alone) return false;
    if (!whole_prompt) tokens = budget;
  }
  const int64_t new_blocks = kv_.blocks_for(past + tokens) - cached.blocks;
  const int64_t must_fit = limits_.prompt_must_fit ? kv_.blocks_for(s.prompt_tokens) - cached.blocks : new_blocks;
  if (must_fit + cached.evictable > kv_.free_blocks()) return false;
  kv_.hold(s.hashes, cached.blocks, s.held);
  kv_.take(new_blocks);
  s.prefilled = past;
  if (!s.was_scheduled) {
    s.was_scheduled = true;
    s.scheduled_s = now_s;
    s.cached_tokens = past;
  }
  s.state = Sequence::State::prefilling;
  link(index, batch);
  batches_[static_cast<size_t>(batch)].prefilling.push_back(index);
  plan_chunk(index, tokens);
  budget -= tokens;
  return true;
}

void Scheduler::admit(int batch, int64_t& budget, bool whole_prompts, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  while (budget > 0 && running_count_ + static_cast<int64_t>(lingering_.size()) < limits_.max_sequences) {
    skip_ended_waiting();
    if (waiting_.empty()) return;
    const uint32_t index = waiting_.front();
    if (sequences_[index].queued_s > seen_until_s_) return;
    const bool alone = b.plan.chunks.empty() && budget == limits_.max_batched_tokens;
    if (!try_admit(index, batch, budget, whole_prompts, alone, now_s)) return;
    waiting_.pop_front();
    --waiting_count_;
  }
}

void Scheduler::admit_static(int batch, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  std::vector<uint32_t> chosen;
  int64_t longest_output = 0, reserved = 0;
  const auto blocks_each = [&](int64_t input, int64_t output) {
    return kv_.blocks_for(input + std::max<int64_t>(0, output - 1));
  };
  while (running_count_ + static_cast<int64_t>(chosen.size()) < limits_.max_sequences) {
    skip_ended_waiting();
    if (waiting_.empty()) break;
    const uint32_t index = waiting_.front();
    const int64_t output = std::max(longest_output, sequences_[index].request.output_tokens);
    int64_t with_it = reserved;
    if (output > longest_output) {
      with_it = 0;
      for (const uint32_t other : chosen) with_it += blocks_each(sequences_[other].prompt_tokens, output);
    }
    with_it += blocks_each(sequences_[index].prompt_tokens, output);
    if (with_it > kv_.free_blocks()) break;
    reserved = with_it;
    longest_output = output;
    chosen.push_back(index);
    waiting_.pop_front();
    --waiting_count_;
  }
  for (const uint32_t index : chosen) {
    Sequence& s = sequences_[index];
    s.reserved_blocks = blocks_each(s.prompt_tokens, longest_output);
    kv_.take(s.reserved_blocks);
    s.was_scheduled = true;
    s.scheduled_s = now_s;
    s.state = Sequence::State::prefilling;
    link(index, batch);
    b.prefilling.push_back(index);
  }
}

}  // namespace dssim
