// SPDX-License-Identifier: Apache-2.0
#include "sim/training/schedule.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

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
// second at stage p−1. `near` is the direction that enters at the stage's own half, r its distance from the nearer end.
class DualPipe final : public PipelineSchedule {
 public:
  std::string_view name() const override { return "dualpipe"; }
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
  std::vector<int> positions_on(int stage, int stages, int) const override { return {stage, stages - 1 - stage}; }
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
    const int half_stages = stages / 2, r = std::min(stage, stages - 1 - stage), fill = half_stages - r - 1;
    const int near = stage < half_stages ? 0 : 1, far = 1 - near, half = micro_batches / 2;
    std::vector<Pass> order;
    std::array<int, 2> forwards{}, backwards{};  // done, by direction
    size_t owed_done = 0;
    std::vector<Pass> owed;  // weight gradients
    const auto forward = [&](int d, bool with_next = false) {
      order.push_back({PassKind::forward, d, d * half + forwards[static_cast<size_t>(d)]++, with_next});
    };
    const auto backward = [&](int d, bool splits = false) {
      const int micro_batch = d * half + backwards[static_cast<size_t>(d)]++;
      order.push_back({splits ? PassKind::backward_input : PassKind::backward, d, micro_batch});
      if (splits) owed.push_back({PassKind::backward_weight, d, micro_batch});
    };
    const auto weight = [&] { order.push_back(owed[owed_done++]); };
    const auto pair = [&](int ahead, int back) {
      forward(ahead, true);
      backward(back);
    };
    for (int i = 0; i < 2 * fill; ++i) forward(near);
    for (int i = 0; i <= r; ++i) forward(near), forward(far);
    for (int i = 0; i < fill; ++i) backward(far, true), weight(), forward(far);
    for (int i = 0; i < half - stages + r + 1; ++i) {
      if (i == 0 && fill == 0)
        forward(near), backward(far);  // the middle stages: apart, for a shorter bubble
      else
        pair(near, far);
      pair(far, near);
    }
    for (int i = 0; i < fill; ++i) backward(far), pair(far, near);
    bool splits = false;
    for (int i = 0; i <= r; ++i) {
      if (i == (r + 1) / 2 && r % 2 == 1) splits = true;
      backward(far, splits);
      if (i == (r + 1) / 2 && r % 2 == 0) splits = true;
      backward(near, splits);
    }
    for (int i = 0; i < fill; ++i) weight(), backward(near, true);
    while (owed_done < owed.size()) weight();
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

std::vector<int> PipelineSchedule::positions_on(int stage, int stages, int chunks) const {
  std::vector<int> held;
  for (int p = stage; p < positions(stages, chunks); p += stages) held.push_back(p);
  return held;
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
