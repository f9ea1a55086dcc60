// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the data ranks exchange in one step, by sharding, as a list of collectives.
//
//   none    all-reduce of the gradients                                           2 Ψ (n−1)/n sent by each GPU
//   zero1   reduce-scatter of the gradients, all-gather of the new parameters      2 Ψ (n−1)/n
//   zero2   the same, but no GPU keeps a whole gradient, so the reduce-scatter comes with each micro-batch
//   zero3   all-gather of the parameters before forward and before backward, reduce-scatter of the gradients, each
//           micro-batch                                                           3 Ψ (n−1)/n a micro-batch
// (Ψ: bytes of the stage's parameters or gradients; Rajbhandari et al. 2020, arXiv 1910.02054, section 7.) Compression
// and a parameter server replace the first row. Pure; tested by tests/analytic/training_sharding_test.cpp.

#include <cstdint>
#include <vector>

#include "sim/network/collective.hpp"
#include "sim/training/training_job.hpp"

namespace dssim {

// When in the step a collective may run beside other work.
enum class ExchangePhase : uint8_t {
  backward,      // gradients, as backward makes them
  parameters,    // new parameters, before the next forward needs them
  each_forward,  // shards gathered, layer by layer, in each micro-batch
  each_backward
};

struct Exchange {
  CollectiveKind kind = CollectiveKind::all_reduce;
  ExchangePhase phase = ExchangePhase::backward;
  double bytes = 0;  // of the whole stage, as nccl-tests counts them
  int ranks = 1;
  bool experts = false;  // among the ranks that hold the same experts
};

// `shared` and `experts`: parameters of the stage on this GPU (StageParameters).
std::vector<Exchange> step_exchanges(const TrainingJob& job, double shared, double experts);

// Bytes one GPU sends for these, a step with `micro_batches` of them.
double bytes_sent(const std::vector<Exchange>& exchanges, int64_t micro_batches);

// What a compressed gradient takes on the wire, per parameter, and what a GPU's memory moves to make and undo it. 4bit:
// 4 bits and an fp16 scale for 64 values; PowerSGD (Vogels et al. 2019, arXiv 1905.13727): an h × w matrix becomes r (h
// + w) values, taken here at the model's hidden width on the short side.
struct CompressedGradient {
  double wire_bytes = 0;   // per parameter
  double moved_bytes = 0;  // memory traffic of encoding and decoding, per parameter
  double flops = 0;        // per parameter
};
CompressedGradient compressed_gradient(const TrainingJob& job);

}  // namespace dssim
