// SPDX-License-Identifier: Apache-2.0
#include "sim/training/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

class GPipe final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "gpipe"; }
  std::vector<Pass> passes(int, int, int micro_batches, int) const override {
    std::vector<Pass> order;
    for (int i = 0; i < micro_batches; ++i) order.push_back({PassKind::forward, 0, i});
    for (int i = 0; i < micro_batches; ++i) order.push_back({PassKind::backward, 0, i});
    return order;
  }
};

class OneForwardOneBackward final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "1f1b"; }
  std::vector<Pass> passes(int stage, int stages, int micro_batches, int) const override {
    const int warm_up = std::min(stages - stage - 1, micro_batches);
    std::vector<Pass> order;
    for (int i = 0; i < warm_up; ++i) order.push_back({PassKind::forward, 0, i});
    for (int i = warm_up; i < micro_batches; ++i) {
      order.push_back({PassKind::forward, 0, i});
      order.push_back({PassKind::backward, 0, i - warm_up});
    }
    for (int i = micro_batches - warm_up; i < micro_batches; ++i) order.push_back({PassKind::backward, 0, i});
    return order;
  }
};

// Micro-batches go in groups of p through chunk 0, then the same group through chunk 1, …; backwards the chunks in
// reverse.
class Interleaved final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "interleaved"; }
  std::vector<Pass> passes(int stage, int stages, int micro_batches, int chunks) const override {
    const int total = micro_batches * chunks;
    const int warm_up =
        micro_batches == stages ? total : std::min(total, 2 * (stages - stage - 1) + (chunks - 1) * stages);
    const auto at = [&](int i, bool forward) {
      const int group = i / (stages * chunks), in_group = i % (stages * chunks);
      const int chunk = forward ? in_group / stages : chunks - 1 - in_group / stages;
      return Pass{forward ? PassKind::forward : PassKind::backward, chunk, group * stages + in_group % stages};
    };
    std::vector<Pass> order;
    for (int i = 0; i < warm_up; ++i) order.push_back(at(i, true));
    for (int i = warm_up; i < total; ++i) {
      order.push_back(at(i, true));
      order.push_back(at(i - warm_up, false));
    }
    for (int i = total - warm_up; i < total; ++i) order.push_back(at(i, false));
    return order;
  }
  std::string problem(int stages, int micro_batches, int virtual_stages) const override {
    if (virtual_stages < 2 && stages > 1) return "virtual_stages: the interleaved schedule needs 2 or more";
    if (micro_batches % stages != 0)
      return fmt::format(
          "schedule: interleaved needs a number of micro-batches that pipeline_parallel = {} divides, not {}", stages,
          micro_batches);
    return "";
  }
};

// Weight gradients wait until the stage would stand still, or until as many wait as micro-batches may be in flight.
class ZeroBubble final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "zero-bubble"; }
  bool splits_backward() const override { return true; }
  std::vector<Pass> passes(int stage, int stages, int micro_batches, int) const override {
    const int warm_up = std::min(stages - stage - 1, micro_batches);
    std::vector<Pass> order;
    int weights = 0;
    for (int i = 0; i < warm_up; ++i) order.push_back({PassKind::forward, 0, i});
    for (int i = warm_up; i < micro_batches; ++i) {
      order.push_back({PassKind::forward, 0, i});
      order.push_back({PassKind::backward_input, 0, i - warm_up});
      // ZB-H1: stage s owes s weight gradients, so that the first stage owes none and memory stays that of 1f1b.
      if (i - warm_up >= stage) order.push_back({PassKind::backward_weight, 0, weights++});
    }
    for (int i = micro_batches - warm_up; i < micro_batches; ++i) {
      order.push_back({PassKind::backward_input, 0, i});
      if (i >= stage) order.push_back({PassKind::backward_weight, 0, weights++});
    }
    while (weights < micro_batches) order.push_back({PassKind::backward_weight, 0, weights++});
    return order;
  }
};

// Two pipelines over the same stages in opposite directions; the first half of the micro-batches enters at stage 0, the
// second at stage p−1. The order is found by running passes of one unit each (forward 1, backward 1 + 1): the stage
// takes a backward where one is ready, else a forward while at most p + 1 are in flight, else a weight gradient.
class DualPipe final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "dualpipe"; }
  bool splits_backward() const override { return true; }
  bool overlaps_experts() const override { return true; }
  int weight_copies() const override { return 2; }
  int chunks_per_stage(int) const override { return 2; }
  int positions(int stages, int) const override { return stages; }
  int stage_of(int position, int stages, int micro_batch, int micro_batches) const override {
    return micro_batch < micro_batches / 2 ? position : stages - 1 - position;
  }
  int chunk_of(int, int, int micro_batch, int micro_batches) const override {
    return micro_batch < micro_batches / 2 ? 0 : 1;
  }
  // A forward of one direction runs beside the backward of the other, and both end together: each counts as half of
  // what the stage's two positions take.
  std::vector<PositionTime> run_times(std::span<const PositionTime> alone) const override {
    std::vector<PositionTime> times(alone.begin(), alone.end());
    for (size_t p = 0; p < times.size(); ++p) {
      const PositionTime &a = alone[p], &b = alone[alone.size() - 1 - p];
      const double weight_s = (a.weight_s + b.weight_s) / 2;
      const double pass_s = (a.forward_s + a.backward_s + b.forward_s + b.backward_s) / 4 - weight_s / 2;
      times[p] = {pass_s, pass_s + weight_s, weight_s};
    }
    return times;
  }
  std::string problem(int stages, int micro_batches, int) const override {
    if (stages % 2 != 0)
      return fmt::format("pipeline_parallel: dualpipe needs an even number of stages, not {}", stages);
    if (micro_batches % 2 != 0 || micro_batches < 2 * stages)
      return fmt::format(
          "schedule: dualpipe needs an even number of micro-batches, at least 2 × pipeline_parallel = {}, not {}",
          2 * stages, micro_batches);
    return "";
  }
  std::vector<Pass> passes(int stage, int stages, int micro_batches, int) const override {
    return all_passes(stages, micro_batches)[static_cast<size_t>(stage)];
  }

  std::vector<std::vector<Pass>> all_passes(int stages, int micro_batches) const {
    const int half = micro_batches / 2;
    struct Stage {
      std::array<int, 2> next_forward{}, next_backward{}, forwards_in{}, backwards_in{};  // by direction
      std::vector<Pass> owed;
      size_t owed_done = 0;
      int in_flight = 0;
    };
    std::vector<Stage> state(static_cast<size_t>(stages));
    std::vector<std::vector<Pass>> order(static_cast<size_t>(stages));
    state.front().forwards_in[0] = half;
    state.back().forwards_in[1] = half;
    for (bool moved = true; moved;) {
      moved = false;
      std::vector<std::pair<int, Pass>> done;
      for (int s = 0; s < stages; ++s) {
        Stage& at = state[static_cast<size_t>(s)];
        // The direction that is nearer to its end here is served first.
        const int near = s >= stages / 2 ? 0 : 1;
        std::optional<Pass> next;
        for (const int d : {near, 1 - near})
          if (!next && at.next_backward[d] < at.backwards_in[d])
            next = Pass{PassKind::backward_input, d, d * half + at.next_backward[d]++};
        for (const int d : {near, 1 - near})
          if (!next && at.in_flight <= stages && at.next_forward[d] < at.forwards_in[d])
            next = Pass{PassKind::forward, d, d * half + at.next_forward[d]++};
        if (!next && at.owed_done < at.owed.size()) next = at.owed[at.owed_done++];
        if (!next) continue;
        if (next->kind == PassKind::forward) ++at.in_flight;
        if (next->kind == PassKind::backward_input) {
          --at.in_flight;
          at.owed.push_back({PassKind::backward_weight, next->chunk, next->micro_batch});
        }
        order[static_cast<size_t>(s)].push_back(*next);
        done.emplace_back(s, *next);
        moved = true;
      }
      for (const auto& [s, pass] : done) {
        const int d = pass.chunk, towards = d == 0 ? 1 : -1;
        if (pass.kind == PassKind::forward) {
          const int to = s + towards;
          if (to < 0 || to >= stages)
            ++state[static_cast<size_t>(s)].backwards_in[d];
          else
            ++state[static_cast<size_t>(to)].forwards_in[d];
        } else if (pass.kind == PassKind::backward_input) {
          const int to = s - towards;
          if (to >= 0 && to < stages) ++state[static_cast<size_t>(to)].backwards_in[d];
        }
      }
    }
    return order;
  }
};

const std::array<const PipelineSchedule*, 5>& registry() {
  static const GPipe gpipe;
  static const OneForwardOneBackward one_f_one_b;
  static const Interleaved interleaved;
  static const ZeroBubble zero_bubble;
  static const DualPipe dualpipe;
  static const std::array<const PipelineSchedule*, 5> all{&gpipe, &one_f_one_b, &interleaved, &zero_bubble, &dualpipe};
  return all;
}

}  // namespace

int PipelineSchedule::stage_of(int position, int stages, int, int) const {
  return position % stages;
}
int PipelineSchedule::chunk_of(int position, int stages, int, int) const {
  return position / stages;
}

std::string PipelineSchedule::problem(int, int, int virtual_stages) const {
  if (virtual_stages > 1)
    return fmt::format("virtual_stages: {} belongs to schedule = \"interleaved\"; {} has one chunk a stage",
                       virtual_stages, name());
  return "";
}

std::vector<std::string> schedule_names() {
  std::vector<std::string> names;
  for (const auto* schedule : registry()) names.emplace_back(schedule->name());
  return names;
}

const PipelineSchedule& find_schedule(std::string_view name) {
  for (const auto* schedule : registry())
    if (schedule->name() == name) return *schedule;
  throw bad_input(unknown_name("schedule", name, schedule_names()));
}

}  // namespace dssim
