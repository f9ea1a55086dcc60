// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention: decode (one query token a sequence) and prefill (chunks onto past KV).
//
// Decode: ideal = floor + max(KV bytes / memory bandwidth, 4 B h d L / matrix rate); its efficiency is interpolated in
// (log batch, log KV length) along the measured (heads, KV heads). The unit of work is one KV head of one sequence with
// its group of heads / kv_heads query heads, so KV heads that were not measured are read at batch × kv_heads, same
// group.
//
// Prefill: a launch is a list of tiles, some 64 or 128 query rows of one head each over the KV before it
// (FlashAttention's blocks).
//   ideal = floor + max(all tiles' FLOPs / matrix rate, longest tile / one SM's rate, compulsory bytes / memory
//                       bandwidth) + bytes of new keys and values / memory bandwidth where the table has their write
//   seconds = ideal / efficiency + empty blocks × 0.7 us / SMs
// so half-empty tiles, idle SMs and the causal triangle are in the ideal. Its efficiency is a smooth function of (mean
// KV length of a tile, number of tiles), which makes chunks on past KV and several chunks one lookup. Points weigh by
// inverse fourth power of their distance in log2 of those two, and of KV heads and group: the asked head counts first,
// their neighbours where there are none. Units: SI. Tested by tests/unit/cost_model_test.cpp and
// tests/validation/kernels_test.cpp.

#include <map>
#include <optional>
#include <span>
#include <tuple>
#include <vector>

#include "kernels/attention_launch.hpp"
#include "kernels/log_curve.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

// Sums over the tiles of a launch.
struct TileWork {
  double tile_rows = 128;
  double tiles = 0;
  double flops = 0;       // of whole tiles, masked and empty rows included
  double longest_kv = 0;  // KV length of the longest tile
  double kv_sum = 0;      // over tiles
  double bytes = 0;       // queries, outputs and KV, each once
  double written = 0;     // bytes to read the new keys and values and write them to the cache
  double columns = 0;     // heads of all sequences together
  double most_tiles = 0;  // of one column: the launch has columns × most_tiles blocks, those without a tile are empty
  std::vector<LaunchChunk> chunks;
  double other_bytes = 0;     // queries and outputs: bytes without the KV
  double kv_token_bytes = 0;  // of one KV head

  void add(double new_tokens, double past_tokens, double heads, double kv_heads, double head_dim, double kv_bytes,
           bool causal);
  void add(const TileWork& other, double times);
  // Decodes in a launch of FlashAttention-2, `batch` of them at `kv_length`: a tile for every query head. Blocks run
  // sequence by sequence within a head, so heads of one group meet in the cache only where it holds a KV head of the
  // whole batch, or where the GPU runs several heads at once; else each reads the KV again.
  void add_decodes(double batch, double kv_length, double heads, double kv_heads, double head_dim, double kv_bytes,
                   const Machine& machine);
};

class DecodeTable {
 public:
  // blocks_per_sm: of dssim-calibrate's own kernel, whose launches are known block by block; 0: another kernel.
  DecodeTable(std::span<const AttentionSample> samples, double kv_bytes, const Machine& source, int blocks_per_sm = 0);
  bool empty() const { return families_.empty(); }
  Price price(const Machine& target, double kv_bytes, int heads, int kv_heads, int head_dim, double batch,
              double kv_tokens) const;
  // How much longer a launch takes for its longest sequence than if all were equal; 1 where the kernel is not known.
  double spread(const Machine& target, double kv_bytes, double heads, double kv_heads, double head_dim, double batch,
                double kv_tokens, double longest) const;

 private:
  struct Family {
    int heads, kv_heads, head_dim;
    std::vector<double> log_batches;
    std::vector<LogCurve> by_length;  // for each batch: log efficiency against KV length
    double log_efficiency(double log_batch, double log_length, Coverage& coverage) const;
  };
  struct Lookup {
    size_t family;
    double batch_factor, weight;
  };
  std::vector<Lookup> lookups_for(int heads, int kv_heads, int head_dim, Coverage& coverage) const;
  double ideal(const Machine& machine, double kv_bytes, double heads, double kv_heads, double head_dim, double batch,
               double kv_tokens) const;

  double kv_bytes_;
  Machine source_;
  std::optional<DecodeLaunch> launch_;
  double floor_s_ = 1;
  std::vector<Family> families_;
};

class PrefillTable {
 public:
  // Where the samples include writing the new keys and values to the cache, so do the prices.
  PrefillTable(std::span<const AttentionSample> samples, double kv_bytes, const MeasuredGpu& measured_on);
  bool empty() const { return points_.empty(); }
  Price price(const Machine& target, const TileWork& work, const AttentionSample& heads) const;
  double tile_rows() const { return tile_rows_; }

 private:
  struct Point {
    double x, y;             // log2 mean KV length, log2 tiles
    double kv_heads, group;  // log2
    double log_efficiency;
  };
  // A regular grid of efficiencies for one choice of heads, its corners filled when first needed (NaN before).
  struct Grid {
    int heads, kv_heads;
    std::vector<double> corners;
    Coverage coverage;
  };
  double ideal(const Machine& machine, const TileWork& work, const AttentionSample& heads) const;
  Grid& grid_for(const AttentionSample& heads) const;
  double corner(Grid& grid, int ix, int iy) const;

  static constexpr double kStep = 0.5;
  Machine source_;
  bool writes_kv_;
  double tile_rows_;
  std::optional<PrefillLaunch> launch_;
  double floor_s_ = 1;
  std::vector<Point> points_;
  double x_min_ = 0, x_max_ = 0, y_min_ = 0, y_max_ = 0;
  mutable std::vector<Grid> grids_;
  int width_ = 0, height_ = 0;
};

}  // namespace dssim
