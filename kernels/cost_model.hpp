// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long one GPU takes for one kernel: measured tables (kernels/profiles/<gpu>/<stack>) → seconds, with coverage.
//
// Model: efficiency = roofline ideal / measured time, interpolated in the logarithm of the shape; seconds = ideal /
// efficiency. The ideal is max(FLOPs / matrix rate, bytes / memory bandwidth) of the GPU asked for, so on a GPU without
// tables of its own the same stack's tables of the most similar profiled GPU carry over (docs/cost-model.md);
// everything is `outside` then. Units: SI; token counts are doubles so that means can be priced. Tested by
// tests/unit/cost_model_test.cpp and tests/validation/kernels_test.cpp.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/latent_attention_table.hpp"
#include "kernels/power_cap.hpp"
#include "kernels/price.hpp"
#include "kernels/stack.hpp"
#include "platforms/gpu.hpp"

namespace dssim {

// The heads one GPU holds (after the tensor-parallel split) and how the KV cache is stored.
struct AttentionHeads {
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  Precision kv_cache = Precision::bf16;
};

// One sequence of a prefill: `new_tokens` queries onto `past_tokens` in the KV cache.
struct AttentionChunk {
  double new_tokens = 0, past_tokens = 0;
};

// One mixture-of-experts layer on one GPU: gate excluded, both expert products and the weighted sum included. Sizes
// before the split: each expert is hidden × ffn, cut `tensor_parallel` ways; the experts are spread over
// `expert_parallel` GPUs.
struct MoeShape {
  double tokens = 0;
  int64_t hidden = 0, ffn = 0, experts = 0, experts_per_token = 0;
  int tensor_parallel = 1, expert_parallel = 1;
};

enum class Elementwise : uint8_t { add_rmsnorm, silu_mul, rope, embedding, sampler };
enum class Collective : uint8_t { all_reduce, all_gather, reduce_scatter, all_to_all };

class CostModel {
 public:
  // The profile of exactly this GPU and stack where there is one; else the same stack's tables of the most similar
  // profiled GPU. An empty stack takes the best one there is for this GPU. Throws Error(bad_input): unknown stack
  // (naming the valid ones), damaged tables, a GPU without a matrix rate or memory bandwidth.
  static CostModel load(const Gpu& gpu, const std::string& stack = "");
  // The same from another root folder than the installed kernels/profiles.
  static CostModel load_from(const std::string& profiles_root, const Gpu& gpu, const std::string& stack);
  CostModel(CostModel&&) noexcept;
  CostModel& operator=(CostModel&&) noexcept;
  ~CostModel();

  const Gpu& gpu() const;
  const Stack& stack() const;
  bool transferred() const;  // tables of another GPU, or of this one with other figures
  // What compute-bound work loses when it lasts: the prices below are of short bursts. Without such a table of this stack
  // they are what they are, and nothing is lost.
  const PowerCap& power_cap() const;
  // Error of an operator of the stack's own profile on shapes that are in no table (kernels/profile_report.hpp names
  // the operators); nothing where it was not judged, or the tables are of another GPU.
  std::optional<Uncertainty> uncertainty(std::string_view op) const;
  // Where the figures in use come from, one line each (origin, date, licence).
  std::vector<std::string> sources() const;

  // out[m,n] = in[m,k] × weights[k,n].
  Price gemm(Precision weights, double m, double n, double k) const;
  // Causal attention of the chunks in one launch; `causal` false for encoders.
  Price prefill_attention(const AttentionHeads& heads, std::span<const AttentionChunk> chunks,
                          bool causal = true) const;
  // `batch` sequences, one query token each, `kv_tokens` KV tokens in all of them together.
  Price decode_attention(const AttentionHeads& heads, double batch, double kv_tokens) const;
  // How much longer that takes because one of the sequences has `longest` KV tokens, than if all were equal; ≥ 1. Known
  // for dssim-calibrate's own kernel, 1 for others.
  double decode_spread(const AttentionHeads& heads, double batch, double kv_tokens, double longest) const;
  // Decodes and prefill chunks in the same step (one launch where the stack does so, else two).
  Price mixed_attention(const AttentionHeads& heads, std::span<const AttentionChunk> chunks, double batch,
                        double kv_tokens) const;
  // The same of latent attention, with its products in and out of the latent space (kernels/latent_attention_table.hpp).
  Price latent_prefill(const LatentHeads& heads, std::span<const AttentionChunk> chunks) const;
  Price latent_decode(const LatentHeads& heads, double batch, double kv_tokens) const;
  Price moe(Precision weights, const MoeShape& shape) const;
  // `width` is the row's input width in values: hidden for norms and embedding, ffn for silu_mul, (heads + kv heads) ×
  // head_dim for rope, vocabulary for the sampler.
  Price elementwise(Elementwise kernel, double rows, double width) const;
  // All-reduce of a layer's output inside one node, as the stack runs it (its own kernel up to its size limit, NCCL
  // above).
  Price all_reduce(int gpus, double bytes, bool in_graph) const;
  // NCCL on `gpus` of one node; `bytes` as nccl-tests counts them (the full buffer of a rank's output, or input for
  // reduce_scatter).
  Price collective(Collective kind, int gpus, double bytes) const;
  // A device-to-device copy.
  Price copy(double bytes) const;

 private:
  class Impl;
  explicit CostModel(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

// Names for `dssim catalogue stacks`: every whole profile there is; a damaged or unfinished one is passed over.
struct ProfileName {
  std::string gpu, stack, title;
};
std::vector<ProfileName> profiles();

}  // namespace dssim
