// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/replica.hpp"

#include <algorithm>

namespace dssim {
namespace {

// What an event of a replica means: the batch in the low half of the tag.
enum class Tag : uint64_t { stage_done = 0, transfer_done = 1 };
uint64_t make_tag(Tag tag, int batch) {
  return static_cast<uint64_t>(tag) << 32 | static_cast<uint32_t>(batch);
}

}  // namespace

void ReplicaUsage::add(const ReplicaUsage& other) {
  busy_s += other.busy_s;
  steps += other.steps;
  decode_steps += other.decode_steps;
  decode_sequences += other.decode_sequences;
  decode_kv_tokens += other.decode_kv_tokens;
  decode_only_s += other.decode_only_s;
  prefill_tokens += other.prefill_tokens;
  peak_kv_blocks = std::max(peak_kv_blocks, other.peak_kv_blocks);
  kv_block_seconds += other.kv_block_seconds;
  hand_over_s += other.hand_over_s;
  frontend_s += other.frontend_s;
}

Replica::Replica(Simulation& simulation, const ReplicaShape& shape, Scheduler scheduler, StepModel& steps,
                 RequestSink& sink)
    : simulation_(simulation),
      shape_(shape),
      scheduler_(std::move(scheduler)),
      steps_(steps),
      sink_(sink),
      heat_(shape.pipeline_parallel),
      flights_(static_cast<size_t>(shape.pipeline_parallel)),
      stages_(static_cast<size_t>(shape.pipeline_parallel)) {}

void Replica::submit(const Request& request) {
  if (scheduler_.submit(request, simulation_.now()))
    launch_batches();
  else
    report_ended();
}

void Replica::launch_batches() {
  if (shape_.pipeline_parallel == 1) {
    if (!flights_[0].active) run_single_stage();
  } else {
    for (int batch = 0; batch < shape_.pipeline_parallel && !stages_[0].busy && stages_[0].queue.empty(); ++batch) {
      Flight& flight = flights_[static_cast<size_t>(batch)];
      if (flight.active || scheduler_.plan(batch, simulation_.now()).empty()) continue;
      flight.price = price_step(batch);
      flight.active = true;
      arrive(batch, 0);
    }
  }
  report_ended();
}

StepPrice Replica::price_step(int batch) {
  const StepShape shape = scheduler_.shape(batch);
  const StepPrice price = steps_.price(shape, &step_usage_, &heat_, simulation_.now());
  int64_t prefill_tokens = 0;
  for (const auto& chunk : shape.prefill) prefill_tokens += chunk.new_tokens;
  const double total = price.total_s();
  const int64_t held = scheduler_.kv().total_blocks() - scheduler_.kv().free_blocks();
  ++usage_.steps;
  if (shape.decode_sequences > 0) {
    ++usage_.decode_steps;
    usage_.decode_sequences += static_cast<double>(shape.decode_sequences);
    usage_.decode_kv_tokens += static_cast<double>(shape.decode_kv_tokens);
    if (prefill_tokens == 0) usage_.decode_only_s += total;
  }
  usage_.prefill_tokens += static_cast<double>(prefill_tokens);
  usage_.peak_kv_blocks = std::max(usage_.peak_kv_blocks, held);
  usage_.kv_block_seconds += static_cast<double>(held) * total;
  double answers = static_cast<double>(shape.decode_sequences);
  for (const auto& chunk : shape.prefill) answers += chunk.ends_prompt;
  flights_[static_cast<size_t>(batch)].answers = answers;
  flights_[static_cast<size_t>(batch)].tokens = static_cast<double>(shape.decode_sequences + prefill_tokens);
  return price;
}

void Replica::complete(int batch, double now_s) {
  scheduler_.complete(batch, delivered_at(flights_[static_cast<size_t>(batch)].answers, now_s));
  report_ended();
}

// The front end turns a step's tokens into text and messages one after the other, and sends them when it has them all. A
// backlog grows where steps end faster; the engine does not wait for it.
double Replica::delivered_at(double tokens, double now_s) {
  usage_.frontend_s += tokens * shape_.frontend_token_s;
  frontend_free_s_ = std::max(frontend_free_s_, now_s) + tokens * shape_.frontend_token_s;
  return frontend_free_s_;
}

// Beside those of a step that ended: the refused, and the timed out, which planning finds.
void Replica::report_ended() {
  for (const RequestRecord& record : scheduler_.ended()) sink_.request_ended(record);
  scheduler_.clear_ended();
}

// ------------------------------------------------------------------------------------------------------ a single stage

void Replica::run_single_stage() {
  double now_s = simulation_.now();
  while (!scheduler_.plan(0, now_s).empty()) {
    const double end_s = now_s + price_step(0).total_s();
    usage_.busy_s += end_s - now_s;
    // An event at the very end of the step was queued before it, so it goes first: leave the order to the queue.
    if (!shape_.work_ahead || end_s >= simulation_.next_event_time() || stop_requested()) {
      flights_[0].active = true;
      simulation_.at(end_s, *this, make_tag(Tag::stage_done, 0));
      return;
    }
    simulation_.advance(end_s);
    now_s = end_s;
    complete(0, now_s);
  }
}

// ------------------------------------------------------------------------------------------------------ several stages

double Replica::stage_time(const Flight& flight, int stage) const {
  double seconds = flight.price.layers_s * shape_.layer_share[static_cast<size_t>(stage)] + flight.price.host_s;
  if (stage == 0) seconds += flight.price.embedding_s;
  if (stage == shape_.pipeline_parallel - 1) seconds += flight.price.head_s;
  return seconds;
}

void Replica::arrive(int batch, int stage) {
  flights_[static_cast<size_t>(batch)].stage = stage;
  stages_[static_cast<size_t>(stage)].queue.push_back(batch);
  start_stage(stage);
}

void Replica::start_stage(int stage) {
  Stage& s = stages_[static_cast<size_t>(stage)];
  if (s.busy || s.queue.empty()) return;
  const int batch = s.queue.front();
  s.queue.pop_front();
  s.busy = true;
  if (stages_busy_++ == 0) busy_since_s_ = simulation_.now();
  simulation_.at(simulation_.now() + stage_time(flights_[static_cast<size_t>(batch)], stage), *this,
                 make_tag(Tag::stage_done, batch));
}

void Replica::leave_stage(int batch) {
  Flight& flight = flights_[static_cast<size_t>(batch)];
  const int stage = flight.stage;
  stages_[static_cast<size_t>(stage)].busy = false;
  if (--stages_busy_ == 0) usage_.busy_s += simulation_.now() - busy_since_s_;
  start_stage(stage);
  if (stage + 1 == shape_.pipeline_parallel) {
    flight.active = false;
    complete(batch, simulation_.now());
    return;
  }
  const int tp = shape_.tensor_parallel;
  flight.transfers_left = tp;
  flight.left_s = simulation_.now();
  const double bytes = flight.tokens * shape_.activation_bytes_per_token / tp;
  for (int rank = 0; rank < tp; ++rank) {
    const int from = shape_.stage_gpus[static_cast<size_t>(stage)] + rank;
    const int to = shape_.stage_gpus[static_cast<size_t>(stage) + 1] + rank;
    simulation_.transfer(static_cast<EndpointId>(from), static_cast<EndpointId>(to), bytes, *this,
                         make_tag(Tag::transfer_done, batch));
  }
}

void Replica::on_event(uint64_t tag) {
  const int batch = static_cast<int>(tag & 0xffffffff);
  Flight& flight = flights_[static_cast<size_t>(batch)];
  if (shape_.pipeline_parallel == 1) {
    flight.active = false;
    complete(0, simulation_.now());
  } else if (static_cast<Tag>(tag >> 32) == Tag::stage_done) {
    leave_stage(batch);
  } else if (--flight.transfers_left == 0) {
    usage_.hand_over_s += simulation_.now() - flight.left_s;
    arrive(batch, flight.stage + 1);
  }
  launch_batches();
}

}  // namespace dssim
