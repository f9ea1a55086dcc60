// SPDX-License-Identifier: Apache-2.0
#include "kernels/mixed_attention_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <set>
#include <tuple>

#include "sim/base/error.hpp"

namespace dssim {
namespace {

constexpr double kPastOffset = 64;  // tokens; past KV far below one tile changes nothing
constexpr float kMissing = std::numeric_limits<float>::quiet_NaN();

}  // namespace

TileWork tiles_of(const MixedAttentionSample& s, double kv_bytes, double tile_rows, const Machine& machine) {
  TileWork work;
  work.tile_rows = tile_rows;
  work.add(s.q_len, s.past_len, s.heads, s.kv_heads, s.head_dim, kv_bytes, true);
  work.add_decodes(s.decode_batch, s.decode_kv_len, s.heads, s.kv_heads, s.head_dim, kv_bytes, machine);
  return work;
}

std::array<double, MixedAttentionTable::kAxes> MixedAttentionTable::position(const MixedAttentionSample& s,
                                                                             double batch_factor) {
  return {std::log2(s.q_len), std::log2(s.past_len + kPastOffset), std::log2(s.decode_batch * batch_factor),
          std::log2(s.decode_kv_len)};
}

MixedAttentionTable::MixedAttentionTable(std::span<const MixedAttentionSample> samples, double kv_bytes,
                                         const PrefillTable& tiles, const Machine& source) {
  std::map<std::tuple<int, int, int>, std::vector<const MixedAttentionSample*>> by_heads;
  for (const auto& s : samples) by_heads[{s.heads, s.kv_heads, s.head_dim}].push_back(&s);
  for (const auto& [heads, rows] : by_heads) {
    Family family;
    std::tie(family.heads, family.kv_heads, family.head_dim) = heads;
    size_t cells = 1;
    for (size_t axis = 0; axis < kAxes; ++axis) {
      std::set<double> values;
      for (const auto* s : rows) values.insert(position(*s, 1)[axis]);
      family.axes[axis].assign(values.begin(), values.end());
      cells *= values.size();
    }
    if (cells != rows.size())
      throw bad_input(fmt::format("attention_mixed: {} query heads: {} rows are no full grid of {} sizes", family.heads,
                                  rows.size(), cells));
    family.log_ratios.assign(cells, kMissing);
    for (const auto* s : rows) {
      size_t cell = 0;
      const auto at = position(*s, 1);
      for (size_t axis = 0; axis < kAxes; ++axis) {
        const auto& values = family.axes[axis];
        const auto i = std::lower_bound(values.begin(), values.end(), at[axis]) - values.begin();
        cell = cell * values.size() + static_cast<size_t>(i);
      }
      const double modelled = tiles
                                  .price(source, tiles_of(*s, kv_bytes, tiles.tile_rows(), source),
                                         {0, 0, 0, s->heads, s->kv_heads, s->head_dim, 0})
                                  .seconds;
      if (!std::isnan(family.log_ratios[cell]))
        throw bad_input(fmt::format("attention_mixed: {} new tokens onto {} with {} decodes at {} stand twice",
                                    s->q_len, s->past_len, s->decode_batch, s->decode_kv_len));
      family.log_ratios[cell] = static_cast<float>(std::log(s->seconds / modelled));
    }
    families_.push_back(std::move(family));
  }
}

const MixedAttentionTable::Family* MixedAttentionTable::family_of(int heads, int kv_heads, int head_dim) const {
  const Family* best = nullptr;
  double least = std::numeric_limits<double>::max();
  for (const auto& f : families_) {
    if (f.head_dim != head_dim || f.heads * kv_heads != heads * f.kv_heads) continue;
    const double distance = std::abs(std::log2(static_cast<double>(f.heads) / heads));
    if (distance < least) least = distance, best = &f;
  }
  return best;
}

MixedAttentionTable::Ratio MixedAttentionTable::at(const MixedAttentionSample& launch) const {
  const Family& family = *family_of(launch.heads, launch.kv_heads, launch.head_dim);
  Ratio ratio;
  if (family.heads != launch.heads) ratio.coverage = Coverage::edge;
  const auto at = position(launch, static_cast<double>(launch.heads) / family.heads);
  std::array<double, kAxes> weights{};
  std::array<size_t, kAxes> steps{};
  size_t corner = 0;
  for (size_t axis = 0; axis < kAxes; ++axis) {
    const auto& values = family.axes[axis];
    const double beyond = std::max({0.0, values.front() - at[axis], at[axis] - values.back()});
    // One tile holds any number of new tokens up to its rows, so fewer than the least measured cost the same.
    if (beyond > 1e-9 && !(axis == 0 && at[axis] < values.front()))
      ratio.coverage = worse(ratio.coverage, beyond <= 1.001 ? Coverage::edge : Coverage::outside);
    size_t low = static_cast<size_t>(std::upper_bound(values.begin(), values.end(), at[axis]) - values.begin());
    low = std::clamp<size_t>(low, 1, std::max<size_t>(1, values.size() - 1)) - 1;
    corner = corner * values.size() + low;
    for (size_t outer = 0; outer < axis; ++outer) steps[outer] *= values.size();
    steps[axis] = 1;
    if (values.size() > 1)
      weights[axis] = std::clamp((at[axis] - values[low]) / (values[low + 1] - values[low]), 0.0, 1.0);
  }
  for (unsigned mask = 0; mask < 1U << kAxes; ++mask) {
    double weight = 1;
    size_t cell = corner;
    for (size_t axis = 0; axis < kAxes; ++axis) {
      const bool upper = (mask >> axis & 1U) != 0;
      weight *= upper ? weights[axis] : 1 - weights[axis];
      if (upper) cell += steps[axis];
    }
    if (weight > 0) ratio.log += weight * static_cast<double>(family.log_ratios[cell]);
  }
  return ratio;
}

}  // namespace dssim
