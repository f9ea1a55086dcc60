// SPDX-License-Identifier: Apache-2.0
#pragma once

// Launches of FlashAttention-2 that hold a prefill chunk and decodes: what they were measured to take over what the
// tiles of kernels/attention_table.hpp say, on a grid of (new tokens, past tokens, decodes, KV length of a decode).
//
//   seconds = tile model's seconds × exp(Σ over chunks of weight × log ratio(chunk, decodes, KV length) / Σ weight)
//
// The log ratio is linear between grid points in log2 of each size (past tokens: of past + 64, one tile) and constant
// beyond them. Several chunks: each is looked up as if it were alone with the decodes, and weighs by its tiles' KV
// length, its share of the arithmetic. Heads that were not measured are read at the same group of query heads per KV
// head and at decodes × heads / measured heads, as many blocks; other groups have no correction, nor have other GPUs
// (carried from one to the other it made 4090 and PRO 6000 no better). Units: SI. Errors: Error(bad_input) where the
// rows are no full grid. Tested by tests/unit/cost_model_test.cpp and tests/validation/kernels_test.cpp.

#include <array>
#include <span>
#include <vector>

#include "kernels/attention_table.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

class MixedAttentionTable {
 public:
  // `tiles` prices the same launches on `source`, the GPU that both were measured on.
  MixedAttentionTable(std::span<const MixedAttentionSample> samples, double kv_bytes, const PrefillTable& tiles,
                      const Machine& source);

  struct Ratio {
    double log = 0;  // of measured over tile model's seconds
    Coverage coverage = Coverage::inside;
  };
  // Whether these heads, or others of the same group, were measured.
  bool has(int heads, int kv_heads, int head_dim) const { return family_of(heads, kv_heads, head_dim) != nullptr; }
  // `launch`: one chunk with its decodes. Only where has().
  Ratio at(const MixedAttentionSample& launch) const;

 private:
  static constexpr size_t kAxes = 4;
  struct Family {
    int heads = 0, kv_heads = 0, head_dim = 0;
    std::array<std::vector<double>, kAxes> axes;  // log2
    std::vector<float> log_ratios;                // the last axis is adjacent
  };
  const Family* family_of(int heads, int kv_heads, int head_dim) const;
  static std::array<double, kAxes> position(const MixedAttentionSample& s, double batch_factor);

  std::vector<Family> families_;
};

// The tiles of one chunk and its decodes.
TileWork tiles_of(const MixedAttentionSample& launch, double kv_bytes, double tile_rows, const Machine& machine);

}  // namespace dssim
