// SPDX-License-Identifier: Apache-2.0
#include "sim/training/layer_cost.hpp"

#include <algorithm>
#include <cmath>
#include <vector>

namespace dssim {
namespace {

double value(int64_t count) {
  return static_cast<double>(count);
}

// Collectives cut into as many chunks as there are ranks, each beside the work on another chunk: the first or last
// chunk shows, and what outlasts the work.
double exposed_in_chunks_s(double collectives_s, double work_s, int ranks) {
  const double chunk = 1.0 / ranks;
  return std::max(collectives_s * chunk, collectives_s - work_s * (1 - chunk));
}

Precision unquantised(Precision precision) {
  return precision == Precision::fp8 ? Precision::bf16 : precision;
}

bool is_aligned(double side) {
  return std::fmod(side, 8) == 0;
}

}  // namespace

double expected_maximum(double n) {
  if (n <= 1) return 0;
  const double p = (n - 0.375) / (n + 0.25);
  double low = 0, high = 40;
  for (int i = 0; i < 100; ++i) {
    const double middle = (low + high) / 2;
    (0.5 * std::erfc(-middle / std::sqrt(2.0)) < p ? low : high) = middle;
  }
  return low;
}

PassCost& PassCost::operator+=(const PassCost& other) {
  compute_s += other.compute_s;
  tensor_s += other.tensor_s;
  context_s += other.context_s;
  expert_s += other.expert_s;
  host_s += other.host_s;
  product_s += other.product_s;
  weight_s += other.weight_s;
  selective_s += other.selective_s;
  return *this;
}

PassCost PassCost::times(double count) const {
  return {compute_s * count, tensor_s * count,  context_s * count, expert_s * count,
          host_s * count,    product_s * count, weight_s * count,  selective_s * count};
}

LayerCost::LayerCost(const TrainingJob& job, const TrainingStack& stack, const CostModel& kernels,
                     GroupNetwork& network)
    : job_(job),
      stack_(stack),
      kernels_(kernels),
      network_(network),
      tokens_(job.micro_batch_tokens()),
      hidden_(value(job.model.hidden)),
      width_bytes_(job.parameter_bytes()),
      outside_(job.sequence_parallel ? 1.0 / job.tensor_parallel : 1.0),
      widths_(attention_widths(job.model, job.tensor_parallel)) {
  for (const auto kind : {LayerKind::dense, LayerKind::moe})
    if (job.model.layers_of(kind) > 0) layers_[static_cast<size_t>(kind)] = layer_costs(kind);
  embedding_ = embedding_costs();
  head_ = head_costs();
  if (job.mtp > 0) prediction_ = prediction_costs();
}

double LayerCost::sustained_seconds(const Price& price, double flops, Precision precision) {
  // Of this very GPU where it is known; without one, sustained_matmul holds what it takes.
  const PowerCap& cap =
      stack_.power_cap.acts() && kernels_.power_cap().acts() ? kernels_.power_cap() : stack_.power_cap;
  const double share = flops / (price.seconds * kernels_.gpu().matrix_flops_per_s(precision));
  const double seconds = price.seconds * cap.slowdown(share) / stack_.sustained_matmul;
  coverage_s_[static_cast<size_t>(price.coverage)] += seconds;
  return seconds;
}

double LayerCost::product_seconds(double m, double n, double k, Precision precision) {
  const bool aligned = is_aligned(m) && is_aligned(n) && is_aligned(k);
  return sustained_seconds(kernels_.gemm(precision, m, n, k), 2 * m * n * k, precision) *
         (aligned ? 1 : stack_.unaligned_slowdown);
}

void LayerCost::add_product(PassCosts& into, double m, double n, double k, Precision precision) {
  const double exact = precision == Precision::fp8 ? stack_.fp8_backward : 1;
  const double forward_s = product_seconds(m, n, k, precision), weight_s = exact * product_seconds(n, k, m, precision),
               backward_s = exact * product_seconds(m, k, n, precision) + weight_s;
  into.forward.compute_s += forward_s;
  into.forward.product_s += forward_s;
  into.backward.compute_s += backward_s;
  into.backward.product_s += backward_s;
  into.backward.weight_s += weight_s;
}

// Collectives that go in chunks beside a product cut it into as many: the gather of forward's input, the scatter of its
// result, and the gather of the gradient of that. What backward scatters goes beside whole products (Transformer
// Engine: ring exchange and bulk overlap).
void LayerCost::add_split_product(PassCosts& into, const MatrixShape& matrix) {
  const int chunks = job_.overlap_tensor && job_.sequence_parallel ? job_.tensor_parallel : 1;
  PassCosts whole;
  add_product(whole, tokens_, matrix.n, matrix.k, job_.precision);
  if (chunks > 1) {
    PassCosts chunk;
    add_product(chunk, tokens_ / chunks, matrix.n, matrix.k, job_.precision);
    whole.forward = chunk.forward.times(chunks);
    if (matrix.closes) {
      const double input_s = chunks * (chunk.backward.product_s - chunk.backward.weight_s);
      const double longer_s = input_s - (whole.backward.product_s - whole.backward.weight_s);
      whole.backward.compute_s += longer_s;
      whole.backward.product_s += longer_s;
    }
  }
  into.forward += whole.forward;
  into.backward += whole.backward;
}

void LayerCost::add_traffic(PassCosts& into, Traffic traffic, double values) {
  const double seconds = values * width_bytes_ / (kernels_.gpu().memory_bytes_per_s * stack_.memory_efficiency);
  into.forward.compute_s += traffic.forward * seconds;
  into.backward.compute_s += traffic.backward * seconds;
}

// 8-bit products: what they read is written in 8 bits twice, as it is and transposed for the weight's gradient. Norms
// and activation functions write 8 bits themselves, and a pass of backward transposes that; the attention's output, and
// the gradients that come out of residuals and out of the attention, take a pass of their own for both; so does what
// experts read, for each of a token's experts, where it did not come in 8 bits.
void LayerCost::add_casts(PassCosts& into, LayerKind kind) {
  if (job_.precision != Precision::fp8) return;
  const Architecture& m = job_.model;
  const bool moe = kind == LayerKind::moe;
  // Values a token that a pass casts and transposes (one of 16 bits read, two of 8 written), only casts, only transposes.
  double both_forward = widths_.result, both_backward = widths_.all() + widths_.latent + hidden_;
  double cast_forward = 0, cast_backward = 0;
  double transposed = widths_.latent + hidden_ +
                      value(moe ? m.shared_ffn + m.experts_per_token * m.ffn : m.ffn_of(kind)) / job_.tensor_parallel;
  if (!moe || m.shared_ffn > 0) both_backward += hidden_, transposed += hidden_;
  if (moe) {  // what each expert reads, and its gradient
    const double routed = value(m.experts_per_token) * hidden_;
    if (job_.dispatch_precision == Precision::fp8)
      cast_forward += hidden_, cast_backward += hidden_, transposed += 2 * routed;
    else
      both_forward += routed, both_backward += routed;
  }
  add_traffic(into, {2, 0}, tokens_ * both_forward);
  add_traffic(into, {0, 2}, tokens_ * both_backward);
  add_traffic(into, {1.5, 0}, tokens_ * cast_forward);
  add_traffic(into, {0, 1.5}, tokens_ * cast_backward);
  add_traffic(into, {0, 1}, tokens_ * transposed);
}

// What selective recomputation repeats where there are no scores in memory: norms and activation functions.
void LayerCost::add_light(PassCosts& into, Traffic traffic, double values) {
  const double before = into.forward.compute_s;
  add_traffic(into, traffic, values);
  if (job_.attention != TrainingAttention::unfused) into.forward.selective_s += into.forward.compute_s - before;
}

double LayerCost::skew_s(int ranks) const {
  return stack_.launch_skew_s * expected_maximum(ranks);
}

void LayerCost::add_launches(PassCost& pass, double kernels_s, double collectives) const {
  pass.host_s =
      std::max(0.0, kernels_s + collectives * stack_.collective_launch_s - pass.compute_s - pass.collectives_s());
}

double LayerCost::tensor_bytes() const {
  return tokens_ * hidden_ * width_bytes_;
}

LayerTraffic LayerCost::traffic() {
  LayerTraffic traffic;
  if (job_.context_parallel > 1)
    traffic.context_bytes = (widths_.k + widths_.v) * width_bytes_ * value(job_.micro_batch) * value(job_.sequence);
  if (job_.expert_parallel > 1) {
    traffic.dispatch = exchange(dispatch_bytes()).load;
    traffic.combine = exchange(width_bytes_).load;
  }
  return traffic;
}

double LayerCost::dispatch_bytes() const {
  return job_.dispatch_precision == Precision::fp8 ? 1 + 4.0 / 128 : width_bytes_;
}

// Every tensor rank moves its share of the hidden width.
ExpertExchange LayerCost::exchange(double bytes) {
  const double token_bytes = hidden_ * bytes / job_.tensor_parallel;
  if (job_.dispatch == ExpertDispatch::all_to_all) {
    const double all = tokens_ * value(job_.model.experts_per_token) * token_bytes;
    return {network_.seconds(CollectiveKind::all_to_all, expert_group(), all),
            network_.load(CollectiveKind::all_to_all, expert_group(), all)};
  }
  const int per_node = network_.ranks_per_node(expert_group());
  return expert_exchange(
      network_,
      token_copies(static_cast<int>(job_.model.experts_per_token), job_.expert_parallel, per_node, job_.routed_nodes),
      (job_.expert_parallel + per_node - 1) / per_node, tokens_, token_bytes);
}

// `count` all-reduces of the layer's output in each direction. With sequence parallelism each is a scatter and a
// gather, and backward gathers the input of the first product again, beside the product of its gradient. Overlapped,
// that gather and backward's scatters run beside whole products, which lose what they lose beside NCCL.
void LayerCost::add_tensor_collectives(PassCosts& into, double count) {
  if (job_.tensor_parallel <= 1) return;
  const Group group = tensor_group();
  const double bytes = tensor_bytes(), skew = count * skew_s(job_.tensor_parallel);
  if (!job_.sequence_parallel) {
    const double reduce_s = network_.seconds(CollectiveKind::all_reduce, group, bytes);
    for (PassCost* pass : {&into.forward, &into.backward}) pass->tensor_s += skew + count * reduce_s;
    return;
  }
  const double scatter_s = count * network_.seconds(CollectiveKind::reduce_scatter, group, bytes),
               gather_s = count * network_.seconds(CollectiveKind::all_gather, group, bytes);
  for (PassCost* pass : {&into.forward, &into.backward})
    pass->tensor_s +=
        skew + (job_.overlap_tensor ? exposed_in_chunks_s(scatter_s + gather_s, pass->product_s, job_.tensor_parallel)
                                    : scatter_s + gather_s);
  if (job_.overlap_tensor) into.backward.tensor_s += stack_.overlap_cost * (scatter_s + gather_s);
}

void LayerCost::add_attention(PassCosts& into) {
  const Architecture& m = job_.model;
  const double t = job_.tensor_parallel, heads = std::max(1.0, value(m.heads) / t);
  const double dim = m.is_mla() ? value(m.head_dim + m.v_head_dim) / 2 : value(m.head_dim);
  const double kv_heads = value(kv_heads_per_gpu(m, job_.tensor_parallel));
  const double sequence = value(job_.sequence), queries = sequence / job_.context_parallel,
               sequences = value(job_.micro_batch);
  const PassCosts before = into;
  if (job_.attention != TrainingAttention::unfused) {
    // A context-parallel rank takes two slices, one from each end, so that all have the same work: the mean past is
    // half.
    const std::vector<AttentionChunk> chunks(static_cast<size_t>(job_.micro_batch),
                                             {queries, (sequence - queries) / 2});
    const AttentionHeads shape{static_cast<int64_t>(heads), static_cast<int64_t>(kv_heads), static_cast<int64_t>(dim),
                               Precision::bf16};
    Price price = kernels_.prefill_attention(shape, chunks, !m.is_encoder());
    if (job_.attention == TrainingAttention::flash_2) price.seconds *= stack_.flash_2;
    const double flops = 4 * sequences * heads * dim * queries * (m.is_encoder() ? sequence : sequence / 2);
    // Tables are of 16-bit values; wider ones go at the ratio of the rates.
    const double wider =
        kernels_.gpu().matrix_flops_per_s(Precision::bf16) /
        std::min(kernels_.gpu().matrix_flops_per_s(Precision::bf16), kernels_.gpu().matrix_flops_per_s(job_.precision));
    const double seconds = wider * sustained_seconds(price, flops, Precision::bf16);
    into.forward.compute_s += seconds;
    into.backward.compute_s += stack_.flash_backward * seconds;
  } else {
    const double scores = sequences * heads * queries * sequence;
    const double bandwidth = kernels_.gpu().memory_bytes_per_s * stack_.memory_efficiency;
    const double rate = stack_.score_product * kernels_.gpu().matrix_flops_per_s(job_.precision);
    const double moved = width_bytes_ * (scores + 2 * sequences * heads * queries * dim);
    const double product_s = std::max(2 * scores * dim / rate, moved / bandwidth);
    PassCosts core;
    core.forward.compute_s = 2 * product_s;
    core.backward.compute_s = 4 * product_s;
    add_traffic(core, stack_.scores, scores);
    core.forward.selective_s = core.forward.compute_s;
    coverage_s_[static_cast<size_t>(Coverage::outside)] += core.forward.compute_s + core.backward.compute_s;
    into.forward += core.forward;
    into.backward += core.backward;
  }
  const double forward_s = into.forward.compute_s - before.forward.compute_s,
               backward_s = into.backward.compute_s - before.backward.compute_s;
  add_traffic(into, stack_.layout, tokens_ * widths_.all());
  if (m.positions == Positions::rotary) add_traffic(into, stack_.rope, tokens_ * widths_.rotated);
  if (job_.context_parallel > 1) {
    // Keys and values of the whole sequence are gathered; their gradients are scattered back.
    const double bytes = traffic().context_bytes;
    const double gather_s = network_.seconds(CollectiveKind::all_gather, context_group(), bytes),
                 scatter_s = network_.seconds(CollectiveKind::reduce_scatter, context_group(), bytes);
    const auto exposed = [&](double exchange_s, double attention_s) {
      return job_.overlap_context ? exposed_in_chunks_s(exchange_s, attention_s, job_.context_parallel) : exchange_s;
    };
    into.forward.context_s += exposed(gather_s, forward_s);
    into.backward.context_s += exposed(gather_s + scatter_s, backward_s);
  }
}

// Selective recomputation makes keys, values and queries again from what latent attention keeps of a token.
void LayerCost::add_attention_products(PassCosts& into) {
  const Architecture& m = job_.model;
  for (const auto& matrix : attention_matrices(m, job_.tensor_parallel)) {
    const double before = into.forward.compute_s;
    add_split_product(into, matrix);
    if (matrix.expands && job_.attention != TrainingAttention::unfused)
      into.forward.selective_s += into.forward.compute_s - before;
  }
  if (m.is_mla())
    add_light(into, stack_.norm, tokens_ * (widths_.latent - value(m.qk_rope_head_dim)));  // of both latents
}

// A feed-forward that every token passes.
void LayerCost::add_dense(PassCosts& into, int64_t width) {
  if (width == 0) return;
  for (const auto& matrix : feed_forward_matrices(job_.model, width, job_.tensor_parallel))
    add_split_product(into, matrix);
  add_light(into, job_.model.activation == Activation::gated ? stack_.gated : stack_.plain,
            tokens_ * value(width) / job_.tensor_parallel);
}

// Router, then each expert's products over its share of the tokens that this GPU's experts get, routing taken as even.
void LayerCost::add_experts(PassCosts& into) {
  const Architecture& m = job_.model;
  const double ep = job_.expert_parallel, local = value(m.experts) / ep, routed = tokens_ * value(m.experts_per_token);
  add_product(into, tokens_, value(m.experts), hidden_, unquantised(job_.precision));
  PassCosts expert;
  const double rows = std::max(1.0, std::round(routed / local));
  for (const auto& matrix : feed_forward_matrices(m, m.ffn, job_.tensor_parallel))
    add_product(expert, rows, matrix.n, matrix.k, job_.precision);
  into.forward += expert.forward.times(local);
  into.backward += expert.backward.times(local);
  add_light(into, m.activation == Activation::gated ? stack_.gated : stack_.plain,
            routed * value(m.ffn) / job_.tensor_parallel);
  // Tokens gathered for their experts, in the format they came in, and results summed.
  const double moved = 2 * dispatch_bytes() / width_bytes_ + 2;
  add_traffic(into, {moved, moved}, routed * hidden_);
  if (job_.expert_parallel > 1) {
    // Backward sends gradients as forward sends tokens: out in the dispatch's format, and back in 16 bits.
    const double both = exchange(dispatch_bytes()).seconds + exchange(width_bytes_).seconds;
    for (PassCost* pass : {&into.forward, &into.backward}) pass->expert_s += both + 2 * skew_s(job_.expert_parallel);
  }
}

PassCosts LayerCost::layer_costs(LayerKind kind) {
  const Architecture& m = job_.model;
  PassCosts costs;
  add_attention_products(costs);
  add_attention(costs);
  if (kind == LayerKind::moe) {
    add_experts(costs);
    add_dense(costs, m.shared_ffn);
  } else {
    add_dense(costs, m.ffn_of(kind));
  }
  add_casts(costs, kind);
  const double values = tokens_ * hidden_ * outside_;
  const double dropout = m.linear_bias ? stack_.dropout_values : 0;
  add_light(costs, stack_.norm, 2 * values);
  add_traffic(costs, {stack_.residual.forward + dropout, stack_.residual.backward + dropout}, 2 * values);
  add_tensor_collectives(costs, 2);
  const bool exchanges = job_.expert_parallel > 1 && kind == LayerKind::moe;
  const double collectives =
      (job_.tensor_parallel > 1 ? 2 : 0) + (job_.context_parallel > 1 ? 1 : 0) + (exchanges ? 2 : 0);
  add_launches(costs.forward, stack_.forward_launch_s, collectives);
  add_launches(costs.backward, stack_.backward_launch_s, collectives);
  return costs;
}

// Two norms, and the product that makes one hidden state of the layer's result and the next token's embedding.
PassCosts LayerCost::prediction_costs() {
  PassCosts costs;
  add_product(costs, tokens_, hidden_, 2 * hidden_ / job_.tensor_parallel, job_.precision);
  add_traffic(costs, stack_.norm, 2 * tokens_ * hidden_ * outside_);
  return costs;
}

PassCosts LayerCost::embedding_costs() {
  PassCosts costs;
  add_traffic(costs, {2, 2}, tokens_ * hidden_ * outside_);
  if (job_.tensor_parallel > 1)
    costs.forward.tensor_s = network_.seconds(CollectiveKind::all_reduce, tensor_group(), tensor_bytes());

  return costs;
}

PassCosts LayerCost::head_costs() {
  PassCosts costs;
  if (job_.model.is_encoder()) return costs;
  const double vocabulary = job_.tensor_parallel == 1 ? value(job_.model.vocabulary)
                                                      : value(vocabulary_per_gpu(job_.model, job_.tensor_parallel));
  add_product(costs, tokens_, vocabulary, hidden_, unquantised(job_.precision));
  add_traffic(costs, stack_.norm, tokens_ * hidden_ * outside_);
  // The loss computes in fp32 whatever the products' format: bytes are given, not values.
  const double loss_s =
      tokens_ * vocabulary * stack_.vocabulary_bytes / (kernels_.gpu().memory_bytes_per_s * stack_.memory_efficiency);
  costs.forward.compute_s += loss_s / 2;
  costs.backward.compute_s += loss_s / 2;
  if (job_.tensor_parallel > 1)
    costs.backward.tensor_s = network_.seconds(CollectiveKind::all_reduce, tensor_group(), tensor_bytes());

  // About half as many kernels as a layer has.
  add_launches(costs.forward, stack_.forward_launch_s / 2, 0);
  add_launches(costs.backward, stack_.backward_launch_s / 2, 0);
  return costs;
}

PassCost LayerCost::recomputed(LayerKind kind) const {
  switch (job_.recompute) {
    case Recompute::none:
      return {};
    case Recompute::full:
      return layer(kind).forward;
    case Recompute::selective: {
      PassCost again;
      again.compute_s = layer(kind).forward.selective_s;
      return again;
    }
  }
  return {};
}

}  // namespace dssim
