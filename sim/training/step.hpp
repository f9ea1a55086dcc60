// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long one training step takes, and where the time goes.
//
//   pass times of each position of the pipeline   LayerCost × layers (+ embedding, head, recomputation, gathered
//   shards) pipeline                                       run_pipeline over them: makespan, and the busiest stage's
//   work gradients          exchanged in buckets while the last micro-batch's backward runs; what outlasts it is
//   exposed, and what runs
//                      beside it costs overlap_cost of its time in compute
//   optimizer          its bytes ÷ memory bandwidth, on the share of the parameters that the GPU owns
//   input              the step waits where storage or the loaders take longer than the step
//   stragglers         the step waits for the slowest GPU: the expected maximum over all of a normal spread
//
// step = compute + tensor + pipeline bubble + data + expert + other, each as the busiest stage sees it; the bubble is
// what is left of the makespan. One pipeline stands for all: replicas are alike, and links are shared with the others'
// traffic (GroupNetwork). MFU: FLOPs the model needs (6 per parameter and token in matrix products, 12 l h s a token in
// attention, no recomputation) ÷ (GPUs × dense rate × step); HFU counts recomputation and
// prediction modules as well. Units: SI. Errors: none;
// jobs are checked by training_problem().

#include <array>
#include <map>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "sim/training/group_network.hpp"
#include "sim/training/layer_cost.hpp"
#include "sim/training/memory.hpp"
#include "sim/training/schedule.hpp"

namespace dssim {

struct StepParts {
  double compute_s = 0;          // forward and backward kernels, no recomputation
  double tensor_s = 0;           // tensor-parallel collectives
  double pipeline_bubble_s = 0;  // waiting for other stages, and for what they send
  double data_s = 0;             // gradients and shards, as far as exposed, and compute lost beside them
  double expert_s = 0;           // all-to-all between experts
  // The rest, which the report sums as other_s.
  double context_s = 0;    // keys and values between context ranks
  double recompute_s = 0;  // forward work repeated
  double optimizer_s = 0;
  double host_s = 0;  // the GPU waits for launches
  double stragglers_s = 0;
  double input_s = 0;

  double other_s() const { return context_s + recompute_s + optimizer_s + host_s + stragglers_s + input_s; }
  double total_s() const { return compute_s + tensor_s + pipeline_bubble_s + data_s + expert_s + other_s(); }

  // Every part with the name that reports give it.
  std::vector<std::pair<std::string_view, double>> named() const;
};

struct TrainingStep {
  StepParts parts;
  TrainingMemory memory;
  double tokens_per_s = 0;
  int gpus = 0;
  int64_t micro_batches = 0;
  double model_flops = 0, hardware_flops = 0;  // of the whole job, a step
  double peak_flops_per_s = 0;                 // of the whole job
  double gradient_bytes_sent = 0;              // by one GPU of the first stage, a step
  LinkUse node_link, fabric;                   // of the busiest link of each sort, one direction, a step
  std::array<double, 3> coverage_s{};
  uint64_t passes = 0, flows = 0;

  double step_s() const { return parts.total_s(); }
  double mfu() const { return model_flops / (peak_flops_per_s * step_s()); }
  double hfu() const { return hardware_flops / (peak_flops_per_s * step_s()); }
  double tokens_per_s_per_gpu() const { return tokens_per_s / gpus; }
};

// FLOPs the model needs for one step, and with recomputation.
double model_flops_per_step(const TrainingJob& job);
double hardware_flops_per_step(const TrainingJob& job);

// Exposed part of exchanges that take `exchange_s` in `buckets` equal parts, the first ready after 1/buckets of
// `window_s`.
double exposed_seconds(double exchange_s, double window_s, double buckets);

class StepPredictor {
 public:
  // The cluster must hold the GPUs of every job asked for. Throws Error(bad_input) for an unknown stack.
  StepPredictor(const Cluster& cluster, const std::string& stack_name, const CollectiveOptions& network = {});

  const Cluster& cluster() const { return cluster_; }
  const TrainingStack& stack() const { return stack_; }
  const CostModel& kernels() const { return kernels_; }
  std::vector<std::string> sources() const;

  TrainingMemory memory(const TrainingJob& job) const;
  TrainingStep predict(const TrainingJob& job);

 private:
  class Builder;

  Cluster cluster_;
  TrainingStack stack_;
  CostModel kernels_;
  ClusterNetwork network_;
  CollectiveModel collectives_;
  GroupNetwork groups_;
};

}  // namespace dssim
