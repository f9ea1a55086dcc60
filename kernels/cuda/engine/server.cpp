// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/server.hpp"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <random>
#include <thread>

#include "kernels/cuda/measure/meter.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "sim/base/error.hpp"
#include "sim/engine/simulation.hpp"

namespace dssim::cuda {

Server::Server(GpuGroup& group, Scheduler scheduler, int64_t blocks)
    : group_(group),
      scheduler_(std::move(scheduler)),
      vocabulary_(group.model(0).shape().vocabulary * group.gpus()),
      free_pages_(static_cast<std::size_t>(blocks)) {
  std::iota(free_pages_.begin(), free_pages_.end(), 1);
  // A cache that has served for a while has its pages in no order.
  std::shuffle(free_pages_.begin(), free_pages_.end(), std::mt19937(1));
}

double Server::now() const {
  return now_seconds() - zero_;
}

void Server::wait_until(double time_s) const {
  constexpr double kSleep = 5e-4;  // a shorter wait than this may be overslept
  while (!stop_requested()) {
    double left = time_s - now();
    if (left <= 0) return;
    if (left > 2 * kSleep)
      std::this_thread::sleep_for(std::chrono::duration<double>(std::min(left - 2 * kSleep, 0.05)));
  }
}

void Server::serve(RequestStream& requests, const std::function<void(const RequestRecord&)>& ended) {
  zero_ = now_seconds();
  Request next;
  bool known = requests.next(next);
  while (!stop_requested()) {
    while (known && next.arrival_s <= now()) {
      scheduler_.submit(next, now());
      known = requests.next(next);
    }
    bool ran = step();
    bool any_ended = !scheduler_.ended().empty();
    for (const RequestRecord& record : scheduler_.ended()) {
      ended(record);
      requests.completed(record.id, now());
    }
    scheduler_.clear_ended();
    if (ran) iterations_.back().seconds = now() - iterations_.back().start_s;
    if (!known && any_ended) known = requests.next(next);
    if (ran) continue;
    if (known) {
      wait_until(next.arrival_s);
    } else if (!any_ended) {
      if (scheduler_.outstanding() > 0) throw failure("the scheduler plans nothing while requests wait");
      return;
    }
  }
}

Server::Slot& Server::slot_of(uint32_t sequence) {
  if (sequence >= slots_.size()) slots_.resize(sequence + 1);
  return slots_[sequence];
}

void Server::give_pages(Slot& slot) {
  free_pages_.insert(free_pages_.end(), slot.pages.begin(), slot.pages.end());
  slot.pages.clear();
}

void Server::take_pages(Slot& slot, int64_t tokens) {
  auto wanted = static_cast<std::size_t>((tokens + kPageTokens - 1) / kPageTokens);
  while (slot.pages.size() < wanted) {
    if (free_pages_.empty()) throw failure("the scheduler planned more KV blocks than there are");
    slot.pages.push_back(free_pages_.back());
    free_pages_.pop_back();
  }
}

// Sequences that ended, or gave their blocks back, since the last step.
void Server::drop_pages_of_gone() {
  std::erase_if(holders_, [&](uint32_t index) {
    const Sequence& s = scheduler_.sequence(index);
    Slot& slot = slot_of(index);
    bool runs = s.state == Sequence::State::prefilling || s.state == Sequence::State::decoding;
    if (runs && s.serial == slot.serial) return false;
    give_pages(slot);
    return true;
  });
}

// Any text will do as a prompt, as long as it is the same one when a preempted sequence computes it again.
int Server::token_at(const Sequence& sequence, const Slot& slot, int64_t position) const {
  if (position >= sequence.request.input_tokens)
    return slot.generated[static_cast<std::size_t>(position - sequence.request.input_tokens)];
  uint64_t x = (sequence.request.id + 1) * 0x9e3779b97f4a7c15ull + static_cast<uint64_t>(position);
  x = (x ^ (x >> 31)) * 0xbf58476d1ce4e5b9ull;
  return static_cast<int>((x >> 33) % static_cast<uint64_t>(vocabulary_));
}

void Server::gather(const StepPlan& plan) {
  batch_.clear();
  yielding_.clear();
  drop_pages_of_gone();
  if (plan.decode) {
    for (uint32_t index : holders_) {
      if (scheduler_.sequence(index).state != Sequence::State::decoding) continue;
      Slot& slot = slot_of(index);
      int64_t kv_tokens = scheduler_.kv_tokens(index) + 1;
      take_pages(slot, kv_tokens);
      batch_.add_decode(slot.pages, static_cast<int>(kv_tokens), slot.generated.back());
      yielding_.push_back(index);
    }
  }
  for (const PlannedChunk& planned : plan.chunks) slot_of(planned.sequence);  // before spans into slots are taken
  for (const PlannedChunk& planned : plan.chunks) {
    const Sequence& s = scheduler_.sequence(planned.sequence);
    Slot& slot = slot_of(planned.sequence);
    const PrefillChunk& chunk = planned.chunk;
    if (chunk.past_tokens == 0) {
      give_pages(slot);
      if (std::find(holders_.begin(), holders_.end(), planned.sequence) == holders_.end())
        holders_.push_back(planned.sequence);
      if (slot.request != s.request.id) slot.generated.clear();
      slot.request = s.request.id;
      slot.serial = s.serial;
    }
    take_pages(slot, chunk.past_tokens + chunk.new_tokens);
    slot.chunk.clear();
    for (int64_t i = 0; i < chunk.new_tokens; ++i) slot.chunk.push_back(token_at(s, slot, chunk.past_tokens + i));
    batch_.add_chunk(slot.pages, static_cast<int>(chunk.past_tokens), slot.chunk, chunk.ends_prompt);
    if (chunk.ends_prompt) yielding_.push_back(planned.sequence);
  }
}

bool Server::step() {
  Iteration i;
  i.start_s = now();
  const StepPlan& plan = scheduler_.plan(0, i.start_s);
  if (plan.empty()) return false;
  gather(plan);
  StepShape shape = scheduler_.shape(0);
  i.decodes = shape.decode_sequences;
  i.decode_kv_tokens = shape.decode_kv_tokens;
  i.decode_longest = shape.decode_longest;
  for (const PrefillChunk& c : shape.prefill) {
    ++i.chunks;
    i.prefill_tokens += c.new_tokens;
    i.prefill_kv_tokens += c.past_tokens + c.new_tokens;
  }
  if (i.decodes != batch_.shape().decodes) throw failure("the engine lost sequences that the scheduler decodes");
  GpuGroup::Step done = group_.run(batch_);
  for (std::size_t r = 0; r < yielding_.size(); ++r)
    slots_[yielding_[r]].generated.push_back(std::min(done.tokens[r], vocabulary_ - 1));
  i.gpu_s = done.gpu_seconds;
  i.launch_s = done.launch_seconds;
  scheduler_.complete(0, now());
  iterations_.push_back(i);
  return true;
}

}  // namespace dssim::cuda
