// SPDX-License-Identifier: Apache-2.0
// Requests and sequences: how they enter, join and leave a batch, and what the end of a step brings. Planning a step is
// in scheduler_plan.cpp.
#include "sim/serving/scheduler.hpp"

#include <algorithm>
#include <cassert>
#include <cmath>

#include "sim/serving/policy.hpp"

namespace dssim {

Scheduler::Scheduler(const SchedulerLimits& limits, KvCache kv, std::unique_ptr<SchedulerPolicy> policy,
                     uint32_t replica)
    : limits_(limits),
      kv_(std::move(kv)),
      policy_(std::move(policy)),
      replica_(replica),
      batches_(static_cast<size_t>(limits.batches)) {
  for (auto& batch : batches_) batch.need_block.assign(static_cast<size_t>(kv_.block_tokens()), 0);
}
Scheduler::~Scheduler() = default;
Scheduler::Scheduler(Scheduler&&) noexcept = default;

// ---------------------------------------------------------------------------------------------- entering and leaving

bool Scheduler::submit(const Request& request, double now_s) {
  // The last generated token is never stored, so a request needs room for input + output − 1 tokens.
  const int64_t longest = request.input_tokens + std::max<int64_t>(0, request.output_tokens - 1);
  if (waiting_count_ >= limits_.max_waiting ||
      request.input_tokens + request.output_tokens > limits_.max_request_tokens ||
      kv_.blocks_for(longest) > kv_.total_blocks()) {
    refuse(request, Outcome::rejected);
    return false;
  }
  const uint32_t index = new_sequence(request, now_s);
  waiting_.push_back(index);
  ++waiting_count_;
  if (std::isfinite(limits_.client_timeout_s))
    deadlines_.push_back({request.arrival_s + limits_.client_timeout_s, index, request.id});
  return true;
}

uint32_t Scheduler::new_sequence(const Request& request, double now_s) {
  if (unused_.empty()) {
    unused_.push_back(static_cast<uint32_t>(sequences_.size()));
    sequences_.emplace_back();
  }
  const uint32_t index = unused_.back();
  unused_.pop_back();
  Sequence& s = sequences_[index];
  // Everything starts afresh but the slot's serial and the storage of its lists.
  const uint32_t serial = s.serial + 1;
  auto held = std::move(s.held);
  auto hashes = std::move(s.hashes);
  s = Sequence{};
  s.serial = serial;
  s.held = std::move(held);
  s.hashes = std::move(hashes);
  s.held.clear();
  s.hashes.clear();
  s.request = request;
  s.state = Sequence::State::waiting;
  s.queued_s = now_s;
  s.prompt_tokens = request.input_tokens;
  if (kv_.prefix_caching()) append_block_hashes(request, kv_.block_tokens(), s.hashes);
  return index;
}

void Scheduler::refuse(const Request& request, Outcome outcome) {
  RequestRecord record;
  record.id = request.id;
  record.arrival_s = request.arrival_s;
  record.input_tokens = request.input_tokens;
  record.output_tokens = request.output_tokens;
  record.outcome = outcome;
  record.replica = replica_;
  ended_.push_back(record);
}

void Scheduler::end(uint32_t index, Outcome outcome, double now_s) {
  Sequence& s = sequences_[index];
  // The last step, or the front end, took the answer past the time at which its client gave up.
  if (const double gives_up_s = s.request.arrival_s + limits_.client_timeout_s; now_s > gives_up_s) {
    outcome = Outcome::timed_out;
    now_s = gives_up_s;
  }
  refuse(s.request, outcome);
  RequestRecord& record = ended_.back();
  record.queued_s = s.queued_s;
  record.scheduled_s = s.scheduled_s;
  record.first_token_s = s.first_token_s;
  record.done_s = now_s;
  record.cached_tokens = s.cached_tokens;
  record.preemptions = s.preemptions;
  s.state = Sequence::State::unused;
  ++s.serial;
  unused_.push_back(index);
}

void Scheduler::drop_timed_out(int batch, double now_s) {
  while (!deadlines_.empty() && deadlines_.front().at_s <= now_s) {
    const auto [at, index, request] = deadlines_.front();
    deadlines_.pop_front();
    Sequence& s = sequences_[index];
    if (s.request.id != request || s.state == Sequence::State::unused) continue;
    if (s.state != Sequence::State::waiting) {
      batches_[static_cast<size_t>(s.batch)].abandoned.push_back(index);
      continue;
    }
    --waiting_count_;
    // Its place in the queue stays until it comes to the front; the slot must not be used again before that.
    refuse(s.request, Outcome::timed_out);
    s.state = Sequence::State::unused;
  }
  auto& abandoned = batches_[static_cast<size_t>(batch)].abandoned;
  for (const uint32_t index : abandoned) {
    Sequence& s = sequences_[index];
    const bool running = s.state == Sequence::State::prefilling || s.state == Sequence::State::decoding;
    if (!running || s.request.arrival_s + limits_.client_timeout_s > now_s) continue;
    std::erase(batches_[static_cast<size_t>(batch)].answered, index);
    leave_batch(index);
    release_blocks(index);
    end(index, Outcome::timed_out, now_s);
  }
  abandoned.clear();
  if (answer_together_) answer_if_all_done(batch, now_s);
}

void Scheduler::skip_ended_waiting() {
  while (!waiting_.empty() && sequences_[waiting_.front()].state == Sequence::State::unused) {
    ++sequences_[waiting_.front()].serial;
    unused_.push_back(waiting_.front());
    waiting_.pop_front();
  }
}

// ------------------------------------------------------------------------------------------------ a batch's sequences

void Scheduler::link(uint32_t index, int batch) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(batch)];
  s.batch = batch;
  s.previous = b.last;
  s.next = kNone;
  (b.last != kNone ? sequences_[b.last].next : b.first) = index;
  b.last = index;
  ++running_count_;
}

void Scheduler::unlink(uint32_t index) {
  const Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  (s.previous != kNone ? sequences_[s.previous].next : b.first) = s.next;
  (s.next != kNone ? sequences_[s.next].previous : b.last) = s.previous;
  --running_count_;
}

void Scheduler::leave_batch(uint32_t index) {
  const Sequence& s = sequences_[index];
  if (s.state == Sequence::State::decoding) {
    stop_decoding(index);
  } else {
    auto& prefilling = batches_[static_cast<size_t>(s.batch)].prefilling;
    prefilling.erase(std::find(prefilling.begin(), prefilling.end(), index));
  }
  unlink(index);
}

int64_t Scheduler::kv_tokens(uint32_t index) const {
  const Sequence& s = sequences_[index];
  if (s.state != Sequence::State::decoding) return s.prefilled;
  return s.prompt_tokens + batches_[static_cast<size_t>(s.batch)].step - s.join_step;
}

int64_t Scheduler::held_blocks() const {
  // Blocks that several sequences share are counted once.
  std::vector<uint32_t> hashed;
  int64_t unhashed = 0;
  for (uint32_t i = 0; i < sequences_.size(); ++i) {
    const Sequence& s = sequences_[i];
    if (s.state == Sequence::State::unused || s.state == Sequence::State::waiting) continue;
    const int64_t blocks = s.reserved_blocks > 0 ? s.reserved_blocks : kv_.blocks_for(kv_tokens(i));
    unhashed += blocks - static_cast<int64_t>(s.held.size());
    hashed.insert(hashed.end(), s.held.begin(), s.held.end());
  }
  for (const Lingering& l : lingering_) {
    unhashed += l.unhashed;
    hashed.insert(hashed.end(), l.held.begin(), l.held.end());
  }
  std::sort(hashed.begin(), hashed.end());
  return unhashed + (std::unique(hashed.begin(), hashed.end()) - hashed.begin());
}

void Scheduler::release_blocks(uint32_t index) {
  Sequence& s = sequences_[index];
  const int64_t blocks = s.reserved_blocks > 0 ? s.reserved_blocks : kv_.blocks_for(kv_tokens(index));
  kv_.release(blocks - static_cast<int64_t>(s.held.size()), s.held);
  s.reserved_blocks = 0;
}

// A completed sequence's slot and blocks: free at once, or after the step that is being put together meanwhile.
void Scheduler::give_back(uint32_t index) {
  if (!limits_.schedules_ahead) return release_blocks(index);
  Sequence& s = sequences_[index];
  const int64_t blocks = s.reserved_blocks > 0 ? s.reserved_blocks : kv_.blocks_for(kv_tokens(index));
  lingering_.push_back({blocks - static_cast<int64_t>(s.held.size()), std::move(s.held)});
  s.held.clear();
}

void Scheduler::release_lingering() {
  for (Lingering& l : lingering_) kv_.release(l.unhashed, l.held);
  lingering_.clear();
}

// A decoding sequence writes token number kv_tokens at step `step`, and starts a block when that is a multiple of the
// block size: at every step that is congruent to join_step − prompt_tokens.
size_t Scheduler::block_phase(const Sequence& s) const {
  const int64_t size = kv_.block_tokens();
  return static_cast<size_t>((((s.join_step - s.prompt_tokens) % size) + size) % size);
}

void Scheduler::start_decoding(uint32_t index, double now_s) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  s.state = Sequence::State::decoding;
  s.join_step = b.step;
  ++b.decoding;
  b.kv_tokens += s.prompt_tokens;
  b.lengths.insert(s.prompt_tokens - s.join_step);
  if (s.reserved_blocks == 0) ++b.need_block[block_phase(s)];
  if (s.generated >= s.request.output_tokens)
    finish_output(index, now_s);
  else
    b.finishes.push({b.step + s.request.output_tokens - s.generated, index, s.serial});
}

void Scheduler::stop_decoding(uint32_t index) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  --b.decoding;
  b.kv_tokens -= kv_tokens(index);
  b.lengths.erase(b.lengths.find(s.prompt_tokens - s.join_step));
  if (s.reserved_blocks == 0) --b.need_block[block_phase(s)];
  ++s.serial;  // its entry in the heap is void
}

void Scheduler::finish_output(uint32_t index, double now_s) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  if (!answer_together_) {
    leave_batch(index);
    give_back(index);
    end(index, Outcome::completed, now_s);
    return;
  }
  b.answered.push_back(index);
  answer_if_all_done(s.batch, now_s);
}

void Scheduler::answer_if_all_done(int batch, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  if (static_cast<int64_t>(b.answered.size()) < b.decoding || !b.prefilling.empty()) return;
  for (const uint32_t done : b.answered) {
    leave_batch(done);
    release_blocks(done);
    end(done, Outcome::completed, now_s);
  }
  b.answered.clear();
}

void Scheduler::preempt(uint32_t index) {
  Sequence& s = sequences_[index];
  Batch& b = batches_[static_cast<size_t>(s.batch)];
  if (kv_.prefix_caching()) {
    // What it generated is text like any other: as long as the blocks are not used again, recomputing finds them.
    const int64_t stored = kv_tokens(index);
    append_generated_hashes(s.request, kv_.block_tokens(), stored, s.hashes);
    kv_.publish(s.hashes, stored / kv_.block_tokens(), s.held);
  }
  if (s.state == Sequence::State::decoding) s.generated += b.step - s.join_step;
  leave_batch(index);
  release_blocks(index);
  s.state = Sequence::State::waiting;
  s.prompt_tokens = s.request.input_tokens + s.generated;
  s.prefilled = 0;
  ++s.preemptions;
  waiting_.push_front(index);
  ++waiting_count_;
}

// ------------------------------------------------------------------------------------------------- the end of a step

void Scheduler::complete(int batch, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  if (b.plan.decode) finish_decode_step(batch, now_s);
  for (const PlannedChunk& planned : b.plan.chunks) finish_chunk(planned, now_s);
}

void Scheduler::finish_decode_step(int batch, double now_s) {
  Batch& b = batches_[static_cast<size_t>(batch)];
  ++b.step;
  b.kv_tokens += b.decoding;
  while (!b.finishes.empty() && b.finishes.top().step <= b.step) {
    const Finish finish = b.finishes.top();
    b.finishes.pop();
    if (sequences_[finish.sequence].serial == finish.serial) finish_output(finish.sequence, now_s);
  }
}

void Scheduler::finish_chunk(const PlannedChunk& planned, double now_s) {
  Sequence& s = sequences_[planned.sequence];
  s.prefilled += planned.chunk.new_tokens;
  if (s.prefilled < s.prompt_tokens) return;
  auto& prefilling = batches_[static_cast<size_t>(s.batch)].prefilling;
  prefilling.erase(std::find(prefilling.begin(), prefilling.end(), planned.sequence));
  if (s.generated == 0) s.first_token_s = now_s;
  ++s.generated;
  start_decoding(planned.sequence, now_s);
}

}  // namespace dssim
