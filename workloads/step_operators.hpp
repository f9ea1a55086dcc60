// SPDX-License-Identifier: Apache-2.0
#pragma once

// The operators of one engine iteration but attention itself, each with its price: products, element-wise kernels,
// experts and all-reduces of all layers, the embedding, the output head and sampling. What one GPU of a tensor-parallel
// group runs; docs/cost-model.md lists them in order. StepModel adds attention, the host and what a graph pads.
//
//   FLOPs of a product 2 m n k; bytes its weights once and its 16-bit input and output. Element-wise: values read and
//   written. Experts: the weights of those that any token picks, experts × (1 − (1 − k / experts)^tokens)
// Units: seconds, FLOPs, bytes, each of all layers together. Nothing is thrown but by the cost model, for a kernel that
// no profile holds. Part of StepModel; tested through it by tests/unit/step_model_test.cpp.

#include <array>
#include <string_view>
#include <vector>

#include "workloads/step_model.hpp"

namespace dssim {

class StepOperators {
 public:
  using Sink = std::vector<OperatorPrice>;
  // All must outlive this.
  StepOperators(const Architecture& architecture, const StepModelOptions& options, const CostModel& cost);

  // Appended to `out`, for so many tokens (rows of logits).
  void layers(double tokens, bool in_graph, Sink& out) const;
  void embedding(double tokens, bool in_graph, Sink& out) const;
  void head(double rows, Sink& out) const;

  // Of one GPU.
  const AttentionHeads& heads() const { return heads_; }
  const LatentHeads& latent_heads() const { return latent_; }

 private:
  void attention_products(double tokens, Sink& out) const;
  void latent_products(double tokens, Sink& out) const;
  void feed_forward(double tokens, LayerKind kind, Sink& out) const;
  void experts(double tokens, double layers, Sink& out) const;
  void gated_ffn(double tokens, double width, double layers, const std::array<std::string_view, 3>& names,
                 Sink& out) const;
  Price all_reduce(double bytes, bool in_graph) const;
  void product(Sink& out, std::string_view name, double m, double n, double k, double layers) const;
  void element(Sink& out, std::string_view name, Elementwise kernel, double m, double width, double values,
               double count) const;
  void add(Sink& out, std::string_view name, OperatorClass kind, Price price, double count, double flops,
           double bytes) const;

  const Architecture& arch_;
  const StepModelOptions& options_;
  const CostModel& cost_;
  AttentionHeads heads_;
  LatentHeads latent_;  // of models with latent attention
  double layer_count_ = 0, hidden_ = 0, tp_ = 1;
};

}  // namespace dssim
