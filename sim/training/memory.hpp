// SPDX-License-Identifier: Apache-2.0
#pragma once

// Does a training job fit, term by term, on the fullest GPU (the largest over the pipeline's stages)?
//
//   weights      parameters on the GPU × bytes of their format (2 for fp8); divided by the data ranks under zero3
//   gradients    × bytes of the gradient's format; divided under zero2 and zero3 (Rajbhandari et al. 2020, arXiv
//                1910.02054)
//   optimizer    moments and master weights; divided under zero1, zero2, zero3
//   activations  Korthikanti et al. 2022 (arXiv 2205.05198) with its terms counted one by one, so that grouped KV heads,
//                gated feed-forwards, FlashAttention and models without dropout are right as well:
//                  none       s b h (10 + 24/t + 5 a s/(h t))
//                  selective  without the last term; with FlashAttention, which keeps no scores, without what norms and
//                             activation functions make, and of latent attention without queries, keys and values
//                  full       2 s b h, and one layer in full while it is recomputed
//                sequence parallelism divides the 10 by t too; times the micro-batches in flight of the schedule, and
//                the logits of one head on the last stage
//   reserved     the stack's; under zero3 also two of the largest layers, gathered
// Units: bytes. Nothing is thrown here. Tested by tests/unit/training_memory_test.cpp,
// tests/validation/training_test.cpp.

#include <string>
#include <vector>

#include "sim/training/layer_shape.hpp"
#include "sim/training/training_job.hpp"
#include "sim/training/training_stack.hpp"

namespace dssim {

// Parameters of one pipeline stage on one GPU, before sharding.
struct StageParameters {
  double shared = 0;   // exchanged over all data ranks
  double experts = 0;  // of the experts this GPU holds; exchanged over data ranks ÷ expert_parallel
  double total() const { return shared + experts; }
};
StageParameters stage_parameters(const TrainingJob& job, int stage);
// Of one position of the pipeline: its layers, and embedding or head where it has them.
StageParameters position_parameters(const TrainingJob& job, const PositionLayers& layers, bool first, bool last);

// Kept for backward by one layer for one micro-batch, on one GPU; without a kind, by the model's last.
double layer_activation_bytes(const TrainingJob& job, const TrainingStack& stack, LayerKind kind);
double layer_activation_bytes(const TrainingJob& job, const TrainingStack& stack);

// What one GPU of a stage holds.
struct TrainingStageMemory {
  double weights_bytes = 0, gradient_bytes = 0, optimizer_bytes = 0;
  double activation_bytes = 0;
  double reserved_bytes = 0;  // context, framework, communication buffers, gradient buckets
  double total_bytes() const {
    return weights_bytes + gradient_bytes + optimizer_bytes + activation_bytes + reserved_bytes;
  }
};
// The terms are those of the fullest stage.
struct TrainingMemory : TrainingStageMemory {
  double gpu_bytes = 0;
  int stage = 0;  // the fullest
  std::vector<TrainingStageMemory> stages;
  bool fits = false;
  double shortfall_bytes = 0;
};

// `in_flight` by stage, in micro-batch chunks: PipelineTiming::peak_in_flight.
TrainingMemory plan_training_memory(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes,
                                    const std::vector<int>& in_flight);

// Micro-batch chunks that each stage holds at once at most, by its schedule.
std::vector<int> in_flight_chunks(const TrainingJob& job);

// Changes of [training] on the same GPUs that make it fit, each computed: single ones, else two together; empty where
// none does.
std::vector<std::string> training_remedies(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes,
                                           int gpus_per_node);

// Optimizer's bytes per parameter: moments and master weights.
double optimizer_bytes_per_parameter(const TrainingJob& job);

}  // namespace dssim
