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
        times_(schedule.run_times(times)),
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
        while (next[s] < orders_[s].size() && try_pass(static_cast<int>(s), orders_[s][next[s]])) {
          ++next[s];
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

  bool try_pass(int s, const Pass& pass) {
    const int position = position_of(s, pass), mb = pass.micro_batch;
    const PositionTime& time = times_[static_cast<size_t>(position)];
    double ready = 0, length = 0;
    switch (pass.kind) {
      case PassKind::forward:
        if (position > 0) ready = arrival(forward_end_, position - 1, mb, s);
        length = time.forward_s;
        break;
      case PassKind::backward:
      case PassKind::backward_input:
        ready =
            position + 1 < positions_ ? arrival(backward_end_, position + 1, mb, s) : forward_end_[index(position, mb)];
        if (forward_end_[index(position, mb)] < 0) ready = -1;
        length = pass.kind == PassKind::backward ? time.backward_s : time.backward_s - time.weight_s;
        break;
      case PassKind::backward_weight:
        ready = backward_end_[index(position, mb)];
        length = time.weight_s;
        break;
    }
    if (ready < 0) return false;
    const auto at = static_cast<size_t>(s);
    const double end = std::max(ready, free_s_[at]) + length;
    free_s_[at] = end;
    timing_.busy_s[at] += length;
    ++timing_.passes;
    if (pass.kind == PassKind::forward) {
      forward_end_[index(position, mb)] = end;
      timing_.peak_in_flight[at] = std::max(timing_.peak_in_flight[at], ++in_flight_[at]);
    } else if (pass.kind != PassKind::backward_weight) {
      backward_end_[index(position, mb)] = end;
      --in_flight_[at];
    }
    return true;
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
