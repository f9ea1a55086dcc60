// SPDX-License-Identifier: Apache-2.0
#pragma once

// Launches of dssim-calibrate's own attention kernels, block by block. What a launch takes beside its bytes and FLOPs is
// a handful of times, fitted to the profile's own table when it is read; the efficiency left over is smooth.
//
// Prefill (kernels/cuda/ops/prefill_*.cu): a block is up to 128 query rows of one head of one sequence over the KV
// before them. Blocks of the last rows, which see most KV, start first, and each multiprocessor takes the next one when
// it is free.
//   block   = start + rows / 128 × row + KV tiles of 128 × tile
//   seconds = launch + max(when the last block ends, bytes read / sustained bandwidth)
// Blocks of one head that run at the same time read its KV once; later ones again, but for the part that L2 holds.
//
// Decode (kernels/cuda/ops/decode.cu), split as kernels/attention_blocks.hpp says:
//   seconds = launch + start + max((waves − 1) start + waves × rounds × round, bytes / sustained bandwidth)
//             + merge + warp rows × (merge row + parts / 16 × batch + parts mod 16 × part)   where KV is split
//   start   = block start + warp rows × row;  warp rows = query heads of a head tile / 4
// Sequences of unlike length are cut into the same number of parts, made for the longest, so its blocks end last. Of
// lengths only the mean and the longest are known: taken as spread so that the share longer than k is
// (1 − k / longest)^(longest / mean − 1), all blocks at work from the start (where they fit on the GPU at once), each
// round as long as its bytes, shared by the blocks still at work, or as `round`, whichever is more. Where they do not
// fit, a launch lasts at least as long as one block of the longest sequence.
//
// On another GPU tiles take as long as its multiprocessor's matrix rate says, bytes as its bandwidth says, and the other
// times, which are latencies, stay. Units: SI. Tested by tests/unit/calibration_fit_test.cpp and
// tests/validation/kernels_test.cpp.

#include <optional>
#include <span>
#include <vector>

#include "kernels/attention_blocks.hpp"
#include "kernels/fit.hpp"
#include "kernels/machine.hpp"
#include "kernels/profile.hpp"

namespace dssim {

// Equal blocks that start one after another.
struct BlockLevel {
  int blocks = 0;
  double seconds = 0;
};
// When the last block ends if each starts, in the order given, on whichever of `slots` is free first.
double last_finish(std::span<const BlockLevel> levels, int slots);

// Equal chunks of a launch: `columns` heads × sequences of them.
struct LaunchChunk {
  double new_tokens = 0, past_tokens = 0, columns = 0;
  bool causal = true;
};

class PrefillLaunch {
 public:
  // Nothing where the table has too few rows of one tile.
  static std::optional<PrefillLaunch> fit(std::span<const AttentionSample> samples, double kv_bytes,
                                          const MeasuredGpu& measured_on);
  // `kv_token_bytes`: of one KV head; `other_bytes`: queries and outputs.
  double seconds(const Machine& machine, std::span<const LaunchChunk> chunks, double group, double kv_token_bytes,
                 double other_bytes) const;
  const Fit& law() const { return law_; }  // launch, start, row, tile

 private:
  double bytes_read(const Machine& machine, std::span<const LaunchChunk> chunks, double group,
                    double kv_token_bytes) const;

  int blocks_per_sm_ = 1;
  double tile_rows_ = 128;
  double sm_flops_per_s_ = 0;  // of the measured GPU
  double launch_s_ = 0, start_s_ = 0, row_s_ = 0, tile_s_ = 0;
  Fit law_;
  mutable std::vector<BlockLevel> levels_;
};

class DecodeLaunch {
 public:
  static std::optional<DecodeLaunch> fit(std::span<const AttentionSample> samples, double kv_bytes,
                                         const Machine& source, int blocks_per_sm);
  double seconds(const Machine& machine, double heads, double kv_heads, double batch, double kv_length,
                 double bytes) const;
  // How much longer a launch takes for the longest of its sequences than if all were as long as the mean, ≥ 1.
  double spread(const Machine& machine, double heads, double kv_heads, double batch, double kv_length, double longest,
                double bytes) const;
  const Fit& law() const { return law_; }  // launch, start, row, round, merge, merge row, batch, part

 private:
  double merge_seconds(const DecodeBlocks& blocks, double rows) const;

  int blocks_per_sm_ = 1;
  double launch_s_ = 0, start_s_ = 0, row_s_ = 0, round_s_ = 0;
  double merge_s_ = 0, merge_row_s_ = 0, batch_s_ = 0, part_s_ = 0;
  Fit law_;
};

}  // namespace dssim
