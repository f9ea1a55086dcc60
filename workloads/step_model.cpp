// SPDX-License-Identifier: Apache-2.0
#include "workloads/step_model.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cassert>
#include <cmath>

namespace dssim {
namespace {

constexpr size_t kRememberedTokens = size_t{1} << 16;  // larger steps are priced afresh
constexpr int kKnotsPerOctave = 8;                     // of the remembered decode attention, in KV length

double value(int64_t count) {
  return static_cast<double>(count);
}

}  // namespace

class StepModel::Impl {
 public:
  Impl(const Architecture& architecture, StepModelOptions options, const CostModel& cost);

  StepPrice price(const StepShape& shape, StepUsage* usage, GpuHeat* heat, double now_s);
  std::vector<OperatorPrice> breakdown(const StepShape& shape);
  const CostModel& cost() const { return cost_; }

 private:
  // Sums over some of a step's operators.
  struct Part {
    double seconds = -1;  // < 0: not priced yet
    double capped_s = 0;  // the same under the power cap
    StepUsage usage;
  };
  struct DecodePart {
    std::vector<float> seconds;  // all layers, at KV lengths 2^e (1 + j/8)
    Coverage coverage = Coverage::inside;
  };
  struct Run {           // how the stack runs a step of this shape
    int64_t tokens = 0;  // padded
    bool in_graph = true;
    double launch_s = 0;  // the host's launches, side by side with the GPU's work
    double host_s = 0;    // host work the GPU waits for
  };
  using Sink = std::vector<OperatorPrice>;

  Run run_of(const StepShape& shape) const;
  void layer_operators(double tokens, bool in_graph, Sink& out) const;
  void attention_products(double tokens, Sink& out) const;
  void latent_products(double tokens, Sink& out) const;
  void feed_forward(double tokens, LayerKind kind, Sink& out) const;
  void experts(double tokens, double layers, Sink& out) const;
  void gated_ffn(double tokens, double width, double layers, const std::array<std::string_view, 3>& names,
                 Sink& out) const;
  void embedding_operators(double tokens, bool in_graph, Sink& out) const;
  void head_operators(double rows, Sink& out) const;
  Part sum(const Sink& operators) const;
  const Part& layers_part(int64_t tokens, bool in_graph);
  const Part& embedding_part(int64_t tokens, bool in_graph);
  const Part& head_part(int64_t rows);
  Price decode_attention(int64_t batch, double kv_length);
  Price graph_decode_attention(double batch, double kv_length) const;
  double pair_flops(bool decode) const;  // of one layer's attention: a query token and a token it attends to
  double kv_token_bytes() const;         // of one layer on one GPU
  Price all_reduce(double bytes, bool in_graph) const;
  // All layers' attention; in one launch of both kinds the decodes count as prefill.
  struct Attention {
    Price prefill{0, Coverage::inside}, decode{0, Coverage::inside};
    double prefill_slowdown = 1;  // under the power cap
    double seconds() const { return prefill.seconds + decode.seconds; }
    double capped_s() const { return prefill.seconds * prefill_slowdown + decode.seconds; }
  };
  Attention step_attention(const StepShape& shape, const Run& run);
  int64_t head_rows(const StepShape& shape) const;
  double query_pairs(const StepShape& shape) const;
  void product(Sink& out, std::string_view name, double m, double n, double k, double layers) const;
  void element(Sink& out, std::string_view name, Elementwise kernel, double m, double width, double values,
               double count) const;
  double capped_slowdown(OperatorClass kind, double flops, double seconds) const;
  double burst_share(double burst_s, double capped_s, GpuHeat* heat, double now_s) const;
  void add(Sink& out, std::string_view name, OperatorClass kind, Price price, double count, double flops,
           double bytes) const;

  Architecture arch_;
  StepModelOptions options_;
  const CostModel& cost_;
  AttentionHeads heads_;
  LatentHeads latent_;  // of models with latent attention, in place of heads_
  double layers_, hidden_, tp_;
  std::array<std::vector<Part>, 2> layer_parts_, embedding_parts_;  // [in_graph]
  std::vector<Part> head_parts_;
  std::vector<DecodePart> decode_parts_;
  std::vector<AttentionChunk> chunks_;
  Sink scratch_;
  Part unremembered_layers_, unremembered_embedding_, unremembered_head_;
};

StepModel::Impl::Impl(const Architecture& architecture, StepModelOptions options, const CostModel& cost)
    : arch_(architecture), options_(std::move(options)), cost_(cost) {
  assert(arch_.layers > 0 && arch_.hidden > 0 && options_.tensor_parallel > 0);
  tp_ = options_.tensor_parallel;
  layers_ = value(arch_.layers);
  hidden_ = value(arch_.hidden);
  heads_ = {std::max<int64_t>(1, arch_.heads / options_.tensor_parallel),
            std::max<int64_t>(1, arch_.kv_heads / options_.tensor_parallel), arch_.head_dim, options_.kv_cache};
  latent_ = {heads_.heads,           arch_.kv_lora_rank, arch_.qk_rope_head_dim,
             arch_.qk_nope_head_dim, arch_.v_head_dim,   options_.kv_cache};
}

void StepModel::Impl::add(Sink& out, std::string_view name, OperatorClass kind, Price price, double count, double flops,
                          double bytes) const {
  out.push_back({name, kind, price.seconds * count, flops * count, bytes * count, price.coverage});
}

Price StepModel::Impl::all_reduce(double bytes, bool in_graph) const {
  return options_.collective ? options_.collective(Collective::all_reduce, bytes)
                             : cost_.all_reduce(options_.tensor_parallel, bytes, in_graph);
}

void StepModel::Impl::product(Sink& out, std::string_view name, double m, double n, double k, double layers) const {
  add(out, name, OperatorClass::matmul, cost_.gemm(options_.weights, m, n, k), layers, 2 * m * n * k,
      bytes_of(options_.weights) * n * k + 2 * m * (n + k));
}

void StepModel::Impl::element(Sink& out, std::string_view name, Elementwise kernel, double m, double width,
                              double values, double count) const {
  add(out, name, OperatorClass::elementwise, cost_.elementwise(kernel, m, width), count, 0, values * m);
}

// Everything of the layers but attention itself.
void StepModel::Impl::layer_operators(double m, bool in_graph, Sink& out) const {
  const auto reduce = [&](std::string_view name) {
    if (options_.tensor_parallel > 1)
      add(out, name, OperatorClass::all_reduce, all_reduce(2 * m * hidden_, in_graph), layers_, 0, 2 * m * hidden_);
  };
  element(out, "norms", Elementwise::add_rmsnorm, m, hidden_, 8 * hidden_, 2 * layers_);
  arch_.is_mla() ? latent_products(m, out) : attention_products(m, out);
  reduce("attention all-reduce");
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe})
    if (arch_.layers_of(kind) > 0) feed_forward(m, kind, out);
  reduce("ffn all-reduce");
  if (const double gap_s = in_graph ? cost_.stack().layer_gap_s : cost_.stack().eager_gap_s; gap_s > 0)
    add(out, "gaps", OperatorClass::elementwise, {gap_s, cost_.transferred() ? Coverage::outside : Coverage::inside},
        layers_, 0, 0);
}

void StepModel::Impl::attention_products(double m, Sink& out) const {
  const double q = value(heads_.heads * heads_.head_dim), kv = value(heads_.kv_heads * heads_.head_dim);
  product(out, "qkv", m, q + 2 * kv, hidden_, layers_);
  if (arch_.qk_norm) element(out, "qk_norm", Elementwise::rope, m, q + kv, 4 * (q + kv), layers_);
  if (arch_.positions == Positions::rotary) element(out, "rope", Elementwise::rope, m, q + kv, 4 * (q + kv), layers_);
  if (!cost_.stack().attention_writes_kv && !cost_.stack().rope_writes_kv)
    element(out, "kv_write", Elementwise::rope, m, 2 * kv, 8 * kv, layers_);
  product(out, "o", m, hidden_, q, layers_);
}

// Down to the latent vectors, the same on every GPU (both in one product, as vLLM fuses them); queries up to the heads.
// What lies between the latent of keys and values and the heads belongs to the attention.
void StepModel::Impl::latent_products(double m, Sink& out) const {
  const double heads = value(latent_.heads), q = value(heads_.heads * heads_.head_dim);
  const double latent = value(arch_.latent_width()), q_latent = value(arch_.q_lora_rank);
  if (arch_.q_lora_rank > 0) {
    product(out, "q_a and kv_a", m, q_latent + latent, hidden_, layers_);
    element(out, "q_a norm", Elementwise::add_rmsnorm, m, q_latent, 4 * q_latent, layers_);
    product(out, "q_b", m, q, q_latent, layers_);
  } else {
    product(out, "q", m, q, hidden_, layers_);
    product(out, "kv_a", m, latent, hidden_, layers_);
  }
  const double rank = value(arch_.kv_lora_rank), rotary = (heads + 1) * value(arch_.qk_rope_head_dim);
  element(out, "kv_a norm", Elementwise::add_rmsnorm, m, rank, 4 * rank, layers_);
  element(out, "rope", Elementwise::rope, m, rotary, 4 * rotary, layers_);
  product(out, "o", m, hidden_, heads * value(arch_.v_head_dim), layers_);
}

void StepModel::Impl::feed_forward(double m, LayerKind kind, Sink& out) const {
  const double layers = value(arch_.layers_of(kind));
  if (kind == LayerKind::moe) return experts(m, layers, out);
  const std::string_view up = arch_.activation == Activation::gated ? "gate_up" : "up";
  gated_ffn(m, value(arch_.ffn_of(kind)) / tp_, layers, {up, "activation", "down"}, out);
}

void StepModel::Impl::gated_ffn(double m, double ffn, double layers, const std::array<std::string_view, 3>& names,
                                Sink& out) const {
  const double up = arch_.activation == Activation::gated ? 2 * ffn : ffn;
  product(out, names[0], m, up, hidden_, layers);
  element(out, names[1], Elementwise::silu_mul, m, ffn, 2 * (up + ffn), layers);
  product(out, names[2], m, hidden_, ffn, layers);
}

// Routed experts, then the shared ones that every token passes, added to their result.
void StepModel::Impl::experts(double m, double layers, Sink& out) const {
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

void StepModel::Impl::embedding_operators(double m, bool in_graph, Sink& out) const {
  add(out, "embedding", OperatorClass::elementwise, cost_.elementwise(Elementwise::embedding, m, hidden_), 1, 0,
      4 * m * hidden_);
  if (options_.tensor_parallel > 1)
    add(out, "embedding all-reduce", OperatorClass::all_reduce, all_reduce(2 * m * hidden_, in_graph), 1, 0,
        2 * m * hidden_);
}

// Final norm, the vocabulary product (16-bit in every stack), the gather of its parts, and sampling.
void StepModel::Impl::head_operators(double rows, Sink& out) const {
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

StepModel::Impl::Part StepModel::Impl::sum(const Sink& operators) const {
  Part part;
  part.seconds = 0;
  for (const auto& o : operators) {
    part.seconds += o.seconds;
    part.capped_s += o.seconds * capped_slowdown(o.kind, o.flops, o.seconds);
    part.usage.class_s[static_cast<size_t>(o.kind)] += o.seconds;
    part.usage.coverage_s[static_cast<size_t>(o.coverage)] += o.seconds;
  }
  return part;
}

// How much longer an operator takes under the power cap than in a burst.
double StepModel::Impl::capped_slowdown(OperatorClass kind, double flops, double seconds) const {
  if (flops <= 0 || !cost_.power_cap().acts()) return 1;
  const bool weights = kind == OperatorClass::matmul || kind == OperatorClass::moe;
  return cost_.power_cap().slowdown(
      flops / (seconds * cost_.gpu().matrix_flops_per_s(weights ? options_.weights : Precision::bf16)));
}

// The share of a step that runs before the GPU reaches its power cap.
double StepModel::Impl::burst_share(double burst_s, double capped_s, GpuHeat* heat, double now_s) const {
  const PowerCap& cap = cost_.power_cap();
  GpuHeat cool;
  return (heat != nullptr ? heat : &cool)->run(cap, burst_s, capped_s, cap.compute_bound(capped_s / burst_s), now_s);
}

// Pairs of a prompt's query token and a token it attends to.
double StepModel::Impl::query_pairs(const StepShape& shape) const {
  double pairs = 0;
  for (const auto& c : shape.prefill)
    pairs += value(c.new_tokens) * (value(c.past_tokens) + (value(c.new_tokens) + 1) / 2);
  return pairs;
}

const StepModel::Impl::Part& StepModel::Impl::layers_part(int64_t tokens, bool in_graph) {
  auto& parts = layer_parts_[in_graph];
  const auto index = static_cast<size_t>(tokens);
  Part* part = &unremembered_layers_;
  if (index < kRememberedTokens) {
    if (index >= parts.size()) parts.resize(std::bit_ceil(index + 1));
    part = &parts[index];
    if (part->seconds >= 0) return *part;
  }
  scratch_.clear();
  layer_operators(value(tokens), in_graph, scratch_);
  return *part = sum(scratch_);
}

const StepModel::Impl::Part& StepModel::Impl::embedding_part(int64_t tokens, bool in_graph) {
  auto& parts = embedding_parts_[in_graph];
  const auto index = static_cast<size_t>(tokens);
  Part* part = &unremembered_embedding_;
  if (index < kRememberedTokens) {
    if (index >= parts.size()) parts.resize(std::bit_ceil(index + 1));
    part = &parts[index];
    if (part->seconds >= 0) return *part;
  }
  scratch_.clear();
  embedding_operators(value(tokens), in_graph, scratch_);
  return *part = sum(scratch_);
}

const StepModel::Impl::Part& StepModel::Impl::head_part(int64_t rows) {
  const auto index = static_cast<size_t>(rows);
  Part* part = &unremembered_head_;
  if (index < kRememberedTokens) {
    if (index >= head_parts_.size()) head_parts_.resize(std::bit_ceil(index + 1));
    part = &head_parts_[index];
    if (part->seconds >= 0) return *part;
  }
  scratch_.clear();
  head_operators(value(rows), scratch_);
  return *part = sum(scratch_);
}

// One layer's decode attention in a captured graph. FlashAttention-2 cuts each KV head's work into splits that fill the
// GPU twice over at the longest context the graph was captured for. Shorter sequences fill fewer of their splits, so
// the launch takes at least as long as one block over one split: the time at the batch that gives every SM one unsplit
// block.
Price StepModel::Impl::graph_decode_attention(double batch, double kv_length) const {
  if (arch_.is_mla()) return cost_.latent_decode(latent_, batch, batch * kv_length);
  Price price = cost_.decode_attention(heads_, batch, batch * kv_length);
  const double captured = std::max(kv_length, value(cost_.stack().graph_context_tokens));
  const double blocks = batch * value(heads_.kv_heads), sms = cost_.gpu().sms;
  if (cost_.stack().graph_context_tokens == 0 || sms <= 0 || blocks >= sms) return price;
  const double split = captured / std::floor(2 * sms / blocks);
  const double one_each = sms / value(heads_.kv_heads), length = std::min(kv_length, split);
  price.seconds = std::max(price.seconds, cost_.decode_attention(heads_, one_each, one_each * length).seconds);
  return price;
}

double StepModel::Impl::pair_flops(bool decode) const {
  if (arch_.is_mla()) return decode ? latent_.absorbed_pair_flops() : latent_.expanded_pair_flops();
  return 4 * value(heads_.heads * heads_.head_dim);
}

double StepModel::Impl::kv_token_bytes() const {
  return arch_.is_mla() ? latent_.latent_bytes()
                        : 2 * value(heads_.kv_heads * heads_.head_dim) * bytes_of(options_.kv_cache);
}

// All layers' decode attention, from a remembered curve over the mean KV length of this batch.
Price StepModel::Impl::decode_attention(int64_t batch, double kv_length) {
  const auto index = static_cast<size_t>(batch);
  if (index >= kRememberedTokens) {
    Price price = graph_decode_attention(value(batch), kv_length);
    price.seconds *= layers_;
    return price;
  }
  if (index >= decode_parts_.size()) decode_parts_.resize(std::bit_ceil(index + 1));
  DecodePart& part = decode_parts_[index];
  int exponent = 0;
  const double length = std::max(1.0, kv_length);
  const double mantissa = 2 * std::frexp(length, &exponent) - 1;  // in [0, 1); length = 2^(exponent−1) (1 + mantissa)
  const double position = kKnotsPerOctave * mantissa;
  const auto knot = static_cast<size_t>(kKnotsPerOctave * (exponent - 1)) + static_cast<size_t>(position);
  if (knot + 1 >= part.seconds.size()) part.seconds.resize(knot + 2, -1.0F);
  for (size_t i = knot; i <= knot + 1; ++i) {
    if (part.seconds[i] >= 0) continue;
    const double at = std::ldexp(1 + static_cast<double>(i % kKnotsPerOctave) / kKnotsPerOctave,
                                 static_cast<int>(i / kKnotsPerOctave));
    const Price price = graph_decode_attention(value(batch), at);
    part.seconds[i] = static_cast<float>(price.seconds * layers_);
    part.coverage = worse(part.coverage, price.coverage);
  }
  const double w = position - std::floor(position);
  return {(1 - w) * part.seconds[knot] + w * part.seconds[knot + 1], part.coverage};
}

StepModel::Impl::Attention StepModel::Impl::step_attention(const StepShape& shape, const Run& run) {
  Attention attention;
  // Latent attention has kernels of its own, which split at run time and keep decodes and prompts apart.
  const bool flash2 = cost_.stack().attention == AttentionKernel::flash2 && !arch_.is_mla();
  const bool one_launch = flash2 && !shape.prefill.empty();
  if (shape.decode_sequences > 0 && !one_launch) {
    // FlashAttention-2 splits as for the whole captured batch, whether the rows that pad it have KV or not.
    const int64_t batch = flash2 ? run.tokens : shape.decode_sequences;
    const int64_t attending = cost_.stack().padding_attends ? shape.decode_sequences : batch;
    attention.decode = decode_attention(batch, value(shape.decode_kv_tokens) / value(attending));
    if (shape.decode_longest > 0 && !arch_.is_mla())
      attention.decode.seconds *= cost_.decode_spread(heads_, value(shape.decode_sequences),
                                                      value(shape.decode_kv_tokens), value(shape.decode_longest));
  }
  if (shape.prefill.empty()) return attention;
  chunks_.clear();
  for (const auto& c : shape.prefill) chunks_.push_back({value(c.new_tokens), value(c.past_tokens)});
  if (arch_.is_mla())
    attention.prefill = cost_.latent_prefill(latent_, chunks_);
  else if (one_launch && shape.decode_sequences > 0)
    attention.prefill =
        cost_.mixed_attention(heads_, chunks_, value(shape.decode_sequences), value(shape.decode_kv_tokens));
  else
    attention.prefill = cost_.prefill_attention(heads_, chunks_, arch_.family == Family::decoder);
  attention.prefill.seconds *= layers_;
  attention.prefill_slowdown = capped_slowdown(
      OperatorClass::prefill_attention, pair_flops(false) * query_pairs(shape) * layers_, attention.prefill.seconds);
  return attention;
}

StepModel::Impl::Run StepModel::Impl::run_of(const StepShape& shape) const {
  const Stack& stack = cost_.stack();
  Run run;
  run.tokens = shape.decode_sequences;
  for (const auto& c : shape.prefill) run.tokens += c.new_tokens;
  if (run.tokens == 0) return run;
  const auto& sizes = stack.graph_batch_sizes;
  const auto padded = std::lower_bound(sizes.begin(), sizes.end(), run.tokens);
  const bool piecewise = !shape.prefill.empty();
  const auto sequences = shape.decode_sequences + static_cast<int64_t>(shape.prefill.size());
  run.host_s = stack.iteration_host_s + stack.sequence_host_s * value(sequences);
  if (padded != sizes.end() && (!piecewise || run.tokens <= stack.piecewise_graph_tokens)) {
    run.tokens = *padded;
    run.launch_s = piecewise ? stack.piecewise_launch_s * layers_ : 0;
  } else {
    run.in_graph = false;
    run.launch_s = stack.eager_launch_s * layers_;
  }
  if (piecewise || !run.in_graph) run.host_s += stack.eager_host_s;
  return run;
}

int64_t StepModel::Impl::head_rows(const StepShape& shape) const {
  int64_t rows = shape.decode_sequences;
  for (const auto& c : shape.prefill) rows += c.ends_prompt;
  return rows;
}

StepPrice StepModel::Impl::price(const StepShape& shape, StepUsage* usage, GpuHeat* heat, double now_s) {
  StepPrice price;
  const Run run = run_of(shape);
  if (run.tokens == 0) return price;
  const Stack& stack = cost_.stack();
  const Part& layers = layers_part(run.tokens, run.in_graph);
  const Part& embedding = embedding_part(run.tokens, run.in_graph);
  const Part& head = head_part(head_rows(shape));
  const Attention attention = step_attention(shape, run);

  const double burst_s = layers.seconds + attention.seconds() + embedding.seconds + head.seconds;
  const double capped_s = layers.capped_s + attention.capped_s() + embedding.capped_s + head.capped_s;
  const double in_burst = burst_share(burst_s, capped_s, heat, now_s);
  const double slowdown = (shape.prefill.empty() ? stack.decode_slowdown : stack.prefill_slowdown) *
                          (in_burst + (1 - in_burst) * capped_s / burst_s);
  const double gpu_s = slowdown * burst_s;
  const double waiting_s = std::max(0.0, run.launch_s - gpu_s);  // the GPU waits for launches
  price.embedding_s = slowdown * embedding.seconds;
  price.layers_s = slowdown * (layers.seconds + attention.seconds()) + waiting_s;
  price.head_s = slowdown * head.seconds;
  price.host_s = run.host_s;
  if (usage == nullptr) return price;

  for (size_t i = 0; i < kOperatorClasses; ++i)
    usage->class_s[i] += slowdown * (layers.usage.class_s[i] + embedding.usage.class_s[i] + head.usage.class_s[i]);
  for (size_t i = 0; i < usage->coverage_s.size(); ++i)
    usage->coverage_s[i] +=
        slowdown * (layers.usage.coverage_s[i] + embedding.usage.coverage_s[i] + head.usage.coverage_s[i]);
  usage->class_s[static_cast<size_t>(OperatorClass::prefill_attention)] += slowdown * attention.prefill.seconds;
  usage->class_s[static_cast<size_t>(OperatorClass::decode_attention)] += slowdown * attention.decode.seconds;
  usage->coverage_s[static_cast<size_t>(attention.prefill.coverage)] += slowdown * attention.prefill.seconds;
  usage->coverage_s[static_cast<size_t>(attention.decode.coverage)] += slowdown * attention.decode.seconds;
  usage->class_s[static_cast<size_t>(OperatorClass::host)] += price.host_s + waiting_s;
  return price;
}

std::vector<OperatorPrice> StepModel::Impl::breakdown(const StepShape& shape) {
  Sink out;
  const Run run = run_of(shape);
  if (run.tokens == 0) return out;
  const Stack& stack = cost_.stack();
  embedding_operators(value(run.tokens), run.in_graph, out);
  layer_operators(value(run.tokens), run.in_graph, out);
  const Attention attention = step_attention(shape, run);
  const double kv_bytes = kv_token_bytes();
  double kv = 0;
  for (const auto& c : shape.prefill) kv += value(c.past_tokens + c.new_tokens);
  const bool decode = shape.prefill.empty();
  const auto attend = [&](std::string_view name, OperatorClass kind, Price price, double query_pairs,
                          double kv_tokens) {
    add(out, name, kind, {price.seconds / layers_, price.coverage}, layers_,
        pair_flops(kind == OperatorClass::decode_attention) * query_pairs, kv_tokens * kv_bytes);
  };
  const double decode_kv = value(shape.decode_kv_tokens), both = attention.decode.seconds > 0 ? 0 : decode_kv;
  if (!decode)
    attend("prefill attention", OperatorClass::prefill_attention, attention.prefill, query_pairs(shape) + both,
           kv + both);
  if (attention.decode.seconds > 0)
    attend("decode attention", OperatorClass::decode_attention, attention.decode, decode_kv, decode_kv);
  head_operators(value(head_rows(shape)), out);
  const double slowdown = decode ? stack.decode_slowdown : stack.prefill_slowdown;
  const auto capped = [&](const OperatorPrice& o) {
    return o.kind == OperatorClass::prefill_attention  ? attention.prefill_slowdown
           : o.kind == OperatorClass::decode_attention ? 1
                                                       : capped_slowdown(o.kind, o.flops, o.seconds);
  };
  double burst_s = 0, capped_s = 0, gpu_s = 0;
  for (const auto& o : out) burst_s += o.seconds, capped_s += o.seconds * capped(o);
  const double in_burst = burst_share(burst_s, capped_s, nullptr, 0);
  for (auto& o : out) gpu_s += o.seconds *= slowdown * (in_burst + (1 - in_burst) * capped(o));
  if (run.launch_s > gpu_s)
    add(out, "launches", OperatorClass::host, {run.launch_s - gpu_s, Coverage::inside}, 1, 0, 0);
  if (run.host_s > 0) add(out, "host between steps", OperatorClass::host, {run.host_s, Coverage::inside}, 1, 0, 0);
  return out;
}

StepModel::StepModel(const Architecture& architecture, StepModelOptions options, const CostModel& cost)
    : impl_(std::make_unique<Impl>(architecture, std::move(options), cost)) {}
StepModel::~StepModel() = default;
StepModel::StepModel(StepModel&&) noexcept = default;
StepModel& StepModel::operator=(StepModel&&) noexcept = default;
StepPrice StepModel::price(const StepShape& shape, StepUsage* usage, GpuHeat* heat, double now_s) {
  return impl_->price(shape, usage, heat, now_s);
}
std::vector<OperatorPrice> StepModel::breakdown(const StepShape& shape) {
  return impl_->breakdown(shape);
}
const CostModel& StepModel::cost() const {
  return impl_->cost();
}

}  // namespace dssim
