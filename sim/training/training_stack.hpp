// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a training framework adds to its kernels: kernels/profiles/<gpu>/<stack>/training.toml.
// docs/training.md lists each key with its meaning, and the files say where each figure comes from.
//
// Element-wise work is counted, not fitted: values read and written per value of the activation it runs over, forward
// and backward, as the framework's kernels do it (a fused kernel reads its input once, eager code once per operation).
// Seconds = values × bytes of the format ÷ (memory bandwidth × memory_efficiency). Errors: Error(bad_input) for an
// unknown stack, naming those that can train, and for a damaged file.

#include <string>
#include <vector>

#include "kernels/cost_model.hpp"
#include "sim/training/training_job.hpp"

namespace dssim {

// Values moved per value, by direction.
struct Traffic {
  double forward = 0, backward = 0;
};

struct TrainingStack {
  std::string name, gpu, title, source;

  // Host. A pass whose kernels are quicker than their launches takes as long as the launches.
  double forward_launch_s = 0, backward_launch_s = 0;  // of one layer, eagerly
  double collective_launch_s = 0;                      // of one collective
  double step_host_s = 0;                              // once a step: optimizer's host work, loss scaling, logging
  double launch_skew_s = 0;  // standard deviation of when ranks reach a collective: each waits for its slowest

  // GPU, against the tables and the datasheet.
  double sustained_matmul =
      1;  // matrix rate in a long training run over that of the kernel tables (clocks under full power)
  double memory_efficiency = 1;   // bandwidth that element-wise kernels reach over the datasheet's
  double unaligned_slowdown = 1;  // matrix products with a side that is no multiple of 8 values
  double fp8_backward = 1;        // 8-bit products of backward, accumulated exactly, over those of forward
  PowerCap power_cap;             // what the tables' bursts lose in a run; of the GPU named above
  double overlap_cost = 0;  // compute lost per second that a collective inside the node would take, while both run
  double exchange_sms = 0;  // multiprocessors set aside for exchanges with experts where compute runs beside them
  double gpu_spread = 0;    // relative standard deviation of GPUs' speed at the same work

  TrainingAttention attention = TrainingAttention::flash;
  double flash_backward = 2.5;  // backward time over forward time of FlashAttention
  double flash_2 = 1;           // time of FlashAttention-2 over that of the tables' kernel
  double score_product = 0.6;   // unfused attention: share of the matrix rate of its batched products

  Traffic norm;                 // per norm, per hidden value
  Traffic residual;             // per residual addition, with the sums of gradients that meet there
  Traffic rope;                 // per value of q and k
  Traffic gated, plain;         // per value of the feed-forward's width
  Traffic layout;               // per value of q, k and v: transposes into and out of the attention kernel
  Traffic scores;               // unfused attention: per score, softmax and dropout
  double dropout_values = 0;    // added to residual, each direction, for models that drop out (learned positions: GPT)
  double vocabulary_bytes = 0;  // bytes moved per logit by the loss, forward and backward together
  double bucket_values = 0;     // copies of a gradient into and out of its bucket
  bool fused_accumulation = false;  // products add their gradients to the sum of earlier micro-batches
  double shard_values = 0;          // ZeRO-3: copies of a value gathered or scattered, out of or into the buffer

  // Activations kept for backward, beyond what every framework keeps (memory.hpp).
  double norm_bytes = 2;    // per hidden value and norm
  double ffn_values = 3;    // per value of a gated feed-forward's width
  double logit_bytes = 10;  // per logit

  // Defaults of [training] keys.
  bool sequence_parallel = false, overlap_gradients = true, overlap_parameters = true, master_weights = true;
  bool overlap_context = false, overlap_tensor = false;
  Precision state_precision = Precision::fp32, gradient_precision = Precision::fp32;
  double bucket_bytes = 25 * 1024.0 * 1024.0;
  bool pipeline_scatter = false;  // a stage sends each tensor rank's share only, and gathers behind the link
  bool pipeline_overlap = false;  // sends and receives run beside compute
  double reserved_bytes = 0;      // CUDA context, framework, communication buffers
};

// The named stack of this GPU, else of the GPU most like it that has one. An empty name takes torch-2.11, unless only
// another was measured on this very GPU.
TrainingStack load_training_stack(const Gpu& gpu, const std::string& name);

// Kernel times to go with it: of the profile that the stack's stack.toml borrows from, or of its own tables; measured
// on this GPU where there are such, else the best of this GPU's own, else carried over.
CostModel load_training_kernels(const Gpu& gpu, const TrainingStack& stack);

std::vector<std::string> training_stack_names();

}  // namespace dssim
