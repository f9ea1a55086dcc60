// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long one engine iteration of one replica takes: the step's operators (per layer, under tensor and expert
// parallelism), each priced by the cost model, plus what the stack adds (graph padding, eager launch floor, host time).
//
//   StepModel model(architecture, {.weights = Precision::bf16, .tensor_parallel = 4}, cost);
//   StepPrice price = model.price({.decode_sequences = 64, .decode_kv_tokens = 64 * 800}, &usage);
//
// A step runs from a captured graph where the stack has one of its size (the batch is padded up to it); else it runs
// eagerly, and takes the longer of its GPU time and the host's launch time. Decode sequences are priced at their
// mean KV length. Compute-bound steps that follow each other slow down where the profile knows the GPU's power cap.
// Everything that depends on a small integer (tokens, batch) is remembered on first use, so a price costs
// well under a microsecond. Not for sharing between threads. `cost` must outlive the model. Assumes degrees that divide
// (checked by callers). Valid for: causal decoders and encoders of workloads/architecture.hpp. Tested by
// tests/unit/step_model_test.cpp and tests/validation/steps_test.cpp.

#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "kernels/cost_model.hpp"
#include "platforms/precision.hpp"
#include "workloads/architecture.hpp"
#include "workloads/step.hpp"

namespace dssim {

struct StepModelOptions {
  Precision weights = Precision::bf16;
  Precision kv_cache = Precision::bf16;
  int tensor_parallel = 1;
  int expert_parallel =
      1;  // MoE experts spread over this many of the tensor_parallel GPUs, the rest splits each expert
  // Replaces the profile's collectives, for replicas that span nodes or have no NVLink; `bytes` as nccl-tests counts
  // them.
  std::function<Price(Collective kind, double bytes)> collective = {};
};

// One line of a step's breakdown, summed over layers.
struct OperatorPrice {
  std::string_view name;  // "gate_up"
  OperatorClass kind = OperatorClass::matmul;
  double seconds = 0;
  double flops = 0;  // per GPU; 0 where it makes no sense
  double bytes = 0;  // per GPU, ideal memory traffic (of an all-reduce: message size)
  Coverage coverage = Coverage::outside;
};

class StepModel {
 public:
  StepModel(const Architecture& architecture, StepModelOptions options, const CostModel& cost);
  ~StepModel();
  StepModel(StepModel&&) noexcept;
  StepModel& operator=(StepModel&&) noexcept;

  // The price of one step; adds to *usage where given. An empty shape costs nothing. *heat, where given, is that of the
  // GPUs, on which the step starts at now_s (kernels/power_cap.hpp); else they come from long decode-like work.
  StepPrice price(const StepShape& shape, StepUsage* usage = nullptr, GpuHeat* heat = nullptr, double now_s = 0);

  // The same step, operator by operator (the sum of seconds is price(shape).total_s()).
  std::vector<OperatorPrice> breakdown(const StepShape& shape);

  const CostModel& cost() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dssim
