// SPDX-License-Identifier: Apache-2.0
#include "workloads/step_operators.hpp"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>

namespace dssim {
namespace {

double value(int64_t count) {
  return static_cast<double>(count);
}

}  // namespace

StepOperators::StepOperators(const Architecture& architecture, const StepModelOptions& options, const CostModel& cost)
    : arch_(architecture), options_(options), cost_(cost) {
  assert(arch_.layers > 0 && arch_.hidden > 0 && options_.tensor_parallel > 0);
  tp_ = options_.tensor_parallel;
  layer_count_ = value(arch_.layers);
  hidden_ = value(arch_.hidden);
  heads_ = {std::max<int64_t>(1, arch_.heads / options_.tensor_parallel),
            std::max<int64_t>(1, arch_.kv_heads / options_.tensor_parallel), arch_.head_dim, options_.kv_cache};
  latent_ = {heads_.heads,           arch_.kv_lora_rank, arch_.qk_rope_head_dim,
             arch_.qk_nope_head_dim, arch_.v_head_dim,   options_.kv_cache};
}

void StepOperators::add(Sink& out, std::string_view name, OperatorClass kind, Price price, double count, double flops,
                        double bytes) const {
  out.push_back({name, kind, price.seconds * count, flops * count, bytes * count, price.coverage});
}

Price StepOperators::all_reduce(double bytes, bool in_graph) const {
  return options_.collective ? options_.collective(Collective::all_reduce, bytes)
                             : cost_.all_reduce(options_.tensor_parallel, bytes, in_graph);
}

void StepOperators::product(Sink& out, std::string_view name, double m, double n, double k, double layers) const {
  add(out, name, OperatorClass::matmul, cost_.gemm(options_.weights, m, n, k), layers, 2 * m * n * k,
      bytes_of(options_.weights) * n * k + 2 * m * (n + k));
}

void StepOperators::element(Sink& out, std::string_view name, Elementwise kernel, double m, double width, double values,
                            double count) const {
  add(out, name, OperatorClass::elementwise, cost_.elementwise(kernel, m, width), count, 0, values * m);
}

// Everything of the layers but attention itself.
void StepOperators::layers(double m, bool in_graph, Sink& out) const {
  const auto reduce = [&](std::string_view name) {
    if (options_.tensor_parallel > 1)
      add(out, name, OperatorClass::all_reduce, all_reduce(2 * m * hidden_, in_graph), layer_count_, 0,
          2 * m * hidden_);
  };
  element(out, "norms", Elementwise::add_rmsnorm, m, hidden_, 8 * hidden_, 2 * layer_count_);
  arch_.is_mla() ? latent_products(m, out) : attention_products(m, out);
  reduce("attention all-reduce");
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe})
    if (arch_.layers_of(kind) > 0) feed_forward(m, kind, out);
  reduce("ffn all-reduce");
  const Stack& stack = cost_.stack();
  const auto& gaps = in_graph ? stack.layer_gap_s : stack.eager_gap_s;
  if (const double gap_s = Stack::gap_s(gaps, options_.tensor_parallel); gap_s > 0)
    add(out, "gaps", OperatorClass::elementwise, {gap_s, cost_.transferred() ? Coverage::outside : Coverage::inside},
        layer_count_, 0, 0);
}

void StepOperators::attention_products(double m, Sink& out) const {
  const double q = value(heads_.heads * heads_.head_dim), kv = value(heads_.kv_heads * heads_.head_dim);
  product(out, "qkv", m, q + 2 * kv, hidden_, layer_count_);
  if (arch_.qk_norm) element(out, "qk_norm", Elementwise::rope, m, q + kv, 4 * (q + kv), layer_count_);
  if (arch_.positions == Positions::rotary)
    element(out, "rope", Elementwise::rope, m, q + kv, 4 * (q + kv), layer_count_);
  if (!cost_.stack().attention_writes_kv && !cost_.stack().rope_writes_kv)
    element(out, "kv_write", Elementwise::rope, m, 2 * kv, 8 * kv, layer_count_);
  product(out, "o", m, hidden_, q, layer_count_);
}

// Down to the latent vectors, the same on every GPU (both in one product, as vLLM fuses them); queries up to the heads.
// What lies between the latent of keys and values and the heads belongs to the attention.
void StepOperators::latent_products(double m, Sink& out) const {
  const double heads = value(latent_.heads), q = value(heads_.heads * heads_.head_dim);
  const double latent = value(arch_.latent_width()), q_latent = value(arch_.q_lora_rank);
  if (arch_.q_lora_rank > 0) {
    product(out, "q_a and kv_a", m, q_latent + latent, hidden_, layer_count_);
    element(out, "q_a norm", Elementwise::add_rmsnorm, m, q_latent, 4 * q_latent, layer_count_);
    product(out, "q_b", m, q, q_latent, layer_count_);
  } else {
    product(out, "q", m, q, hidden_, layer_count_);
    product(out, "kv_a", m, latent, hidden_, layer_count_);
  }
  const double rank = value(arch_.kv_lora_rank), rotary = (heads + 1) * value(arch_.qk_rope_head_dim);
  element(out, "kv_a norm", Elementwise::add_rmsnorm, m, rank, 4 * rank, layer_count_);
  element(out, "rope", Elementwise::rope, m, rotary, 4 * rotary, layer_count_);
  product(out, "o", m, hidden_, heads * value(arch_.v_head_dim), layer_count_);
}

void StepOperators::feed_forward(double m, LayerKind kind, Sink& out) const {
  const double layers = value(arch_.layers_of(kind));
  if (kind == LayerKind::moe) return experts(m, layers, out);
  const std::string_view up = arch_.activation == Activation::gated ? "gate_up" : "up";
  gated_ffn(m, value(arch_.ffn_of(kind)) / tp_, layers, {up, "activation", "down"}, out);
}

void StepOperators::gated_ffn(double m, double ffn, double layers, const std::array<std::string_view, 3>& names,
                              Sink& out) const {
  const double up = arch_.activation == Activation::gated ? 2 * ffn : ffn;
  product(out, names[0], m, up, hidden_, layers);
  element(out, names[1], Elementwise::silu_mul, m, ffn, 2 * (up + ffn), layers);
  product(out, names[2], m, hidden_, ffn, layers);
}

// Routed experts, then the shared ones that every token passes, added to their result.
void StepOperators::experts(double m, double layers, Sink& out) const {
  const double ffn = value(arch_.ffn) / tp_, weight = bytes_of(options_.weights);
  add(out, "router", OperatorClass::moe, cost_.gemm(Precision::bf16, m, value(arch_.experts), hidden_), layers,
      2 * m * hidden_ * value(arch_.experts), 2 * hidden_ * value(arch_.experts));
  const int ep = options_.expert_parallel;
  const MoeShape shape{
      m, arch_.hidden, arch_.ffn, arch_.experts, arch_.experts_per_token, options_.tensor_parallel / ep, ep};
  // Each token picks its experts at random: these are the ones that any token picks, whose weights are read.
  const double experts = value(arch_.experts), picked = value(arch_.experts_per_token) / experts;
  const double read = experts * (1 - std::pow(1 - picked, m));
  add(out, "experts", OperatorClass::moe, cost_.moe(options_.weights, shape), layers,
      6 * m * value(arch_.experts_per_token) * hidden_ * ffn, 3 * read * hidden_ * ffn * weight + 4 * m * hidden_);
  if (arch_.shared_ffn == 0) return;
  gated_ffn(m, value(arch_.shared_ffn) / tp_, layers, {"shared gate_up", "shared activation", "shared down"}, out);
  element(out, "shared sum", Elementwise::silu_mul, m, hidden_, 6 * hidden_, layers);
}

void StepOperators::embedding(double m, bool in_graph, Sink& out) const {
  add(out, "embedding", OperatorClass::elementwise, cost_.elementwise(Elementwise::embedding, m, hidden_), 1, 0,
      4 * m * hidden_);
  if (options_.tensor_parallel > 1)
    add(out, "embedding all-reduce", OperatorClass::all_reduce, all_reduce(2 * m * hidden_, in_graph), 1, 0,
        2 * m * hidden_);
}

// Final norm, the vocabulary product (16-bit in every stack), the gather of its parts, and sampling.
void StepOperators::head(double rows, Sink& out) const {
  if (arch_.family == Family::encoder || rows <= 0) return;
  const double vocabulary = value(arch_.vocabulary), part = std::ceil(vocabulary / tp_);
  add(out, "final norm", OperatorClass::elementwise, cost_.elementwise(Elementwise::add_rmsnorm, rows, hidden_), 1, 0,
      8 * rows * hidden_);
  add(out, "output head", OperatorClass::output_head, cost_.gemm(Precision::bf16, rows, part, hidden_), 1,
      2 * rows * part * hidden_, 2 * part * hidden_);
  if (options_.tensor_parallel > 1) {
    const double bytes = 2 * rows * vocabulary;
    const Price gather = options_.collective
                             ? options_.collective(Collective::all_gather, bytes)
                             : cost_.collective(Collective::all_gather, options_.tensor_parallel, bytes);
    add(out, "logits gather", OperatorClass::output_head, gather, 1, 0, bytes);
  }
  add(out, "sampler", OperatorClass::output_head, cost_.elementwise(Elementwise::sampler, rows, vocabulary), 1, 0,
      4 * rows * vocabulary);
}

}  // namespace dssim
