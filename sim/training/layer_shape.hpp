// SPDX-License-Identifier: Apache-2.0
#pragma once

// The matrices of a layer on one GPU of a tensor group, and where a model's layers lie in a pipeline: what the cost of
// a layer, the memory plan and the count of FLOPs all start from.
//
//   attention      q, k and v in one product, and o; latent attention (MLA, DeepSeek-V2) as training runs it: q_a and
//                  q_b (or one q), kv_a with the rotary key, kv_b, and o; keys and values of every head are made from
//                  the latent. What belongs to no head (q_a, kv_a) is whole on every GPU
//   feed-forward   gate and up in one product, and down
//   MTP            a multi-token prediction module (DeepSeek-V3, arXiv 2412.19437, section 2.2): one more layer of the
//                  last kind on the last position, before it a product of twice the hidden width, and the head once
//                  more
// Pure. Tested by tests/unit/training_layer_test.cpp.

#include <vector>

#include "sim/training/training_job.hpp"

namespace dssim {

// out[tokens, n] = in[tokens, k] × weights[k, n].
struct MatrixShape {
  double n = 0, k = 0;
  bool closes = false;   // the last of its half of the layer: its result is summed over the tensor group
  bool expands = false;  // from a latent to the heads (MLA)
  double parameters() const { return n * k; }
};
double parameters_of(const std::vector<MatrixShape>& matrices);

std::vector<MatrixShape> attention_matrices(const Architecture& model, int tensor_parallel);
std::vector<MatrixShape> feed_forward_matrices(const Architecture& model, int64_t width, int tensor_parallel);

// Values of one token that attention reads and writes on one GPU.
struct AttentionWidths {
  double q = 0, k = 0, v = 0;
  double result = 0;
  double rotated = 0;  // of q and k, those that carry positions
  double latent = 0;   // what kv_b and q_b read, and kept in place of q, k and v where they are made again
  double all() const { return q + k + v; }
};
AttentionWidths attention_widths(const Architecture& model, int tensor_parallel);

// Layers of one position of the pipeline, by kind; MTP modules count as layers of the last kind, and apart.
struct PositionLayers {
  double dense = 0, moe = 0, mtp = 0;
  double of(LayerKind kind) const { return kind == LayerKind::dense ? dense : moe; }
  double all() const { return dense + moe; }
};
std::vector<PositionLayers> position_layers(const TrainingJob& job, int positions);

LayerKind last_kind(const Architecture& model);

}  // namespace dssim
