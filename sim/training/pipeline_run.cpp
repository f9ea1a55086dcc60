// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <cassert>

#include "sim/base/error.hpp"
#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

// Dates at which each pass ended, by position and micro-batch; negative while it has not run.
class Run {
 public:
  Run(const PipelineSchedule& schedule, int stages, int micro_batches, int chunks, std::span<const PositionTime> times,
      double transfer_s)
      : schedule_(schedule),
        stages_(stages),
        micro_batches_(micro_batches),
        positions_(schedule.positions(stages, chunks)),
        times_(times.begin(), times.end()),
        transfer_s_(transfer_s),
        forward_end_(static_cast<size_t>(positions_) * static_cast<size_t>(micro_batches), -1.0),
        backward_end_(forward_end_),
        free_s_(static_cast<size_t>(stages), 0.0),
        in_flight_(static_cast<size_t>(stages), 0) {
    assert(times_.size() == static_cast<size_t>(positions_));
    timing_.busy_s.assign(static_cast<size_t>(stages), 0.0);
    timing_.peak_in_flight.assign(static_cast<size_t>(stages), 0);
    for (int s = 0; s < stages; ++s) orders_.push_back(schedule.passes(s, stages, micro_batches, chunks));
  }

  PipelineTiming take() {
    std::vector<size_t> next(orders_.size(), 0);
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t s = 0; s < orders_.size(); ++s)
        while (next[s] < orders_[s].size()) {
          const size_t done = try_passes(static_cast<int>(s), std::span(orders_[s]).subspan(next[s]));
          if (done == 0) break;
          next[s] += done;
          moved = true;
        }
    }
    for (size_t s = 0; s < orders_.size(); ++s)
      if (next[s] < orders_[s].size())
        throw failure(fmt::format("schedule {}: stage {} waits for ever at its pass {}", schedule_.name(), s, next[s]));
    timing_.makespan_s = *std::max_element(free_s_.begin(), free_s_.end());
    return std::move(timing_);
  }

 private:
  size_t index(int position, int micro_batch) const {
    return static_cast<size_t>(position) * static_cast<size_t>(micro_batches_) + static_cast<size_t>(micro_batch);
  }
  int stage(int position, int micro_batch) const {
    return schedule_.stage_of(position, stages_, micro_batch, micro_batches_);
  }

  int position_of(int stage_index, const Pass& pass) const {
    if (positions_ > stages_) return pass.chunk * stages_ + stage_index;
    // One position a stage, in the direction of this micro-batch.
    return stage(stage_index, pass.micro_batch) == stage_index ? stage_index : stages_ - 1 - stage_index;
  }

  // When the input from `position` is here, or negative where it is not made yet.
  double arrival(const std::vector<double>& ends, int position, int micro_batch, int here) const {
    const double end = ends[index(position, micro_batch)];
    if (end < 0) return -1;
    return stage(position, micro_batch) == here ? end : end + transfer_s_;
  }

  // When the pass's input is there, or negative; how long it takes alone, and how much less beside another.
  struct Start {
    double ready_s = 0, length_s = 0, saved_s = 0;
  };
  Start start_of(int s, const Pass& pass) const {
    const int position = position_of(s, pass), mb = pass.micro_batch;
    const PositionTime& time = times_[static_cast<size_t>(position)];
    const double forward_end = forward_end_[index(position, mb)];
    switch (pass.kind) {
      case PassKind::forward:
        return {position > 0 ? arrival(forward_end_, position - 1, mb, s) : 0, time.forward_s, time.forward_saved_s};
      case PassKind::backward_weight:
        return {backward_end_[index(position, mb)], time.weight_s, 0};
      case PassKind::backward:
      case PassKind::backward_input:
        break;
    }
    const double from_next = position + 1 < positions_ ? arrival(backward_end_, position + 1, mb, s) : forward_end;
    const double weight_s = pass.kind == PassKind::backward_input ? time.weight_s : 0;
    return {forward_end < 0 ? -1 : from_next, time.backward_s - weight_s, time.backward_saved_s};
  }

  void finish(int s, const Pass& pass, double end) {
    const auto at = static_cast<size_t>(s);
    const int position = position_of(s, pass);
    ++timing_.passes;
    if (pass.kind == PassKind::forward) {
      forward_end_[index(position, pass.micro_batch)] = end;
      timing_.peak_in_flight[at] = std::max(timing_.peak_in_flight[at], ++in_flight_[at]);
    } else {
      if (pass.kind != PassKind::backward_weight) backward_end_[index(position, pass.micro_batch)] = end;
      // A weight gradient that waits keeps nearly all that was kept for backward: 32 of 34 s b h (Qi et al. 2024, arXiv
      // 2401.10241, table 1).
      if (pass.kind != PassKind::backward_input) --in_flight_[at];
    }
  }

  // Runs the first pass, or the first two where they run beside each other; how many could run.
  size_t try_passes(int s, std::span<const Pass> passes) {
    const size_t count = passes[0].with_next ? 2 : 1;
    double ready = 0, length = 0;
    for (const Pass& pass : passes.first(count)) {
      const Start start = start_of(s, pass);
      if (start.ready_s < 0) return 0;
      ready = std::max(ready, start.ready_s);
      length += start.length_s - (count == 2 ? start.saved_s : 0);
    }
    const auto at = static_cast<size_t>(s);
    free_s_[at] = std::max(ready, free_s_[at]) + length;
    timing_.busy_s[at] += length;
    for (const Pass& pass : passes.first(count)) finish(s, pass, free_s_[at]);
    return count;
  }

  const PipelineSchedule& schedule_;
  int stages_, micro_batches_, positions_;
  std::vector<PositionTime> times_;
  double transfer_s_;
  std::vector<std::vector<Pass>> orders_;
  std::vector<double> forward_end_, backward_end_, free_s_;
  std::vector<int> in_flight_;
  PipelineTiming timing_;
};

}  // namespace

PipelineTiming run_pipeline(const PipelineSchedule& schedule, int stages, int micro_batches, int chunks,
                            std::span<const PositionTime> positions, double transfer_s) {
  return Run(schedule, stages, micro_batches, chunks, positions, transfer_s).take();
}

PipelineTiming run_pipeline_collapsed(const PipelineSchedule& schedule, int stages, int micro_batches, int chunks,
                                      std::span<const PositionTime> positions, double transfer_s) {
  // Long enough for the steady state to be reached and left; both lengths leave the same remainder by `stages`, and the
  // same parity for schedules that split the micro-batches in halves.
  const int round = 2 * stages;
  const int least = 6 * stages + micro_batches % round;
  if (stages == 1 || micro_batches <= least + round)
    return run_pipeline(schedule, stages, micro_batches, chunks, positions, transfer_s);
  PipelineTiming shorter = run_pipeline(schedule, stages, least, chunks, positions, transfer_s);
  PipelineTiming longer = run_pipeline(schedule, stages, least + round, chunks, positions, transfer_s);
  const double rounds = static_cast<double>(micro_batches - least - round) / round;
  longer.makespan_s += rounds * (longer.makespan_s - shorter.makespan_s);
  for (size_t s = 0; s < longer.busy_s.size(); ++s) {
    longer.busy_s[s] += rounds * (longer.busy_s[s] - shorter.busy_s[s]);
    // A schedule that keeps everything in flight (gpipe) grows with the micro-batches.
    longer.peak_in_flight[s] += static_cast<int>(rounds) * (longer.peak_in_flight[s] - shorter.peak_in_flight[s]);
  }
  longer.passes += shorter.passes;
  return longer;
}

}  // namespace dssim
