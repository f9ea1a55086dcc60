// SPDX-License-Identifier: Apache-2.0
#pragma once

// A training job: the [training] table of a scenario with names resolved and defaults filled in. Counts are of the
// whole job.
//
//   GPUs = tensor × context × data × pipeline;  micro-batches of a replica = global batch ÷ (data × micro batch)
// GPU numbers: tensor fastest, then context, data, pipeline slowest (Megatron's order), so that tensor groups stay in a
// node. Experts are spread over expert_parallel of the context × data ranks. Every key is documented in
// docs/training.md.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "platforms/precision.hpp"
#include "workloads/architecture.hpp"

namespace dssim {

enum class Sharding : uint8_t { none, zero1, zero2, zero3 };
enum class Recompute : uint8_t { none, selective, full };
enum class Optimizer : uint8_t { adamw, adam, adamw_8bit, sgd };
// flash: the quickest kernels that the stack has for the GPU; flash_2: FlashAttention-2, which Hopper could do better
// than.
enum class TrainingAttention : uint8_t { flash, flash_2, unfused };
enum class GradientCompression : uint8_t { none, four_bit, powersgd };
enum class GradientExchange : uint8_t { all_reduce, parameter_server };
// A token is sent once for each of its experts, or once to each node and forwarded there (expert_exchange.hpp).
enum class ExpertDispatch : uint8_t { all_to_all, deepep };

inline constexpr std::string_view kShardingNames[] = {"none", "zero1", "zero2", "zero3"};
inline constexpr std::string_view kRecomputeNames[] = {"none", "selective", "full"};
inline constexpr std::string_view kOptimizerNames[] = {"adamw", "adam", "adamw-8bit", "sgd"};
inline constexpr std::string_view kTrainingAttentionNames[] = {"flash", "flash-2", "unfused"};
inline constexpr std::string_view kCompressionNames[] = {"none", "4bit", "powersgd"};
inline constexpr std::string_view kExchangeNames[] = {"all-reduce", "parameter-server"};
inline constexpr std::string_view kDispatchNames[] = {"all-to-all", "deepep"};

struct TrainingJob {
  Architecture model;
  Precision precision = Precision::bf16;  // of the matrix products; weights are kept in it, in 16 bits for fp8
  int tensor_parallel = 1, pipeline_parallel = 1, data_parallel = 1, context_parallel = 1, expert_parallel = 1;
  int64_t micro_batch = 1, global_batch = 1, sequence = 2048;
  std::string schedule = "1f1b";
  int virtual_stages = 1;
  Sharding sharding = Sharding::none;
  Recompute recompute = Recompute::none;

  Optimizer optimizer = Optimizer::adamw;
  Precision state_precision = Precision::fp32;     // of the optimizer's moments
  Precision gradient_precision = Precision::fp32;  // kept and exchanged in it
  bool master_weights = true;                      // an fp32 copy beside 16-bit weights

  TrainingAttention attention = TrainingAttention::flash;
  Precision kept_precision = Precision::bf16;  // 16 bits, or fp8: of what activation functions keep for backward
  bool sequence_parallel = false;
  bool overlap_gradients = true;   // gradient buckets are exchanged while backward still runs
  bool overlap_parameters = true;  // gathers of sharded parameters run ahead of the layer that needs them
  bool overlap_context = false;    // keys and values go round in chunks beside the attention of those that are there
  bool overlap_tensor = false;     // tensor collectives in chunks beside the products they feed (sequence parallelism)
  double bucket_bytes = 25 * 1024.0 * 1024.0;
  GradientCompression compression = GradientCompression::none;
  int powersgd_rank = 4;
  GradientExchange exchange = GradientExchange::all_reduce;
  int parameter_servers = 0;  // nodes beside the workers that hold the parameters

  ExpertDispatch dispatch = ExpertDispatch::all_to_all;
  Precision dispatch_precision = Precision::bf16;  // of tokens on their way to experts; fp8: and a scale for 128 values
  int routed_nodes = 0;                            // a token's experts lie on so many nodes at most; 0: on any
  int mtp = 0;                                     // multi-token prediction modules

  double input_bytes_per_sequence = 0;        // read from storage
  double input_sequences_per_s_per_node = 0;  // what a node's loaders prepare; 0: no limit
  double jitter = 0;                          // relative standard deviation of a GPU's time for the same work
  double slow_gpu = 1;                        // the slowest GPU takes so many times as long

  int replica_gpus() const { return tensor_parallel * context_parallel * pipeline_parallel; }
  int gpus() const { return replica_gpus() * data_parallel; }
  int64_t micro_batches() const { return global_batch / (data_parallel * micro_batch); }
  double tokens_per_step() const { return static_cast<double>(global_batch) * static_cast<double>(sequence); }
  // Tokens of one micro-batch that one GPU works on.
  double micro_batch_tokens() const {
    return static_cast<double>(micro_batch) * static_cast<double>(sequence) / context_parallel;
  }
  // GPUs that hold the same parameters and average their gradients.
  int gradient_ranks() const { return data_parallel * context_parallel; }
  double parameter_bytes() const { return precision == Precision::fp8 ? 2 : bytes_of(precision); }
};

// Layers that each position of the pipeline holds. The embedding and the head may stand for a layer each, as in Llama
// 3: layers + 1 or + 2 may divide instead of layers; then the last, or the first and the last, hold one fewer (none, if
// need be). With layers + 3 the last holds two fewer (DeepSeek-V3's 61 layers over 16 stages, whose last has a
// prediction module too). Empty where the layers cannot be split.
std::vector<int64_t> layers_by_position(int64_t layers, int positions);

// The first rule the job breaks, as a key of [training] and a sentence; key empty: none. Checks degrees against the
// model, batch sizes, and the schedule's own demands.
ParallelProblem training_problem(const TrainingJob& job);

}  // namespace dssim
