// SPDX-License-Identifier: Apache-2.0
#include "kernels/attention_launch.hpp"

#include <algorithm>
#include <cmath>

#include "kernels/fit.hpp"

namespace dssim {
namespace {

constexpr double kKvTile = 128;
// Rows that say what blocks cost: the bytes they move take no more than this share of their time.
constexpr double kLightShare = 0.25;
constexpr size_t kLeastRows = 24;  // three for each of the terms

double warp_rows(double heads, double kv_heads) {
  return std::ceil(std::min<double>(heads / kv_heads, DecodeBlocks::kHeadTile) / DecodeBlocks::kWarps);
}

DecodeBlocks blocks_of(double heads, double kv_heads, double batch, double kv_length, double sms, int blocks_per_sm) {
  const double tiles = kv_heads * std::ceil(heads / kv_heads / DecodeBlocks::kHeadTile);
  const auto head_tiles = static_cast<int>(std::max(1LL, std::llround(batch * tiles)));
  const auto pages = static_cast<int>(std::ceil(std::max(1.0, kv_length) / DecodeBlocks::kPageTokens));
  return DecodeBlocks::choose(head_tiles, pages, blocks_per_sm * static_cast<int>(sms));
}

double sustained(const Machine& machine) {
  return Machine::kSustainedBandwidth * machine.memory_bytes_per_s;
}

}  // namespace

double last_finish(std::span<const BlockLevel> levels, int slots) {
  struct Run {
    double finish;
    int slots;
  };
  std::vector<Run> runs;  // latest first
  runs.reserve(16);
  runs.push_back({0, slots});
  for (const auto& level : levels) {
    int left = level.blocks;
    while (left > 0) {
      if (left >= slots && runs.front().finish - runs.back().finish <= level.seconds) {  // whole rounds at once
        for (auto& run : runs) run.finish += left / slots * level.seconds;
        left %= slots;
        continue;
      }
      Run& free = runs.back();
      const Run busy{free.finish + level.seconds, std::min(free.slots, left)};
      left -= busy.slots;
      free.slots -= busy.slots;
      if (free.slots == 0) runs.pop_back();
      const auto at = std::find_if(runs.begin(), runs.end(), [&](const Run& r) { return r.finish <= busy.finish; });
      if (at != runs.end() && at->finish == busy.finish)
        at->slots += busy.slots;
      else
        runs.insert(at, busy);
    }
  }
  return runs.front().finish;
}

// ---- prefill

std::optional<PrefillLaunch> PrefillLaunch::fit(std::span<const AttentionSample> samples, double kv_bytes,
                                                const MeasuredGpu& measured_on) {
  const Machine source = Machine::of(measured_on);
  PrefillLaunch launch;
  launch.blocks_per_sm_ = measured_on.prefill_blocks_per_sm;
  launch.tile_rows_ = measured_on.attention_tile_rows;
  launch.sm_flops_per_s_ = source.flops_per_s(Precision::bf16) / source.sms;
  // Launches of equal blocks, one for each head and sequence: whole waves of them.
  std::vector<double> terms, seconds;
  for (const auto& s : samples) {
    if (s.q_len <= 1 || s.q_len > launch.tile_rows_) continue;
    const double kv = s.past_len + s.q_len, group = static_cast<double>(s.heads) / s.kv_heads;
    const LaunchChunk chunk{s.q_len, s.past_len, s.batch * s.heads};
    const double read = launch.bytes_read(source, {&chunk, 1}, group, 2.0 * s.head_dim * kv_bytes);
    if (read / sustained(source) > 2 * kLightShare * s.seconds) continue;
    const double waves = std::ceil(s.batch * s.heads / (source.sms * launch.blocks_per_sm_));
    terms.insert(terms.end(), {1, waves, waves * s.q_len / launch.tile_rows_, waves * std::ceil(kv / kKvTile)});
    seconds.push_back(s.seconds);
  }
  if (seconds.size() < kLeastRows) return {};
  launch.law_ = fit_seconds(terms, 4, seconds);
  const auto& c = launch.law_.coefficients;
  if (c.empty() || c[3] <= 0) return {};
  launch.launch_s_ = c[0], launch.start_s_ = c[1], launch.row_s_ = c[2], launch.tile_s_ = c[3];
  return launch;
}

double PrefillLaunch::bytes_read(const Machine& machine, std::span<const LaunchChunk> chunks, double group,
                                 double kv_token_bytes) const {
  double columns = 0, once = 0, again = 0;
  for (const auto& c : chunks) columns += c.columns;
  const double together = std::max(1.0, machine.sms * blocks_per_sm_ / columns);  // tiles of a head side by side
  for (const auto& c : chunks) {
    const double kv = c.past_tokens + c.new_tokens, tiles = std::ceil(c.new_tokens / tile_rows_);
    const double causal = tiles * c.past_tokens + tile_rows_ * (tiles - 1) * tiles / 2 + c.new_tokens;
    const double kv_of_tiles = c.causal ? causal : tiles * kv;
    once += c.columns / group * kv * kv_token_bytes;
    again += c.columns / group * kv_of_tiles * kv_token_bytes / std::min(together, tiles);
  }
  return std::max(once, again * std::max(0.0, 1 - machine.l2_bytes / once));
}

double PrefillLaunch::seconds(const Machine& machine, std::span<const LaunchChunk> chunks, double group,
                              double kv_token_bytes, double other_bytes) const {
  const double tile_s = tile_s_ * sm_flops_per_s_ / (machine.flops_per_s(Precision::bf16) / machine.sms);
  double most = 0;
  for (const auto& c : chunks) most = std::max(most, std::ceil(c.new_tokens / tile_rows_));
  levels_.clear();
  for (double tile = most - 1; tile >= 0; --tile)
    for (const auto& c : chunks) {
      const double rows = std::min(tile_rows_, c.new_tokens - tile * tile_rows_);
      if (rows <= 0) continue;
      const double last = c.causal ? std::min(c.new_tokens, (tile + 1) * tile_rows_) : c.new_tokens;
      levels_.push_back({static_cast<int>(std::llround(c.columns)),
                         start_s_ + row_s_ * rows / tile_rows_ + tile_s * std::ceil((c.past_tokens + last) / kKvTile)});
    }
  const double bytes = other_bytes + bytes_read(machine, chunks, group, kv_token_bytes);
  return launch_s_ +
         std::max(last_finish(levels_, static_cast<int>(machine.sms) * blocks_per_sm_), bytes / sustained(machine));
}

// ---- decode

std::optional<DecodeLaunch> DecodeLaunch::fit(std::span<const AttentionSample> samples, double kv_bytes,
                                              const Machine& source, int blocks_per_sm) {
  std::vector<double> terms, seconds;
  for (const auto& s : samples) {
    if (s.q_len != 1) continue;
    const double bytes = 2 * s.batch * (s.past_len + 1) * s.kv_heads * s.head_dim * kv_bytes;
    if (bytes / source.memory_bytes_per_s > kLightShare * s.seconds) continue;
    const DecodeBlocks b = blocks_of(s.heads, s.kv_heads, s.batch, s.past_len + 1, source.sms, blocks_per_sm);
    const double waves = b.waves, rows = warp_rows(s.heads, s.kv_heads), split = b.parts > 1 ? 1 : 0;
    const double batches = b.parts / DecodeBlocks::kMergeBatch, rest = b.parts % DecodeBlocks::kMergeBatch;
    terms.insert(terms.end(), {1, waves, waves * rows, waves * b.rounds, split, split * rows, split * rows * batches,
                               split * rows * rest});
    seconds.push_back(s.seconds);
  }
  if (seconds.size() < kLeastRows) return {};
  DecodeLaunch launch;
  launch.law_ = fit_seconds(terms, 8, seconds);
  const auto& c = launch.law_.coefficients;
  if (c.empty() || c[3] <= 0) return {};
  launch.blocks_per_sm_ = blocks_per_sm;
  launch.launch_s_ = c[0], launch.start_s_ = c[1], launch.row_s_ = c[2], launch.round_s_ = c[3];
  launch.merge_s_ = c[4], launch.merge_row_s_ = c[5], launch.batch_s_ = c[6], launch.part_s_ = c[7];
  return launch;
}

double DecodeLaunch::merge_seconds(const DecodeBlocks& b, double rows) const {
  if (b.parts == 1) return 0;
  const int batches = b.parts / DecodeBlocks::kMergeBatch, rest = b.parts % DecodeBlocks::kMergeBatch;
  return merge_s_ + rows * (merge_row_s_ + batches * batch_s_ + rest * part_s_);
}

double DecodeLaunch::seconds(const Machine& machine, double heads, double kv_heads, double batch, double kv_length,
                             double bytes) const {
  const DecodeBlocks b = blocks_of(heads, kv_heads, batch, kv_length, machine.sms, blocks_per_sm_);
  const double rows = warp_rows(heads, kv_heads), start = start_s_ + rows * row_s_;
  const double work = std::max((b.waves - 1) * start + b.waves * b.rounds * round_s_, bytes / sustained(machine));
  return launch_s_ + start + work + merge_seconds(b, rows);
}

double DecodeLaunch::spread(const Machine& machine, double heads, double kv_heads, double batch, double kv_length,
                            double longest, double bytes) const {
  if (longest <= kv_length) return 1;
  const DecodeBlocks b = blocks_of(heads, kv_heads, batch, longest, machine.sms, blocks_per_sm_);
  const double rows = warp_rows(heads, kv_heads), start = start_s_ + rows * row_s_;
  double work = b.rounds * round_s_;  // of the longest sequence's blocks, whatever runs beside and before them
  if (b.waves == 1) {
    const double others = longest / kv_length - 1;
    // Rounds take as long as their bytes until so few blocks are left that they no longer fill the memory's bandwidth.
    const double bytes_s = bytes / sustained(machine), first_round_s = bytes_s * longest / kv_length / b.rounds;
    const double left = first_round_s > round_s_ ? std::pow(round_s_ / first_round_s, 1 / others) : 1;
    work = bytes_s * (1 - std::pow(left, others + 1)) + left * b.rounds * round_s_;
  }
  return std::max(1.0, (launch_s_ + start + work + merge_seconds(b, rows)) /
                           seconds(machine, heads, kv_heads, batch, kv_length, bytes));
}

}  // namespace dssim
