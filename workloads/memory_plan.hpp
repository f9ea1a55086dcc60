// SPDX-License-Identifier: Apache-2.0
#pragma once

// Does one replica fit, and how many tokens of KV cache does it keep? Terms are per GPU, of the pipeline stage that has
// room for the fewest KV blocks: every stage keeps that many, as vLLM takes the least over its workers.
//
//   budget = min(gpu memory × gpu_memory_fraction, gpu memory − context − graphs)
//   KV     = budget − weights − activations − communication, in whole blocks   (what vLLM's profile run leaves)
//   fits   ⇔ KV holds `context_tokens`
//
// The context and the captured graphs live outside the budget, as in vLLM, and cut it only where the fraction leaves
// them too little. The formula of each term stands at its function in memory_plan.cpp, with its source; docs/memory.md
// lists them. Units: bytes. No errors are thrown here: degrees are checked by parallel_problem() first.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "kernels/stack.hpp"
#include "platforms/precision.hpp"
#include "workloads/architecture.hpp"

namespace dssim {

// How one replica is deployed: what [serving] and [model] say.
struct Deployment {
  Precision weights = Precision::bf16;
  Precision kv_cache = Precision::bf16;
  int64_t tensor_parallel = 1, pipeline_parallel = 1, expert_parallel = 1;
  std::vector<int64_t> pipeline_partition;  // layers of each stage; empty: layers_by_stage()
  int64_t max_batched_tokens = 2048;
  int64_t max_sequences = 256;
  int64_t kv_block_tokens = 16;
  double gpu_memory_fraction = 0.9;
  std::optional<int64_t> kv_tokens;  // a measured capacity: overrides the plan's
  int64_t context_tokens = 0;        // the longest sequence that has to fit (input + output); 0 = one block

  int64_t gpus() const { return tensor_parallel * pipeline_parallel; }
};

// What one GPU of a pipeline stage holds.
struct StageMemory {
  int64_t layers = 0;
  double weights_bytes = 0;
  double activation_bytes = 0;  // peak of one step
  double kv_bytes_per_token = 0;
};

struct MemoryPlan {
  double gpu_bytes = 0;     // what the GPU has
  double budget_bytes = 0;  // what the engine may use of it
  double weights_bytes = 0;
  double activation_bytes = 0;     // peak of one step
  double context_bytes = 0;        // CUDA context, framework
  double graphs_bytes = 0;         // CUDA graphs
  double communication_bytes = 0;  // collectives' buffers
  double kv_bytes = 0;             // the KV cache, whole blocks
  double kv_bytes_per_token = 0;
  int64_t kv_blocks = 0;  // of the replica (every GPU holds its share of each block)
  int64_t kv_tokens = 0;
  bool kv_given = false;  // kv_tokens came from the scenario, not from the plan
  std::vector<StageMemory> stages;

  bool fits = false;
  double shortfall_bytes = 0;  // missing per GPU; 0 where it fits

  double reserved_bytes() const { return context_bytes + graphs_bytes + communication_bytes; }
};

MemoryPlan plan_memory(const Architecture& model, const Deployment& deployment, double gpu_bytes,
                       const StackMemory& stack);

// Layers of each stage: the deployment's own partition, or vLLM's.
std::vector<int64_t> stage_layers(const Architecture& model, const Deployment& deployment);

// Sequences of `context_tokens` that the KV cache holds at once.
int64_t max_concurrency(int64_t kv_tokens, int64_t kv_block_tokens, int64_t context_tokens);

// What would make a deployment fit. Every line was computed: the plan it names fits.
struct GpuOption {
  std::string name;
  double memory_bytes = 0;
};
struct RemedyOptions {
  std::string gpu;                   // the GPU planned on
  int64_t gpus_per_node = 1;         // tensor parallelism stays within a node
  int64_t gpus = 1;                  // of the whole cluster
  std::vector<GpuOption> catalogue;  // other GPUs, in any order
};
std::vector<std::string> memory_remedies(const Architecture& model, const Deployment& deployment, double gpu_bytes,
                                         const StackMemory& stack, const RemedyOptions& options);

}  // namespace dssim
