// SPDX-License-Identifier: Apache-2.0
#include "workloads/memory_plan.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "sim/base/units.hpp"

namespace dssim {
namespace {

struct Stage {
  int64_t layers, dense_layers;
  bool first, last;  // has the embedding; has the output head
};

double as_double(int64_t value) {
  return static_cast<double>(value);
}

// Activations, embeddings, norms and biases stay in 16 bits when the linear layers are quantised (AWQ, GPTQ and FP8
// checkpoints do so); only a model served in 32 or 64 bits is wide throughout.
double unquantised_bytes(Precision weights) {
  return std::max(2.0, bytes_of(weights));
}

// Bytes of one linear weight, its group's scale included: int4 in groups of 128 with a 16-bit scale and a 4-bit zero
// point (AWQ, GPTQ); fp4 in groups of 16 with an 8-bit scale (NVFP4).
double linear_weight_bytes(Precision weights) {
  if (weights == Precision::int4) return 0.5 + 2.0 / 128 + 0.5 / 128;
  if (weights == Precision::fp4) return 0.5 + 1.0 / 16;
  return bytes_of(weights);
}

// 8-bit formats keep one fp32 scale for each output channel (compressed-tensors' W8A8 and FP8 checkpoints).
double channel_scale_bytes(Precision weights) {
  return weights == Precision::int8 || weights == Precision::fp8 ? 4.0 : 0.0;
}

// A linear layer's share: weights and scales over `degree` GPUs.
double linear_bytes(double inputs, double outputs, double degree, Precision weights) {
  return (inputs * outputs * linear_weight_bytes(weights) + outputs * channel_scale_bytes(weights)) / degree;
}

double norm_values(const Architecture& m) {
  return as_double(m.linear_bias ? 2 * m.hidden : m.hidden);
}

// Latent attention on one GPU. The projections down to the latents and their norms serve every head, so each GPU has
// them whole; those up to the heads, and o, are cut by heads. Decode multiplies by kv_b's two halves apart, in 16 bits:
// where the weights are quantised, vLLM keeps that copy beside the original (process_weights_after_loading in
// vllm/model_executor/layers/attention/mla_attention.py, 0.14).
double latent_attention_bytes(const Architecture& m, const Deployment& d) {
  const double tp = as_double(d.tensor_parallel), hidden = as_double(m.hidden), q = as_double(m.q_width());
  const double q_latent = as_double(m.q_lora_rank), latent = as_double(m.kv_lora_rank);
  const double expanded = as_double(m.heads * (m.qk_nope_head_dim + m.v_head_dim));
  double linear = linear_bytes(hidden, as_double(m.latent_width()), 1, d.weights) +
                  linear_bytes(latent, expanded, tp, d.weights) +
                  linear_bytes(as_double(m.attended_width()), hidden, tp, d.weights);
  linear += m.q_lora_rank > 0 ? linear_bytes(hidden, q_latent, 1, d.weights) + linear_bytes(q_latent, q, tp, d.weights)
                              : linear_bytes(hidden, q, tp, d.weights);
  double values = latent + q_latent;  // the norms
  if (bytes_of(d.weights) < 2) values += latent * expanded / tp;
  return linear + values * unquantised_bytes(d.weights);
}

double attention_bytes(const Architecture& m, const Deployment& d) {
  if (m.is_mla()) return latent_attention_bytes(m, d);
  const double tp = as_double(d.tensor_parallel), hidden = as_double(m.hidden), q = as_double(m.q_width());
  const double kv = as_double(kv_heads_per_gpu(m, d.tensor_parallel) * m.head_dim);  // of this GPU: may be replicated
  const double linear = linear_bytes(hidden, q, tp, d.weights) + 2 * linear_bytes(hidden, kv, 1, d.weights) +
                        linear_bytes(q, hidden, tp, d.weights);
  double values = 0;
  if (m.attention_bias || m.linear_bias) values += q / tp + 2 * kv;
  if (m.linear_bias) values += hidden;
  if (m.qk_norm) values += 2 * as_double(m.head_dim);
  return linear + values * unquantised_bytes(d.weights);
}

// One feed-forward of this width, cut over tensor_parallel.
double ffn_bytes(const Architecture& m, const Deployment& d, int64_t ffn) {
  const double tp = as_double(d.tensor_parallel), hidden = as_double(m.hidden), width = as_double(ffn);
  const double inputs = m.activation == Activation::gated ? 2 : 1;
  const double biases = m.linear_bias ? inputs * width / tp + hidden : 0;
  return inputs * linear_bytes(hidden, width, tp, d.weights) + linear_bytes(width, hidden, tp, d.weights) +
         biases * unquantised_bytes(d.weights);
}

// One layer on one GPU. Experts are either cut like any matrix (tensor parallel) or spread whole over expert_parallel
// GPUs with each cut over the rest; the bytes are the same. Shared experts are cut over tensor_parallel. Norms, the
// router and the biases of row-cut matrices are replicated.
double layer_bytes(const Architecture& m, const Deployment& d, LayerKind kind) {
  double values = 2 * norm_values(m);
  double bytes = attention_bytes(m, d);
  if (kind == LayerKind::dense) {
    bytes += ffn_bytes(m, d, m.ffn_of(kind));
  } else {
    bytes += as_double(m.experts) * ffn_bytes(m, d, m.ffn);
    if (m.shared_ffn > 0) bytes += ffn_bytes(m, d, m.shared_ffn);
    values += as_double((m.hidden + (m.router_bias ? 1 : 0)) * m.experts + (m.shared_gate ? m.hidden : 0));
  }
  return bytes + values * unquantised_bytes(d.weights);
}

// The rotary table of sines and cosines is stored for every position (vLLM keeps one, in the model's 16-bit type): with
// it Llama-3.1-8B weighs 14.989 GiB, as vLLM logs it.
double stage_weight_bytes(const Architecture& m, const Deployment& d, Stage stage) {
  const double hidden = as_double(m.hidden);
  const double vocabulary = as_double(vocabulary_per_gpu(m, d.tensor_parallel)) * hidden;
  double values = 0;
  if (stage.first) {
    values += vocabulary + as_double(m.token_types) * hidden;
    if (m.positions == Positions::learned) values += as_double(m.max_positions + m.extra_positions) * hidden;
    if (m.embedding_norm) values += norm_values(m);
  }
  if (stage.last) {
    const bool own_head = !m.is_encoder() && !(m.tied_embeddings && stage.first);
    if (own_head) values += vocabulary;
    if (m.final_norm) values += norm_values(m);
    if (m.pooler) values += hidden * hidden + hidden;
  }
  if (m.positions == Positions::rotary)
    values += as_double(m.max_positions * (m.is_mla() ? m.qk_rope_head_dim : m.head_dim));
  double layers = as_double(stage.dense_layers) * layer_bytes(m, d, LayerKind::dense);
  if (m.is_moe()) layers += as_double(stage.layers - stage.dense_layers) * layer_bytes(m, d, LayerKind::moe);
  return layers + values * unquantised_bytes(d.weights);
}

// Forward pass over max_batched_tokens T. At its widest point, the feed-forward, each token holds the up (and gate)
// projection, its activated product, and three vectors of the hidden width (residual, normed input, output); in the
// attention q, k, v, its result and the same three. A fused MoE holds these for each of the token's experts, and their
// outputs. Measured: vLLM 0.6.4 on Llama-3.1-8B peaked at 17.06 GiB with T = 20,000 and 17.98 GiB with T = 29,000 (vllm
// issue 10517), 109.8 kB a token; this formula gives 110.6 kB.
//
// Latent attention holds the two latents, its heads' queries, their keys and values as kv_b writes them, the keys again
// with the rotary part, and the result; and it expands a long past in pieces, which vLLM's profile run reserves: kv_b's
// output for 64 Ki tokens, or eight of the longest prompts if that is less (determine_chunked_prefill_workspace_size in
// the file named above). The output of shared experts waits while the others run.
constexpr int64_t kExpandedPastTokens = 65'536;

double forward_bytes(const Architecture& m, const Deployment& d) {
  const double tp = as_double(d.tensor_parallel), hidden = as_double(m.hidden),
               tokens = as_double(d.max_batched_tokens);
  double feed_forward = 0, past = 0;
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe}) {
    if (m.layers_of(kind) == 0) continue;
    const double ffn = as_double(m.ffn_of(kind)) / tp, projected = (m.activation == Activation::gated ? 2 : 1) * ffn;
    const double routed = as_double(m.experts_per_token) * (std::max(projected, hidden) + ffn);
    const double waiting = m.shared_ffn > 0 ? hidden : 0;
    feed_forward = std::max(feed_forward, kind == LayerKind::moe ? routed + waiting : projected + ffn);
  }
  const double q = as_double(m.q_width()) / tp, kv = as_double(kv_heads_per_gpu(m, d.tensor_parallel) * m.head_dim);
  double attention = 2 * q + 2 * kv;
  if (m.is_mla()) {
    const double heads = as_double(m.heads) / tp, expanded = heads * as_double(m.qk_nope_head_dim + m.v_head_dim);
    attention = as_double(m.q_lora_rank + m.latent_width()) + 2 * q + expanded + as_double(m.attended_width()) / tp;
    past = as_double(std::min(kExpandedPastTokens, 8 * m.max_positions)) * expanded;
  }
  return (tokens * (std::max(feed_forward, attention) + 3 * hidden) + past) * unquantised_bytes(d.weights);
}

// Sampling max_sequences rows of the whole vocabulary (every GPU of the last stage gathers them): fp32 logits, and the
// sort for top-k and top-p with its 64-bit indices and scratch, 9.8 times the fp32 logits in all; the pass's output
// still held. Measured: vLLM 0.6.4 on Llama-3-8B, H100, 256 sequences, T = 8192: peak 1.26 GiB at TP 1 and at TP 2
// (vllm pull 10511), which is 9.8 once the 64 MiB of output are taken off. The same operations in PyTorch 2.11 on an
// H100 peak at 9.96.
constexpr double kSamplerCopies = 9.8;

double sampler_bytes(const Architecture& m, const Deployment& d) {
  if (m.is_encoder()) return 0;
  const double rows = as_double(std::min(d.max_sequences, d.max_batched_tokens));
  return kSamplerCopies * rows * as_double(m.vocabulary) * 4 +
         as_double(d.max_batched_tokens * m.hidden) * unquantised_bytes(d.weights);
}

std::vector<StageMemory> stage_memory(const Architecture& m, const Deployment& d) {
  const double kv_of_a_layer = kv_values_per_gpu(m, d.tensor_parallel) * bytes_of(d.kv_cache);
  const double forward = forward_bytes(m, d), sampler = sampler_bytes(m, d);
  const std::vector<int64_t> layers = stage_layers(m, d);
  int64_t dense_left = m.layers_of(LayerKind::dense);
  std::vector<StageMemory> stages;
  for (size_t i = 0; i < layers.size(); ++i) {
    const Stage stage{layers[i], std::min(layers[i], dense_left), i == 0, i + 1 == layers.size()};
    dense_left -= stage.dense_layers;
    stages.push_back({stage.layers, stage_weight_bytes(m, d, stage), stage.last ? std::max(forward, sampler) : forward,
                      as_double(stage.layers) * kv_of_a_layer});
  }
  return stages;
}

int64_t blocks_for(int64_t tokens, int64_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

}  // namespace

std::vector<int64_t> stage_layers(const Architecture& m, const Deployment& d) {
  return d.pipeline_partition.empty() ? layers_by_stage(m.layers, d.pipeline_parallel) : d.pipeline_partition;
}

MemoryPlan plan_memory(const Architecture& m, const Deployment& d, double gpu_bytes, const StackMemory& stack) {
  MemoryPlan plan;
  plan.gpu_bytes = gpu_bytes;
  plan.context_bytes = stack.context_bytes;
  plan.graphs_bytes = stack.graphs_bytes;
  plan.communication_bytes = d.gpus() > 1 ? stack.communication_bytes : 0;
  // vLLM's budget covers what it allocates itself; the context and the graphs come on top, in what the fraction leaves
  // free.
  plan.budget_bytes =
      std::max(0.0, std::min(gpu_bytes * d.gpu_memory_fraction, gpu_bytes - plan.context_bytes - plan.graphs_bytes));
  plan.stages = stage_memory(m, d);
  // A measured capacity is believed; all that can still be wrong is that the weights alone are too big.
  plan.kv_given = d.kv_tokens && !m.is_encoder();
  const double given = plan.kv_given ? as_double(*d.kv_tokens / d.kv_block_tokens) : 0;
  const double needed = as_double(blocks_for(std::max<int64_t>(1, d.context_tokens), d.kv_block_tokens));

  // The fullest stage: where the most is missing, else where the fewest blocks find room.
  double fewest = std::numeric_limits<double>::infinity(), block_bytes = 0;
  for (const StageMemory& stage : plan.stages) {
    const double block = stage.kv_bytes_per_token * as_double(d.kv_block_tokens);
    const double room = plan.budget_bytes - stage.weights_bytes - stage.activation_bytes - plan.communication_bytes;
    const double missing =
        plan.kv_given ? std::max(stage.weights_bytes - gpu_bytes, (needed - given) * block) : needed * block - room;
    const double blocks = block > 0 ? room / block : room;  // an encoder keeps none
    const bool fuller = missing > 0 || plan.shortfall_bytes > 0 ? missing > plan.shortfall_bytes : blocks < fewest;
    if (!fuller) continue;
    plan.shortfall_bytes = std::max(0.0, missing);
    fewest = blocks;
    block_bytes = block;
    plan.weights_bytes = stage.weights_bytes;
    plan.activation_bytes = stage.activation_bytes;
    plan.kv_bytes_per_token = stage.kv_bytes_per_token;
  }
  plan.fits = plan.shortfall_bytes == 0;
  if (m.is_encoder()) return plan;
  plan.kv_blocks = static_cast<int64_t>(plan.kv_given ? given : std::clamp(fewest, 0.0, 1e15));
  plan.kv_tokens = plan.kv_blocks * d.kv_block_tokens;
  plan.kv_bytes = as_double(plan.kv_blocks) * block_bytes;
  return plan;
}

int64_t max_concurrency(int64_t kv_tokens, int64_t kv_block_tokens, int64_t context_tokens) {
  return kv_tokens / kv_block_tokens / blocks_for(std::max<int64_t>(1, context_tokens), kv_block_tokens);
}

namespace {

struct Search {
  const Architecture& model;
  double gpu_bytes;
  const StackMemory& stack;

  bool fits(const Deployment& d) const { return fits_in(d, gpu_bytes); }
  bool fits_in(const Deployment& d, double bytes) const { return plan_memory(model, d, bytes, stack).fits; }
  std::string left(const Deployment& d) const {
    const MemoryPlan plan = plan_memory(model, d, gpu_bytes, stack);
    return model.is_encoder() ? "" : fmt::format(" ({} KV tokens)", format_count(as_double(plan.kv_tokens)));
  }
};

void fewer_bits(const Search& search, const Deployment& d, std::vector<std::string>& lines) {
  for (const Precision format : {Precision::bf16, Precision::fp8, Precision::int4}) {
    Deployment other = d;
    other.weights = format;
    if (linear_weight_bytes(format) >= linear_weight_bytes(d.weights) || !search.fits(other)) continue;
    const char* same_size = format == Precision::fp8 ? " or \"int8\"" : "";
    lines.push_back(fmt::format("weights = \"{}\"{}{}", name_of(format), same_size, search.left(other)));
  }
  Deployment other = d;
  other.kv_cache = Precision::fp8;
  if (!search.model.is_encoder() && bytes_of(d.kv_cache) > 1 && search.fits(other))
    lines.push_back(fmt::format("kv_cache = \"fp8\"{}", search.left(other)));
}

void smaller_steps(const Search& search, const Deployment& d, std::vector<std::string>& lines) {
  for (int64_t tokens = d.max_batched_tokens / 2; tokens >= 256; tokens /= 2) {
    Deployment other = d;
    other.max_batched_tokens = tokens;
    if (!search.fits(other)) continue;
    lines.push_back(fmt::format("max_batched_tokens = {}{}", tokens, search.left(other)));
    break;
  }
  for (int64_t sequences = d.max_sequences / 2; sequences >= 1; sequences /= 2) {
    Deployment other = d;
    other.max_sequences = sequences;
    if (!search.fits(other)) continue;
    lines.push_back(fmt::format("max_sequences = {}{}", sequences, search.left(other)));
    break;
  }
  if (d.context_tokens > d.kv_block_tokens) {
    Deployment other = d;
    other.context_tokens = 0;
    other.kv_tokens.reset();
    const int64_t tokens = plan_memory(search.model, other, search.gpu_bytes, search.stack).kv_tokens;
    if (tokens > 0) lines.push_back(fmt::format("requests of at most {} tokens, answer included", tokens));
  }
  for (const double fraction : {0.92, 0.95, 0.97}) {
    Deployment other = d;
    other.gpu_memory_fraction = fraction;
    if (fraction <= d.gpu_memory_fraction || !search.fits(other)) continue;
    lines.push_back(fmt::format("gpu_memory_fraction = {}{}", fraction, search.left(other)));
    break;
  }
}

// The fewest pipeline stages that do, and with them the least tensor parallelism, in equal parts of a node. Stages of
// equal depth, or dealt as the deployment says; with `uneven` any number, dealt as vLLM does.
std::optional<Deployment> fewest_stages(const Search& search, const Deployment& d, int64_t gpus_per_node, bool uneven) {
  // Degrees beyond this are no remedy that anybody would buy, and the search stays instant.
  constexpr int64_t kMostGpus = 4096;
  for (int64_t pp = 1; pp <= std::min(search.model.layers, kMostGpus); ++pp) {
    const bool partitioned = pp == d.pipeline_parallel && !d.pipeline_partition.empty();
    if (search.model.layers % pp != 0 && !partitioned && !uneven) continue;
    for (int64_t tp = d.tensor_parallel; tp <= gpus_per_node; ++tp) {
      Deployment other = d;
      other.tensor_parallel = tp;
      other.pipeline_parallel = pp;
      if (pp != d.pipeline_parallel) other.pipeline_partition.clear();
      if (search.model.layers % pp != 0 && !partitioned)
        other.pipeline_partition = layers_by_stage(search.model.layers, pp);
      if (gpus_per_node % tp != 0 || other.gpus() <= d.gpus() || other.gpus() > kMostGpus) continue;
      if (parallel_problem(search.model, tp, pp, d.expert_parallel) || !search.fits(other)) continue;
      return other;
    }
  }
  return {};
}

// Stages of unequal depth only where equal ones would take at least twice the GPUs: 61 layers have no divisor.
void more_gpus(const Search& search, const Deployment& d, const RemedyOptions& options,
               std::vector<std::string>& lines) {
  auto best = fewest_stages(search, d, options.gpus_per_node, false);
  if (const auto uneven = fewest_stages(search, d, options.gpus_per_node, true);
      uneven && (!best || 2 * uneven->gpus() <= best->gpus()))
    best = uneven;
  if (!best) return;
  std::string line = fmt::format("tensor_parallel = {}", best->tensor_parallel);
  if (best->pipeline_parallel > 1) line += fmt::format(", pipeline_parallel = {}", best->pipeline_parallel);
  if (best->pipeline_partition != d.pipeline_partition && !best->pipeline_partition.empty())
    line += fmt::format(", pipeline_partition = [{}]", fmt::join(best->pipeline_partition, ", "));
  line += fmt::format(": {} × {}{}", best->gpus(), options.gpu, search.left(*best));
  if (best->gpus() > options.gpus) line += fmt::format("; the cluster has {}", options.gpus);
  lines.push_back(line);
}

void other_gpus(const Search& search, const Deployment& d, const RemedyOptions& options,
                std::vector<std::string>& lines) {
  std::vector<GpuOption> candidates = options.catalogue;
  std::erase_if(candidates, [&](const GpuOption& gpu) {
    return gpu.name == options.gpu || gpu.memory_bytes <= search.gpu_bytes || !search.fits_in(d, gpu.memory_bytes);
  });
  if (candidates.empty()) return;
  std::sort(candidates.begin(), candidates.end(), [](const GpuOption& a, const GpuOption& b) {
    return a.memory_bytes != b.memory_bytes ? a.memory_bytes < b.memory_bytes : a.name < b.name;
  });
  std::string line = candidates.size() == 1 ? "another GPU: " : "another GPU, the smallest that do: ";
  for (size_t i = 0; i < std::min<size_t>(3, candidates.size()); ++i)
    line += fmt::format("{}{} ({})", i == 0 ? "" : ", ", candidates[i].name, format_bytes(candidates[i].memory_bytes));
  lines.push_back(line);
}

}  // namespace

std::vector<std::string> memory_remedies(const Architecture& model, const Deployment& deployment, double gpu_bytes,
                                         const StackMemory& stack, const RemedyOptions& options) {
  Deployment planned = deployment;
  planned.kv_tokens.reset();  // a capacity measured on this deployment says nothing about another
  const Search search{model, gpu_bytes, stack};
  std::vector<std::string> lines;
  smaller_steps(search, planned, lines);
  fewer_bits(search, planned, lines);
  more_gpus(search, planned, options, lines);
  other_gpus(search, planned, options, lines);
  return lines;
}

}  // namespace dssim
