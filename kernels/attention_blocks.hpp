// SPDX-License-Identifier: Apache-2.0
#pragma once

// How dssim's own decode kernel cuts a launch into blocks: one rule for the kernel (kernels/cuda/ops/decode.cu) and for
// its price (kernels/attention_launch.hpp).
//
// A head tile is one KV head of one sequence with up to 16 of its query heads. Its KV is cut into parts so that the
// blocks, head tiles × parts, end soonest: waves × (page rounds of a block + its overhead) + merging the parts. The
// constants are in page rounds (the time of four pages, one for each warp) and only have to rank the choices.

namespace dssim {

struct DecodeBlocks {
  static constexpr int kWarps = 4;  // each takes every fourth page
  static constexpr int kPageTokens = 16;
  static constexpr int kHeadTile = 16;
  static constexpr int kMaxBlocks = 4096;     // bounds the workspace when KV is split
  static constexpr int kMaxParts = 128;       // of one sequence
  static constexpr int kMinPagesPerPart = 8;  // shorter parts cost more to merge than they save
  static constexpr int kMergeBatch = 16;      // parts whose outputs are read at once when they are merged

  int parts = 1;
  int waves = 1;   // of blocks, `resident` at a time
  int rounds = 1;  // page rounds of a block

  static DecodeBlocks of(int head_tiles, int pages, int resident, int parts) {
    const int per_part = (pages + parts - 1) / parts;
    return {parts, (head_tiles * parts + resident - 1) / resident, (per_part + kWarps - 1) / kWarps};
  }

  static DecodeBlocks choose(int head_tiles, int pages, int resident) {
    constexpr double kBlockOverhead = 6.0;  // start, first fetch, merge of the warps
    constexpr double kMergeOverhead = 2.0;
    DecodeBlocks best;
    double best_cost = 0;
    for (int parts = 1; parts == 1 || (pages / parts >= kMinPagesPerPart && head_tiles * parts <= kMaxBlocks &&
                                       parts <= kMaxParts);
         ++parts) {
      const DecodeBlocks blocks = of(head_tiles, pages, resident, parts);
      const double cost =
          blocks.waves * (blocks.rounds + kBlockOverhead) + (parts > 1 ? kMergeOverhead + 0.05 * parts : 0.0);
      if (parts == 1 || cost < best_cost) {
        best = blocks;
        best_cost = cost;
      }
    }
    return best;
  }
};

}  // namespace dssim
