// SPDX-License-Identifier: Apache-2.0
#include "kernels/latent_attention_table.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dssim {
namespace {

constexpr double kLaunches = 6 * 2.5e-6;
constexpr double kStep = 0.5;                                          // of the grid, in log2
constexpr int kLengths = 61, kTokens = 61;                             // up to 2^30 of each
constexpr int64_t kRank = 512, kRope = 64, kNope = 128, kValue = 128;  // what the tables measured, as all of DeepSeek

double value(int64_t count) {
  return static_cast<double>(count);
}

// The two products' weights are the same matrix, kv_b, in 16 bits.
double up_values(const LatentHeads& h) {
  return value(h.heads * h.kv_lora_rank) * value(h.qk_nope_head_dim + h.v_head_dim);
}

}  // namespace

double LatentHeads::absorbed_pair_flops() const {
  return 2 * value(heads * (2 * kv_lora_rank + qk_rope_head_dim));
}

double LatentHeads::expanded_pair_flops() const {
  return 2 * value(heads * (qk_nope_head_dim + qk_rope_head_dim + v_head_dim));
}

// `kv_tokens`: the latents read, each once. Every head's query and result exist in both spaces: written by one kernel
// and read by the next.
void LatentWork::add_absorbed(const LatentHeads& h, double new_tokens, double kv_tokens, double new_pairs) {
  tokens += new_tokens;
  pairs += new_pairs;
  product_flops += 2 * new_tokens * up_values(h);
  weight_bytes = 2 * up_values(h);
  attention_flops += new_pairs * h.absorbed_pair_flops();
  cache_bytes += kv_tokens * h.latent_bytes();
  vector_bytes +=
      2 * new_tokens * value(h.heads * (h.qk_nope_head_dim + h.qk_rope_head_dim + 4 * h.kv_lora_rank + h.v_head_dim));
}

// Keys and values as kv_b writes them, keys again with their rotary part, both read by the attention; queries and
// results.
void LatentWork::add_expanded(const LatentHeads& h, double new_tokens, double past_tokens, double sequences) {
  const double kv = past_tokens + new_tokens, new_pairs = new_tokens * (past_tokens + (new_tokens + 1) / 2);
  const double key = value(h.qk_nope_head_dim + h.qk_rope_head_dim), heads = value(h.heads);
  const double both = value(h.qk_nope_head_dim + h.v_head_dim);
  tokens += sequences * new_tokens;
  pairs += sequences * new_pairs;
  product_flops += sequences * (2 * kv * up_values(h));
  weight_bytes = 2 * up_values(h);
  attention_flops += sequences * (new_pairs * h.expanded_pair_flops());
  cache_bytes += sequences * (kv * h.latent_bytes());
  vector_bytes += sequences * (2 * heads *
                               (kv * (both + value(h.qk_nope_head_dim) + 2 * key + value(h.v_head_dim)) +
                                new_tokens * (key + value(h.v_head_dim))));
}

double LatentAttentionTable::ideal(const Machine& machine, const LatentWork& w) {
  const double rate = machine.flops_per_s(Precision::bf16), bandwidth = machine.memory_bytes_per_s;
  return std::max(w.product_flops / rate, w.weight_bytes / bandwidth) +
         std::max(w.attention_flops / rate, w.cache_bytes / bandwidth) + w.vector_bytes / bandwidth;
}

LatentAttentionTable::LatentAttentionTable(std::span<const LatentSample> samples, Precision kv_cache,
                                           const Machine& source)
    : kv_cache_(kv_cache), source_(source) {
  for (const auto& s : samples) {
    if (s.seconds < 2 * kLaunches) continue;  // launches, and nothing else
    const LatentHeads heads{s.heads, kRank, kRope, kNope, kValue, kv_cache};
    LatentWork work;
    if (s.absorbed) {
      absorbed_tokens_ = std::max(absorbed_tokens_, s.q_len);
      work.add_absorbed(heads, s.batch * s.q_len, s.batch * (s.past_len + s.q_len),
                        s.batch * s.q_len * (s.past_len + (s.q_len + 1) / 2));
    } else {
      work.add_expanded(heads, s.q_len, s.past_len, s.batch);
    }
    const Way way = !s.absorbed ? Way::expanded : s.q_len == 1 ? Way::decode : Way::absorbed;
    surfaces_[static_cast<size_t>(way)].points.push_back({std::log2(work.pairs / work.tokens), std::log2(work.tokens),
                                                          std::log2(s.heads),
                                                          std::log(ideal(source_, work) / (s.seconds - kLaunches))});
  }
}

bool LatentAttentionTable::empty() const {
  return surfaces_[static_cast<size_t>(Way::decode)].points.empty() ||
         surfaces_[static_cast<size_t>(Way::expanded)].points.empty();
}

double LatentAttentionTable::Surface::corner(Grid& grid, int i, int j) const {
  double& at = grid.corners[static_cast<size_t>(i * kTokens + j)];
  if (!std::isnan(at)) return at;
  const double length = i * kStep, tokens = j * kStep, heads = std::log2(value(grid.heads));
  const auto square = [](double d) { return d * d; };
  double sum = 0, weights = 0;
  for (const auto& p : points) {
    const double d2 = square(p.length - length) + square(p.tokens - tokens) + square(p.heads - heads) + 0.01;
    const double w = 1 / (d2 * d2);
    sum += w * p.log_efficiency;
    weights += w;
  }
  return at = sum / weights;
}

double LatentAttentionTable::Surface::at(double length, double tokens, int64_t heads) const {
  auto grid = std::find_if(grids.begin(), grids.end(), [&](const Grid& g) { return g.heads == heads; });
  if (grid == grids.end()) {
    grids.push_back({heads, std::vector<double>(static_cast<size_t>(kLengths * kTokens),
                                                std::numeric_limits<double>::quiet_NaN())});
    grid = grids.end() - 1;
  }
  const double x = std::clamp(length / kStep, 0.0, kLengths - 1.001),
               y = std::clamp(tokens / kStep, 0.0, kTokens - 1.001);
  const int i = static_cast<int>(x), j = static_cast<int>(y);
  const double wx = x - i, wy = y - j;
  return (1 - wx) * ((1 - wy) * corner(*grid, i, j) + wy * corner(*grid, i, j + 1)) +
         wx * ((1 - wy) * corner(*grid, i + 1, j) + wy * corner(*grid, i + 1, j + 1));
}

// Within a doubling in every direction of a measured point, or of two.
Coverage LatentAttentionTable::Surface::coverage(double length, double tokens, double heads) const {
  double nearest = std::numeric_limits<double>::max();
  for (const auto& p : points)
    nearest = std::min(nearest,
                       std::max({std::abs(p.length - length), std::abs(p.tokens - tokens), std::abs(p.heads - heads)}));
  return nearest <= 1.001 ? Coverage::inside : nearest <= 2.001 ? Coverage::edge : Coverage::outside;
}

Price LatentAttentionTable::price(const Machine& target, const LatentHeads& heads, Way way,
                                  const LatentWork& work) const {
  // Without chunks in the latent space only those of one token are so: decodes.
  const bool as_decode = way == Way::absorbed && surfaces_[static_cast<size_t>(way)].points.empty();
  const Surface& surface = surfaces_[static_cast<size_t>(as_decode ? Way::decode : way)];
  const double length = std::log2(std::max(1.0, work.pairs / work.tokens)), tokens = std::log2(work.tokens);
  const double efficiency = std::exp(surface.at(length, tokens, heads.heads));
  const bool measured = heads.kv_cache == kv_cache_ && heads.kv_lora_rank == kRank && heads.qk_rope_head_dim == kRope &&
                        heads.qk_nope_head_dim == kNope && heads.v_head_dim == kValue;
  const Coverage coverage =
      measured ? surface.coverage(length, tokens, std::log2(value(heads.heads))) : Coverage::outside;
  const double flops = work.product_flops + work.attention_flops, bytes = work.cache_bytes + work.weight_bytes;
  const double here = kLaunches + ideal(source_, work) / efficiency;
  const double beaten = std::max(1.0, source_.least_seconds(flops, bytes, Precision::bf16) / here);
  return {std::max(kLaunches + ideal(target, work) / efficiency,
                   target.least_seconds(flops, bytes, Precision::bf16, beaten)),
          coverage};
}

}  // namespace dssim
