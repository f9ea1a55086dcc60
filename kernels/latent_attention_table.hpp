// SPDX-License-Identifier: Apache-2.0
#pragma once

// Latent attention (MLA, DeepSeek-V2): a layer's attention kernel together with the products between the latent vectors
// and the heads, and the write of new latents to the cache. Engines run it in two ways:
//   absorbed  queries are taken into the latent space (q W_UK), attend to the cached latents as one KV head that all
//             query heads share, and the result is taken out (W_UV): 2 (2 r + p) FLOPs a head and pair. All decodes,
//             and chunks of up to absorbed_tokens() (vLLM's reorder_batch_threshold)
//   expanded  kv_b makes every head's keys and values of new and past latents, then plain attention:
//             2 (n + p + v) FLOPs a head and pair
// with r = kv_lora_rank, p = qk_rope_head_dim, n = qk_nope_head_dim, v = v_head_dim.
//
//   ideal = max(product FLOPs / rate, their weights / bandwidth) + max(attention FLOPs / rate, latents / bandwidth) +
//           vectors of the heads / bandwidth
//   seconds = 15 us + ideal / efficiency
// 15 us are six launches of 2.5 us, the shortest kernel in any table. The efficiency is a smooth function of (mean KV
// length, new tokens, heads): points weigh by the inverse fourth power of their distance in log2. The measured rows are
// of eager launches, and those that the host's launches decided are not in the table: below
// about 0.25 ms the efficiency is that of the nearest larger ones. Units: SI. Tested by tests/unit/cost_model_test.cpp
// and tests/validation/kernels_test.cpp.

#include <array>
#include <span>
#include <vector>

#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

// The heads that one GPU holds, and what they are made of.
struct LatentHeads {
  int64_t heads = 0;
  int64_t kv_lora_rank = 0, qk_rope_head_dim = 0, qk_nope_head_dim = 0, v_head_dim = 0;
  Precision kv_cache = Precision::bf16;

  double latent_bytes() const { return static_cast<double>(kv_lora_rank + qk_rope_head_dim) * bytes_of(kv_cache); }
  double absorbed_pair_flops() const;  // of all heads, a query token and a token it attends to
  double expanded_pair_flops() const;
};

// Sums over what runs together, in one of the two ways.
struct LatentWork {
  double tokens = 0, pairs = 0;
  double product_flops = 0, weight_bytes = 0;
  double attention_flops = 0, cache_bytes = 0;
  double vector_bytes = 0;

  void add_absorbed(const LatentHeads& heads, double new_tokens, double kv_tokens, double new_pairs);
  void add_expanded(const LatentHeads& heads, double new_tokens, double past_tokens, double sequences = 1);
};

class LatentAttentionTable {
 public:
  enum class Way { decode, absorbed, expanded };
  LatentAttentionTable(std::span<const LatentSample> samples, Precision kv_cache, const Machine& source);
  bool empty() const;
  double absorbed_tokens() const { return absorbed_tokens_; }
  Price price(const Machine& target, const LatentHeads& heads, Way way, const LatentWork& work) const;

 private:
  struct Point {
    double length, tokens, heads;  // log2
    double log_efficiency;
  };
  // A regular grid of efficiencies for one number of heads, its corners filled when first needed (NaN before).
  struct Grid {
    int64_t heads;
    std::vector<double> corners;
  };
  struct Surface {
    std::vector<Point> points;
    mutable std::vector<Grid> grids;
    double at(double length, double tokens, int64_t heads) const;
    double corner(Grid& grid, int i, int j) const;
    Coverage coverage(double length, double tokens, double heads) const;
  };
  static double ideal(const Machine& machine, const LatentWork& work);

  Precision kv_cache_;
  Machine source_;
  double absorbed_tokens_ = 1;
  std::array<Surface, 3> surfaces_;  // by Way
};

}  // namespace dssim
