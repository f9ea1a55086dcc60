// SPDX-License-Identifier: Apache-2.0
#include "workloads/step_model.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "workloads/step_operators.hpp"

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
    bool priced = false;
    GpuWork work;
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
  Part sum(const Sink& operators) const;
  const Part& layers_part(int64_t tokens, bool in_graph);
  const Part& embedding_part(int64_t tokens, bool in_graph);
  const Part& head_part(int64_t rows);
  Price decode_attention(int64_t batch, double kv_length);
  Price graph_decode_attention(double batch, double kv_length) const;
  double pair_flops(bool decode) const;  // of one layer's attention: a query token and a token it attends to
  double kv_token_bytes() const;         // of one layer on one GPU
  // All layers' attention; in one launch of both kinds the decodes count as prefill.
  struct Attention {
    Price prefill{0, Coverage::inside}, decode{0, Coverage::inside};
    double prefill_flops = 0, prefill_bytes = 0, decode_bytes = 0;  // of all layers
    double seconds() const { return prefill.seconds + decode.seconds; }
    std::array<OperatorPrice, 2> operators() const {
      return {{{"", OperatorClass::prefill_attention, prefill.seconds, prefill_flops, prefill_bytes, prefill.coverage},
               {"", OperatorClass::decode_attention, decode.seconds, 0, decode_bytes, decode.coverage}}};
    }
  };
  Attention step_attention(const StepShape& shape, const Run& run);
  int64_t head_rows(const StepShape& shape) const;
  double query_pairs(const StepShape& shape) const;
  GpuWork work_of(const OperatorPrice& o) const;
  double seconds_of(const GpuWork& work, GpuHeat* heat, double now_s) const;

  Architecture arch_;
  StepModelOptions options_;
  const CostModel& cost_;
  StepOperators operators_;
  AttentionHeads heads_;
  LatentHeads latent_;  // of models with latent attention, in place of heads_
  double layers_;
  std::array<std::vector<Part>, 2> layer_parts_, embedding_parts_;  // [in_graph]
  std::vector<Part> head_parts_;
  std::vector<DecodePart> decode_parts_;
  std::vector<AttentionChunk> chunks_;
  Sink scratch_;
  Part unremembered_layers_, unremembered_embedding_, unremembered_head_;
};

StepModel::Impl::Impl(const Architecture& architecture, StepModelOptions options, const CostModel& cost)
    : arch_(architecture),
      options_(std::move(options)),
      cost_(cost),
      operators_(arch_, options_, cost_),
      heads_(operators_.heads()),
      latent_(operators_.latent_heads()),
      layers_(value(arch_.layers)) {}

StepModel::Impl::Part StepModel::Impl::sum(const Sink& operators) const {
  Part part;
  part.priced = true;
  for (const auto& o : operators) {
    part.work += work_of(o);
    part.usage.class_s[static_cast<size_t>(o.kind)] += o.seconds;
    part.usage.coverage_s[static_cast<size_t>(o.coverage)] += o.seconds;
  }
  return part;
}

// Products and the attention of prompts lose what kernels of their share of the matrix rate were measured to. The clock
// counts for the rest as far as memory does not: not at all for what runs at the memory's bandwidth or waits for links.
GpuWork StepModel::Impl::work_of(const OperatorPrice& o) const {
  GpuWork work{o.seconds, o.seconds, o.seconds, o.kind == OperatorClass::all_reduce ? o.seconds : 0};
  const PowerCap& cap = cost_.power_cap();
  if (!cap.acts() || o.seconds <= 0 || o.kind == OperatorClass::all_reduce || o.kind == OperatorClass::host)
    return work;
  const bool layer_product = o.kind == OperatorClass::matmul || o.kind == OperatorClass::moe;
  const bool product = o.flops > 0 && (layer_product || o.kind == OperatorClass::output_head);
  if (product || (o.flops > 0 && o.kind == OperatorClass::prefill_attention)) {
    const Precision format = layer_product ? options_.weights : Precision::bf16;
    work.drawing_s *= cap.slowdown(o.flops / (o.seconds * cost_.gpu().matrix_flops_per_s(format)));
  }
  const double streaming = std::min(1.0, o.bytes / (o.seconds * cost_.gpu().memory_bytes_per_s));
  const double by_clock_s = o.seconds * (1 + (cap.most_slowdown() - 1) * (1 - streaming));
  work.capped_s = product ? work.drawing_s : std::max(work.drawing_s, by_clock_s);
  return work;
}

// What a step's GPU work takes on GPUs of that heat; by itself it starts cool.
double StepModel::Impl::seconds_of(const GpuWork& work, GpuHeat* heat, double now_s) const {
  GpuHeat cool;
  return (heat != nullptr ? heat : &cool)->run(cost_.power_cap(), work, now_s);
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
    if (part->priced) return *part;
  }
  scratch_.clear();
  operators_.layers(value(tokens), in_graph, scratch_);
  return *part = sum(scratch_);
}

const StepModel::Impl::Part& StepModel::Impl::embedding_part(int64_t tokens, bool in_graph) {
  auto& parts = embedding_parts_[in_graph];
  const auto index = static_cast<size_t>(tokens);
  Part* part = &unremembered_embedding_;
  if (index < kRememberedTokens) {
    if (index >= parts.size()) parts.resize(std::bit_ceil(index + 1));
    part = &parts[index];
    if (part->priced) return *part;
  }
  scratch_.clear();
  operators_.embedding(value(tokens), in_graph, scratch_);
  return *part = sum(scratch_);
}

const StepModel::Impl::Part& StepModel::Impl::head_part(int64_t rows) {
  const auto index = static_cast<size_t>(rows);
  Part* part = &unremembered_head_;
  if (index < kRememberedTokens) {
    if (index >= head_parts_.size()) head_parts_.resize(std::bit_ceil(index + 1));
    part = &head_parts_[index];
    if (part->priced) return *part;
  }
  scratch_.clear();
  operators_.head(value(rows), scratch_);
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
    attention.decode_bytes = kv_token_bytes() * value(shape.decode_kv_tokens) * layers_;
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
  attention.prefill_flops = pair_flops(false) * query_pairs(shape) * layers_;
  double kv = 0;
  for (const auto& c : shape.prefill) kv += value(c.past_tokens + c.new_tokens);
  attention.prefill_bytes = kv_token_bytes() * kv * layers_;
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

  GpuWork work;
  for (const Part* part : {&layers, &embedding, &head}) work += part->work;
  for (const auto& o : attention.operators()) work += work_of(o);
  const double burst_s = work.burst_s;
  const double slowdown = (shape.prefill.empty() ? stack.decode_slowdown : stack.prefill_slowdown) *
                          seconds_of(work, heat, now_s) / burst_s;
  const double gpu_s = slowdown * burst_s;
  const double waiting_s = std::max(0.0, run.launch_s - gpu_s);  // the GPU waits for launches
  price.embedding_s = slowdown * embedding.work.burst_s;
  price.layers_s = slowdown * (layers.work.burst_s + attention.seconds()) + waiting_s;
  price.head_s = slowdown * head.work.burst_s;
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
  operators_.embedding(value(run.tokens), run.in_graph, out);
  operators_.layers(value(run.tokens), run.in_graph, out);
  const Attention attention = step_attention(shape, run);
  const double kv_bytes = kv_token_bytes();
  double kv = 0;
  for (const auto& c : shape.prefill) kv += value(c.past_tokens + c.new_tokens);
  const bool decode = shape.prefill.empty();
  const auto attend = [&](std::string_view name, OperatorClass kind, Price price, double query_pairs,
                          double kv_tokens) {
    out.push_back({name, kind, price.seconds,
                   pair_flops(kind == OperatorClass::decode_attention) * query_pairs * layers_,
                   kv_tokens * kv_bytes * layers_, price.coverage});
  };
  const double decode_kv = value(shape.decode_kv_tokens), both = attention.decode.seconds > 0 ? 0 : decode_kv;
  if (!decode)
    attend("prefill attention", OperatorClass::prefill_attention, attention.prefill, query_pairs(shape) + both,
           kv + both);
  if (attention.decode.seconds > 0)
    attend("decode attention", OperatorClass::decode_attention, attention.decode, decode_kv, decode_kv);
  operators_.head(value(head_rows(shape)), out);
  const double slowdown = decode ? stack.decode_slowdown : stack.prefill_slowdown;
  GpuWork work;
  for (const auto& o : out) work += work_of(o);
  // Each operator loses the same part of what it would under the cap.
  const double lost_s = work.capped_s - work.burst_s;
  const double lost = lost_s > 0 ? (seconds_of(work, nullptr, 0) - work.burst_s) / lost_s : 0;
  double gpu_s = 0;
  for (auto& o : out) {
    o.seconds = slowdown * (o.seconds + lost * (work_of(o).capped_s - o.seconds));
    gpu_s += o.seconds;
  }
  if (run.launch_s > gpu_s)
    out.push_back({"launches", OperatorClass::host, run.launch_s - gpu_s, 0, 0, Coverage::inside});
  if (run.host_s > 0) out.push_back({"host between steps", OperatorClass::host, run.host_s, 0, 0, Coverage::inside});
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
