// SPDX-License-Identifier: Apache-2.0
#include "sim/training/layer_shape.hpp"

#include <algorithm>

namespace dssim {
namespace {

double value(int64_t count) {
  return static_cast<double>(count);
}

double heads_per_gpu(const Architecture& m, int tensor_parallel) {
  return std::max(1.0, value(m.heads) / tensor_parallel);
}

}  // namespace

double parameters_of(const std::vector<MatrixShape>& matrices) {
  double sum = 0;
  for (const auto& matrix : matrices) sum += matrix.parameters();
  return sum;
}

std::vector<MatrixShape> attention_matrices(const Architecture& m, int t) {
  const double hidden = value(m.hidden), q = value(m.q_width()) / t, result = value(m.attended_width()) / t;
  if (!m.is_mla()) {
    const double kv = value(kv_heads_per_gpu(m, t) * m.head_dim);
    return {{q + 2 * kv, hidden}, {hidden, result, true}};
  }
  std::vector<MatrixShape> matrices;
  if (m.q_lora_rank > 0) {
    matrices.push_back({value(m.q_lora_rank), hidden});
    matrices.push_back({q, value(m.q_lora_rank), false, true});
  } else {
    matrices.push_back({q, hidden});
  }
  matrices.push_back({value(m.latent_width()), hidden});
  matrices.push_back({value(m.heads * (m.qk_nope_head_dim + m.v_head_dim)) / t, value(m.kv_lora_rank), false, true});
  matrices.push_back({hidden, result, true});
  return matrices;
}

std::vector<MatrixShape> feed_forward_matrices(const Architecture& m, int64_t width, int t) {
  const double hidden = value(m.hidden), inner = value(width) / t;
  return {{m.activation == Activation::gated ? 2 * inner : inner, hidden}, {hidden, inner, true}};
}

AttentionWidths attention_widths(const Architecture& m, int t) {
  const double heads = heads_per_gpu(m, t);
  AttentionWidths w;
  w.q = value(m.q_width()) / t;
  w.result = value(m.attended_width()) / t;
  if (m.is_mla()) {
    w.k = heads * value(m.head_dim);
    w.v = heads * value(m.v_head_dim);
    w.rotated = (heads + 1) * value(m.qk_rope_head_dim);
    w.latent = value(m.q_lora_rank + m.latent_width());
  } else {
    w.k = w.v = value(kv_heads_per_gpu(m, t) * m.head_dim);
    w.rotated = w.q + w.k;
  }
  return w;
}

std::vector<PositionLayers> position_layers(const TrainingJob& job, int positions) {
  std::vector<PositionLayers> list;
  int64_t next = 0;
  for (const int64_t count : layers_by_position(job.model.layers, positions)) {
    PositionLayers here;
    for (const int64_t end = next + count; next < end; ++next)
      (job.model.kind_of(next) == LayerKind::moe ? here.moe : here.dense) += 1;
    list.push_back(here);
  }
  PositionLayers& last = list.back();
  last.mtp = job.mtp;
  (last_kind(job.model) == LayerKind::moe ? last.moe : last.dense) += job.mtp;
  return list;
}

LayerKind last_kind(const Architecture& m) {
  return m.kind_of(m.layers - 1);
}

}  // namespace dssim
