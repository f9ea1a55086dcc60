// SPDX-License-Identifier: Apache-2.0
#pragma once

// Attention: decode (one query token a sequence) and prefill (chunks onto past KV).
//
// Decode: ideal = floor + max(KV bytes / memory bandwidth, 4 B h d L / matrix rate); its efficiency is interpolated in
// (log batch, log KV length) along the measured (heads, KV heads). The unit of work is one KV head of one sequence with its
// group of heads / kv_heads query heads, so KV heads that were not measured are read at batch × kv_heads, same group.
//
// Prefill: a launch is a list of tiles, 128 query rows of one head each over the KV before it (FlashAttention's blocks).
//   ideal = floor + max(all tiles' FLOPs / matrix rate, longest tile / one SM's rate, compulsory bytes / memory bandwidth)
// so half-empty tiles, idle SMs and the causal triangle are in the ideal. Its efficiency is a smooth function of (mean KV length
// of a tile, number of tiles), which makes chunks on past KV, several chunks and other head counts one lookup.
// Units: SI. Tested by tests/unit/attention_table_test.cpp.

#include <map>
#include <span>
#include <tuple>
#include <vector>

#include "kernels/log_curve.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

// Sums over the tiles of a launch.
struct TileWork {
  double tiles = 0;
  double flops = 0;        // of whole tiles, masked and empty rows included
  double longest_kv = 0;   // KV length of the longest tile
  double kv_sum = 0;       // over tiles
  double bytes = 0;        // queries, outputs and KV, each once

  // `group` query heads share a tile's rows (1: every head has tiles of its own).
  void add(double new_tokens, double past_tokens, double heads, double kv_heads, double head_dim, double kv_bytes, double group,
           bool causal);
};

class DecodeTable {
 public:
  DecodeTable(std::span<const AttentionSample> samples, double kv_bytes, const Machine& source);
  bool empty() const { return families_.empty(); }
  Price price(const Machine& target, double kv_bytes, int heads, int kv_heads, int head_dim, double batch, double kv_tokens) const;

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
  static double roofline(const Machine& machine, double kv_bytes, double heads, double kv_heads, double head_dim, double batch,
                         double kv_tokens);

  double kv_bytes_;
  Machine source_;
  double floor_s_ = 1;
  std::vector<Family> families_;
};

class PrefillTable {
 public:
  PrefillTable(std::span<const AttentionSample> samples, double kv_bytes, const Machine& source);
  bool empty() const { return points_.empty(); }
  Price price(const Machine& target, const TileWork& work, double head_dim) const;
  double floor_s() const { return floor_s_; }

 private:
  struct Point {
    double x, y, log_efficiency;  // log2 mean KV length, log2 tiles
  };
  double ideal(const Machine& machine, const TileWork& work, double head_dim) const;
  double cell(int ix, int iy) const;

  static constexpr double kStep = 0.5;
  Machine source_;
  double floor_s_ = 1;
  std::vector<Point> points_;
  double x_min_ = 0, x_max_ = 0, y_min_ = 0, y_max_ = 0;
  mutable std::vector<double> cells_;  // lazily filled corners of a regular grid; NaN = not yet
  int width_ = 0, height_ = 0;
};

}  // namespace dssim
