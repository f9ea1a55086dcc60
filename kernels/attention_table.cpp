// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_table.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dssim {
namespace {

constexpr double kEmptyBlockS = 0.7e-6;  // RTX 4090, vLLM 0.19: prefill launches with and without decodes beside them
constexpr double kHeadWeight = 0.5;      // of a doubling of heads against one of KV length or tiles

}  // namespace

void TileWork::add(double new_tokens, double past_tokens, double heads, double kv_heads, double head_dim,
                   double kv_bytes, bool causal) {
  const double chunk_tiles = std::ceil(new_tokens / tile_rows);
  const double kv = past_tokens + new_tokens;
  // Tile i of a causal chunk sees past + min(new, (i + 1) tile_rows); the sum is arithmetic but for the last tile.
  double kv_of_tiles = chunk_tiles * kv;
  if (causal) kv_of_tiles = chunk_tiles * past_tokens + tile_rows * (chunk_tiles - 1) * chunk_tiles / 2 + new_tokens;
  tiles += chunk_tiles * heads;
  columns += heads;
  most_tiles = std::max(most_tiles, chunk_tiles);
  kv_sum += kv_of_tiles * heads;
  flops += 4 * head_dim * tile_rows * kv_of_tiles * heads;
  longest_kv = std::max(longest_kv, kv);
  bytes += 4 * new_tokens * heads * head_dim + 2 * kv * kv_heads * head_dim * kv_bytes;
  other_bytes += 4 * new_tokens * heads * head_dim;
  kv_token_bytes = 2 * head_dim * kv_bytes;
  chunks.push_back({new_tokens, past_tokens, heads, causal});
  written += 2 * new_tokens * kv_heads * head_dim * (2 + kv_bytes);
}

void TileWork::add(const TileWork& other, double times) {
  tiles += times * other.tiles;
  flops += times * other.flops;
  longest_kv = std::max(longest_kv, other.longest_kv);
  kv_sum += times * other.kv_sum;
  bytes += times * other.bytes;
  written += times * other.written;
  other_bytes += times * other.other_bytes;
  kv_token_bytes = other.kv_token_bytes;
  for (const auto& c : other.chunks) chunks.push_back({c.new_tokens, c.past_tokens, times * c.columns, c.causal});
  columns += times * other.columns;
  most_tiles = std::max(most_tiles, other.most_tiles);
}

void TileWork::add_decodes(double batch, double kv_length, double heads, double kv_heads, double head_dim,
                           double kv_bytes, const Machine& machine) {
  TileWork one;
  one.tile_rows = tile_rows;
  one.add(1, kv_length - 1, heads, kv_heads, head_dim, kv_bytes, true);
  add(one, batch);
  const double head_bytes = 2 * batch * kv_length * head_dim * kv_bytes;  // one KV head of the whole batch
  if (head_bytes <= machine.l2_bytes) return;
  const double reads = std::clamp(heads / kv_heads * batch / machine.sms, 1.0, heads / kv_heads);
  bytes += (reads - 1) * head_bytes * kv_heads;
}

// ---- decode
// -----------------------------------------------------------------------------------------------------------

DecodeTable::DecodeTable(std::span<const AttentionSample> samples, double kv_bytes, const Machine& source,
                         int blocks_per_sm)
    : kv_bytes_(kv_bytes), source_(source) {
  if (blocks_per_sm > 0) launch_ = DecodeLaunch::fit(samples, kv_bytes, source, blocks_per_sm);
  std::map<std::tuple<int, int, int>, std::map<double, LogCurve>> tables;
  for (const auto& s : samples)
    if (s.q_len == 1) floor_s_ = std::min(floor_s_, s.seconds);
  for (const auto& s : samples) {
    if (s.q_len != 1) continue;
    const double length = s.past_len + 1;
    const double least = ideal(source_, kv_bytes_, s.heads, s.kv_heads, s.head_dim, s.batch, s.batch * length);
    tables[{s.head_dim, s.heads, s.kv_heads}][s.batch].add(length, std::log(least / s.seconds));
  }
  for (auto& [shape, by_batch] : tables) {
    Family family{std::get<1>(shape), std::get<2>(shape), std::get<0>(shape), {}, {}};
    for (auto& [batch, curve] : by_batch) {
      family.log_batches.push_back(std::log2(batch));
      family.by_length.push_back(std::move(curve));
    }
    families_.push_back(std::move(family));
  }
}

double DecodeTable::ideal(const Machine& machine, double kv_bytes, double heads, double kv_heads, double head_dim,
                          double batch, double kv_tokens) const {
  const double bytes = 2 * kv_tokens * kv_heads * head_dim * kv_bytes + 4 * batch * heads * head_dim;
  if (launch_) return launch_->seconds(machine, heads, kv_heads, batch, kv_tokens / batch, bytes);
  return floor_s_ + std::max(bytes / machine.memory_bytes_per_s,
                             4 * heads * head_dim * kv_tokens / machine.flops_per_s(Precision::bf16));
}

double DecodeTable::spread(const Machine& target, double kv_bytes, double heads, double kv_heads, double head_dim,
                           double batch, double kv_tokens, double longest) const {
  if (!launch_) return 1;
  const double bytes = 2 * kv_tokens * kv_heads * head_dim * kv_bytes + 4 * batch * heads * head_dim;
  return launch_->spread(target, heads, kv_heads, batch, kv_tokens / batch, longest, bytes);
}

double DecodeTable::Family::log_efficiency(double log_batch, double log_length, Coverage& coverage) const {
  const auto above = std::lower_bound(log_batches.begin(), log_batches.end(), log_batch);
  const auto one = [&](size_t i) {
    coverage = worse(coverage, by_length[i].coverage_log2(log_length));
    return by_length[i].at_log2(log_length);
  };
  if (above == log_batches.begin() || above == log_batches.end()) {
    const size_t i = above == log_batches.begin() ? 0 : log_batches.size() - 1;
    const double beyond = std::abs(log_batches[i] - log_batch);
    if (beyond > 1e-9) coverage = worse(coverage, beyond <= 1.001 ? Coverage::edge : Coverage::outside);
    return one(i);
  }
  const auto i = static_cast<size_t>(above - log_batches.begin());
  const double w = (log_batch - log_batches[i - 1]) / (log_batches[i] - log_batches[i - 1]);
  return w > 1 - 1e-12 ? one(i) : (1 - w) * one(i - 1) + w * one(i);
}

std::vector<DecodeTable::Lookup> DecodeTable::lookups_for(int heads, int kv_heads, int head_dim,
                                                          Coverage& coverage) const {
  const double group = std::log2(static_cast<double>(heads) / kv_heads);
  // The nearest measured family with a group at most, and one with a group at least, the asked one; among equals the
  // nearest head_dim, then the nearest KV heads, rather more than fewer (a single KV head is scheduled differently).
  const auto distance = [&](const Family& f) {
    return 4 * std::abs(std::log2(static_cast<double>(f.head_dim) / head_dim)) +
           std::abs(std::log2(static_cast<double>(f.kv_heads) / kv_heads) - 0.25) / 16;
  };
  const auto best = [&](bool below) {
    size_t index = families_.size();
    double least = std::numeric_limits<double>::max();
    for (size_t i = 0; i < families_.size(); ++i) {
      const auto& f = families_[i];
      const double g = std::log2(static_cast<double>(f.heads) / f.kv_heads);
      if (below ? g > group + 1e-9 : g < group - 1e-9) continue;
      const double d = std::abs(g - group) + distance(f);
      if (d < least) least = d, index = i;
    }
    return index;
  };
  const size_t low = best(true), high = best(false);
  const auto group_of = [&](size_t i) {
    return std::log2(static_cast<double>(families_[i].heads) / families_[i].kv_heads);
  };
  const auto lookup = [&](size_t i, double weight) {
    return Lookup{i, static_cast<double>(kv_heads) / families_[i].kv_heads, weight};
  };
  const auto& f = families_[low < families_.size() ? low : high];
  if (low == families_.size() || high == families_.size()) {
    coverage = worse(coverage, Coverage::outside);
    return {lookup(low < families_.size() ? low : high, 1)};
  }
  if (f.head_dim != head_dim) coverage = worse(coverage, Coverage::outside);
  if (group_of(high) - group_of(low) < 1e-9) {
    if (f.kv_heads != kv_heads) coverage = worse(coverage, Coverage::edge);
    return {lookup(low, 1)};
  }
  coverage = worse(coverage, Coverage::edge);
  const double w = (group - group_of(low)) / (group_of(high) - group_of(low));
  return {lookup(low, 1 - w), lookup(high, w)};
}

Price DecodeTable::price(const Machine& target, double kv_bytes, int heads, int kv_heads, int head_dim, double batch,
                         double kv_tokens) const {
  Coverage coverage = kv_bytes == kv_bytes_ ? Coverage::inside : Coverage::outside;
  double log_efficiency = 0;
  const double log_length = std::log2(std::max(1.0, kv_tokens / batch));
  for (const auto& l : lookups_for(heads, kv_heads, head_dim, coverage))
    log_efficiency +=
        l.weight * families_[l.family].log_efficiency(std::log2(batch * l.batch_factor), log_length, coverage);
  const double there = ideal(target, kv_bytes, heads, kv_heads, head_dim, batch, kv_tokens);
  const double efficiency = std::exp(log_efficiency), bytes = 2 * kv_tokens * kv_heads * head_dim * kv_bytes;
  const double here = ideal(source_, kv_bytes, heads, kv_heads, head_dim, batch, kv_tokens) / efficiency;
  const double beaten = std::max(1.0, source_.least_seconds(0, bytes, Precision::bf16) / here);
  return {std::max(there / efficiency, target.least_seconds(0, bytes, Precision::bf16) / beaten), coverage};
}

// ---- prefill
// ----------------------------------------------------------------------------------------------------------

PrefillTable::PrefillTable(std::span<const AttentionSample> samples, double kv_bytes, const MeasuredGpu& measured_on)
    : source_(Machine::of(measured_on)),
      writes_kv_(measured_on.attention_writes_kv),
      tile_rows_(measured_on.attention_tile_rows) {
  if (measured_on.prefill_blocks_per_sm > 0) launch_ = PrefillLaunch::fit(samples, kv_bytes, measured_on);
  for (const auto& s : samples)
    if (s.q_len > 1) floor_s_ = std::min(floor_s_, s.seconds);
  x_min_ = y_min_ = std::numeric_limits<double>::max();
  x_max_ = y_max_ = std::numeric_limits<double>::lowest();
  for (const auto& s : samples) {
    if (s.q_len <= 1) continue;
    TileWork one, work;
    one.tile_rows = work.tile_rows = tile_rows_;
    one.add(s.q_len, s.past_len, s.heads, s.kv_heads, s.head_dim, kv_bytes, true);
    work.add(one, s.batch);
    const Point p{std::log2(work.kv_sum / work.tiles), std::log2(work.tiles), std::log2(s.kv_heads),
                  std::log2(static_cast<double>(s.heads) / s.kv_heads), std::log(ideal(source_, work, s) / s.seconds)};
    points_.push_back(p);
    x_min_ = std::min(x_min_, p.x), x_max_ = std::max(x_max_, p.x);
    y_min_ = std::min(y_min_, p.y), y_max_ = std::max(y_max_, p.y);
  }
  if (points_.empty()) return;
  width_ = static_cast<int>(std::ceil((x_max_ - x_min_) / kStep)) + 2;
  height_ = static_cast<int>(std::ceil((y_max_ - y_min_) / kStep)) + 2;
}

double PrefillTable::ideal(const Machine& machine, const TileWork& work, const AttentionSample& heads) const {
  if (launch_)
    return launch_->seconds(machine, work.chunks, static_cast<double>(heads.heads) / heads.kv_heads,
                            work.kv_token_bytes, work.other_bytes);
  const double rate = machine.flops_per_s(Precision::bf16);
  const double longest_flops = 4 * heads.head_dim * work.tile_rows * work.longest_kv;
  return floor_s_ +
         std::max({work.flops / rate, longest_flops / (rate / machine.sms), work.bytes / machine.memory_bytes_per_s}) +
         (writes_kv_ ? work.written / machine.memory_bytes_per_s : 0);
}

PrefillTable::Grid& PrefillTable::grid_for(const AttentionSample& heads) const {
  for (auto& grid : grids_)
    if (grid.heads == heads.heads && grid.kv_heads == heads.kv_heads) return grid;
  const double kv = std::log2(heads.kv_heads), group = std::log2(static_cast<double>(heads.heads) / heads.kv_heads);
  double nearest = std::numeric_limits<double>::max();
  for (const auto& p : points_) nearest = std::min(nearest, std::abs(p.kv_heads - kv) + std::abs(p.group - group));
  grids_.push_back(
      {heads.heads, heads.kv_heads,
       std::vector<double>(static_cast<size_t>(width_ * height_), std::numeric_limits<double>::quiet_NaN()),
       nearest < 1e-9     ? Coverage::inside
       : nearest <= 2.001 ? Coverage::edge
                          : Coverage::outside});
  return grids_.back();
}

double PrefillTable::corner(Grid& grid, int ix, int iy) const {
  double& value = grid.corners[static_cast<size_t>(iy * width_ + ix)];
  if (!std::isnan(value)) return value;
  const double x = x_min_ + ix * kStep, y = y_min_ + iy * kStep;
  const double kv = std::log2(grid.kv_heads), group = std::log2(static_cast<double>(grid.heads) / grid.kv_heads);
  const auto square = [](double d) { return d * d; };
  double sum = 0, weights = 0;
  for (const auto& p : points_) {
    const double d2 =
        square(p.x - x) + square(p.y - y) + kHeadWeight * (square(p.kv_heads - kv) + square(p.group - group)) + 0.01;
    const double w = 1 / (d2 * d2);
    sum += w * p.log_efficiency;
    weights += w;
  }
  return value = sum / weights;
}

Price PrefillTable::price(const Machine& target, const TileWork& work, const AttentionSample& heads) const {
  Grid& grid = grid_for(heads);
  const double x = std::log2(work.kv_sum / work.tiles), y = std::log2(work.tiles);
  Coverage coverage = grid.coverage;
  if (x > x_max_ + 1e-9 || x < x_min_ - 1e-9 || y > y_max_ + 1e-9 || y < y_min_ - 1e-9)
    coverage = coverage == Coverage::outside || x > x_max_ + 1 || x < x_min_ - 1 || y > y_max_ + 1 || y < y_min_ - 1
                   ? Coverage::outside
                   : Coverage::edge;
  const double fx = std::clamp((x - x_min_) / kStep, 0.0, width_ - 1.001),
               fy = std::clamp((y - y_min_) / kStep, 0.0, height_ - 1.001);
  const int ix = static_cast<int>(fx), iy = static_cast<int>(fy);
  const double wx = fx - ix, wy = fy - iy;
  const double log_efficiency = (1 - wy) * ((1 - wx) * corner(grid, ix, iy) + wx * corner(grid, ix + 1, iy)) +
                                wy * ((1 - wx) * corner(grid, ix, iy + 1) + wx * corner(grid, ix + 1, iy + 1));
  const double empty_s = kEmptyBlockS * (work.columns * work.most_tiles - work.tiles) / target.sms;
  return {ideal(target, work, heads) / std::exp(log_efficiency) + empty_s, coverage};
}

}  // namespace dssim
