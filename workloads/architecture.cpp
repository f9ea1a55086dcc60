// SPDX-License-Identifier: Apache-2.0
#include "workloads/architecture.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cassert>
#include <cmath>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"
#include "workloads/huggingface.hpp"

namespace dssim {
namespace {

// Bounds of a sane shape: far beyond any published model, and small enough that no product of them overflows a double.
constexpr Range<int64_t> kLayers{1, 10'000}, kWidth{1, 10'000'000}, kHeads{1, 100'000}, kTokens{1, 1'000'000'000};
constexpr Range<int64_t> kAbsentWidth{0, 10'000'000};  // 0 = there is none

double norm_parameters(const Architecture& m) {
  return static_cast<double>(m.linear_bias ? 2 * m.hidden : m.hidden);
}

// One feed-forward of this width.
double ffn_parameters(const Architecture& m, int64_t width) {
  const double hidden = static_cast<double>(m.hidden), ffn = static_cast<double>(width);
  const double inputs = m.activation == Activation::gated ? 2 : 1;
  const double biases = m.linear_bias ? inputs * ffn + hidden : 0;
  return (inputs + 1) * hidden * ffn + biases;
}

// Latent attention: q_a, its norm and q_b (or one q), kv_a with the rotary key, its norm, kv_b, and o.
double latent_attention_parameters(const Architecture& m) {
  const double hidden = static_cast<double>(m.hidden), latent = static_cast<double>(m.kv_lora_rank);
  const double q = static_cast<double>(m.q_width()), q_latent = static_cast<double>(m.q_lora_rank);
  const double expanded = static_cast<double>(m.heads * (m.qk_nope_head_dim + m.v_head_dim));
  const double query = m.q_lora_rank > 0 ? hidden * q_latent + q_latent + q_latent * q : hidden * q;
  return query + hidden * static_cast<double>(m.latent_width()) + latent + latent * expanded +
         static_cast<double>(m.attended_width()) * hidden;
}

double attention_parameters(const Architecture& m) {
  if (m.is_mla()) return latent_attention_parameters(m);
  const double hidden = static_cast<double>(m.hidden);
  const double q = static_cast<double>(m.q_width()), kv = static_cast<double>(m.kv_width());
  double sum = 2 * hidden * q + 2 * hidden * kv;
  if (m.attention_bias || m.linear_bias) sum += q + 2 * kv;
  if (m.linear_bias) sum += hidden;
  if (m.qk_norm) sum += 2 * static_cast<double>(m.head_dim);
  return sum;
}

// A layer with so many of its experts: attention and norms, router, shared experts.
double layer_with_experts(const Architecture& m, LayerKind kind, int64_t experts) {
  const double common = attention_parameters(m) + 2 * norm_parameters(m);
  if (kind == LayerKind::dense) return common + ffn_parameters(m, m.ffn_of(kind));
  double router = static_cast<double>(m.hidden * m.experts);
  if (m.router_bias) router += static_cast<double>(m.experts);
  double shared = m.shared_ffn > 0 ? ffn_parameters(m, m.shared_ffn) : 0;
  if (m.shared_gate) shared += static_cast<double>(m.hidden);
  return common + router + shared + static_cast<double>(experts) * ffn_parameters(m, m.ffn);
}

// Embeddings, final norm, pooler; the output head apart.
double outer_parameters(const Architecture& m) {
  const double hidden = static_cast<double>(m.hidden);
  double rows = static_cast<double>(m.vocabulary + m.token_types);
  if (m.positions == Positions::learned) rows += static_cast<double>(m.max_positions + m.extra_positions);
  double sum = rows * hidden;
  if (m.embedding_norm) sum += norm_parameters(m);
  if (m.final_norm) sum += norm_parameters(m);
  if (m.pooler) sum += hidden * hidden + hidden;
  return sum;
}

double head_parameters(const Architecture& m) {
  return m.is_encoder() ? 0.0 : static_cast<double>(m.vocabulary) * static_cast<double>(m.hidden);
}

template <typename Enum>
Enum read_enum(const Config& file, std::string_view key, const std::vector<std::string>& names, Enum fallback) {
  const std::string name = file.choice(key, names, names[static_cast<size_t>(fallback)]);
  return static_cast<Enum>(std::find(names.begin(), names.end(), name) - names.begin());
}

Precision read_precision(const Config& model, std::string_view key, Precision fallback) {
  const auto names = precision_names();
  const std::string name = model.choice(key, names, name_of(fallback));
  return static_cast<Precision>(std::find(names.begin(), names.end(), name) - names.begin());
}

std::filesystem::path models_folder() {
  return data_root() / "workloads/models";
}

}  // namespace

double Architecture::layer_parameters(LayerKind kind) const {
  return layer_with_experts(*this, kind, experts);
}

double Architecture::active_layer_parameters(LayerKind kind) const {
  return layer_with_experts(*this, kind, experts_per_token);
}

double Architecture::parameters() const {
  double sum = outer_parameters(*this) + (tied_embeddings ? 0.0 : head_parameters(*this));
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe})
    sum += static_cast<double>(layers_of(kind)) * layer_parameters(kind);
  return sum;
}

double Architecture::active_parameters() const {
  double sum = static_cast<double>(hidden) + head_parameters(*this);
  for (const LayerKind kind : {LayerKind::dense, LayerKind::moe})
    sum += static_cast<double>(layers_of(kind)) * active_layer_parameters(kind);
  return sum;
}

namespace {

std::string experts_problem(const Architecture& m) {
  if (m.is_moe() && (m.experts_per_token < 1 || m.experts_per_token > m.experts))
    return fmt::format("experts_per_token: {} is outside 1 to experts = {}", m.experts_per_token, m.experts);
  if (m.is_moe() && m.dense_layers >= m.layers)
    return fmt::format("dense_layers: {} of {} layers leave none with experts", m.dense_layers, m.layers);
  if ((m.dense_layers > 0) != (m.dense_ffn > 0)) return "dense_ffn: goes with dense_layers";
  if (m.shared_gate && m.shared_ffn == 0) return "shared_gate: needs shared_ffn";
  if (m.is_moe()) return "";
  if (m.experts_per_token != 0) return "experts_per_token: needs experts";
  if (m.dense_layers != 0) return "dense_layers: needs experts";
  if (m.shared_ffn != 0) return "shared_ffn: needs experts";
  if (m.router_bias) return "router_bias: needs experts";
  return "";
}

std::string latent_problem(const Architecture& m) {
  const auto all = {m.qk_nope_head_dim, m.qk_rope_head_dim, m.v_head_dim};
  if (!m.is_mla()) {
    const bool stray = m.q_lora_rank != 0 || std::any_of(all.begin(), all.end(), [](int64_t d) { return d != 0; });
    return stray ? "kv_lora_rank: is missing; q_lora_rank and the head's parts belong to latent attention" : "";
  }
  if (std::any_of(all.begin(), all.end(), [](int64_t d) { return d == 0; }))
    return "kv_lora_rank: latent attention needs qk_nope_head_dim, qk_rope_head_dim and v_head_dim";
  if (m.head_dim != m.qk_nope_head_dim + m.qk_rope_head_dim)
    return fmt::format("head_dim: {} is not qk_nope_head_dim + qk_rope_head_dim = {}", m.head_dim,
                       m.qk_nope_head_dim + m.qk_rope_head_dim);
  if (m.kv_heads != m.heads)
    return fmt::format("kv_heads: {} is not heads = {}, as latent attention has it", m.kv_heads, m.heads);
  if (m.attention_bias || m.linear_bias || m.qk_norm || m.is_encoder() || m.positions != Positions::rotary)
    return "kv_lora_rank: latent attention is modelled without biases and head norms, in decoders with rotary "
           "positions";
  return "";
}

}  // namespace

std::string architecture_problem(const Architecture& m) {
  if (m.heads % m.kv_heads != 0) return fmt::format("kv_heads: {} does not divide heads = {}", m.kv_heads, m.heads);
  if (const std::string problem = experts_problem(m); !problem.empty()) return problem;
  if (const std::string problem = latent_problem(m); !problem.empty()) return problem;
  if (!std::isfinite(m.parameters()) || m.parameters() > 1e15)
    return fmt::format("hidden: this shape has {:.3g} parameters, more than any machine holds", m.parameters());
  return "";
}

std::vector<std::string> model_names() {
  return names_in(models_folder(), ".toml");
}

Architecture load_model(const std::string& name) {
  const auto names = model_names();
  if (std::find(names.begin(), names.end(), name) == names.end()) throw bad_input(unknown_name("model", name, names));
  Architecture model = read_model_file(Config::load((models_folder() / (name + ".toml")).string()));
  model.name = name;
  return model;
}

Architecture read_model_file(const Config& file) {
  Architecture m;
  m.name = std::filesystem::path(file.file()).stem().string();
  m.title = file.text("title");
  m.source = file.text("source");
  m.family = read_enum(file, "family", {"decoder", "encoder"}, Family::decoder);
  m.layers = file.integer("layers", kLayers);
  m.hidden = file.integer("hidden", kWidth);
  m.heads = file.integer("heads", kHeads);
  m.kv_heads = file.integer("kv_heads", kHeads, m.heads);
  m.kv_lora_rank = file.integer("kv_lora_rank", kAbsentWidth, 0);
  m.q_lora_rank = file.integer("q_lora_rank", kAbsentWidth, 0);
  m.qk_nope_head_dim = file.integer("qk_nope_head_dim", kAbsentWidth, 0);
  m.qk_rope_head_dim = file.integer("qk_rope_head_dim", kAbsentWidth, 0);
  m.v_head_dim = file.integer("v_head_dim", kAbsentWidth, 0);
  m.head_dim = m.is_mla() ? file.integer("head_dim", kHeads, m.qk_nope_head_dim + m.qk_rope_head_dim)
                          : file.integer("head_dim", kHeads);
  m.ffn = file.integer("ffn", kWidth);
  m.vocabulary = file.integer("vocabulary", kTokens);
  m.max_positions = file.integer("max_positions", kTokens);
  m.extra_positions = file.integer("extra_positions", {0, 1'000'000}, 0);
  m.activation = read_enum(file, "activation", {"gated", "plain"}, Activation::gated);
  m.positions = read_enum(file, "positions", {"rotary", "learned", "alibi"}, Positions::rotary);
  m.tied_embeddings = file.boolean("tied_embeddings", false);
  m.attention_bias = file.boolean("attention_bias", false);
  m.linear_bias = file.boolean("linear_bias", false);
  m.qk_norm = file.boolean("qk_norm", false);
  m.embedding_norm = file.boolean("embedding_norm", false);
  m.final_norm = file.boolean("final_norm", true);
  m.experts = file.integer("experts", {0, 100'000}, 0);
  m.experts_per_token = file.integer("experts_per_token", {0, 100'000}, 0);
  m.shared_ffn = file.integer("shared_ffn", kAbsentWidth, 0);
  m.shared_gate = file.boolean("shared_gate", false);
  m.router_bias = file.boolean("router_bias", false);
  m.dense_layers = file.integer("dense_layers", {0, 10'000}, 0);
  m.dense_ffn = file.integer("dense_ffn", kAbsentWidth, 0);
  m.token_types = file.integer("token_types", {0, 1000}, 0);
  m.pooler = file.boolean("pooler", false);
  if (const std::string problem = architecture_problem(m); !problem.empty()) {
    const auto colon = problem.find(": ");
    throw file.error(problem.substr(0, colon), problem.substr(colon + 2));
  }

  // A figure mistyped in the shape shows here, since the published total is written beside it.
  const double rounding = file.number("parameters_rounding", {0, 1e15}, 0);
  if (const auto published = file.find_number("parameters", {1, 1e15});
      published && std::abs(m.parameters() - *published) > rounding)
    throw file.error("parameters",
                     fmt::format("the file says {:.0f}, but its shape has {:.0f}", *published, m.parameters()));
  file.finish();
  return m;
}

ModelChoice read_model(const Config& model, const std::filesystem::path& base_folder) {
  ModelChoice choice;
  const auto name = model.find_text("name");
  const auto config = model.find_text("config");
  if (name && config) throw model.error("config", "give either name or config, not both");
  if (!name && !config)
    throw model.error("name",
                      "is missing; name a model (dssim catalogue models) or give config = \"path/config.json\"");
  if (config) {
    choice.architecture = read_huggingface_config(base_folder / *config);
  } else {
    const auto names = model_names();
    if (std::find(names.begin(), names.end(), *name) == names.end())
      throw model.error("name", unknown_name("model", *name, names));
    choice.architecture = load_model(*name);
  }
  choice.weights = read_precision(model, "weights", Precision::bf16);
  const bool wide =
      choice.weights == Precision::fp32 || choice.weights == Precision::tf32 || choice.weights == Precision::fp64;
  choice.kv_cache = read_precision(model, "kv_cache", wide ? Precision::fp32 : Precision::bf16);
  return choice;
}

ParallelProblem parallel_problem(const Architecture& m, int64_t tensor_parallel, int64_t pipeline_parallel,
                                 int64_t expert_parallel) {
  const std::string who = m.title.empty() ? m.name : m.title;
  const auto problem = [](const char* key, std::string message) { return ParallelProblem{key, std::move(message)}; };
  const int64_t tp = tensor_parallel, pp = pipeline_parallel, ep = expert_parallel;
  for (const auto& [key, degree] :
       {std::pair{"tensor_parallel", tp}, {"pipeline_parallel", pp}, {"expert_parallel", ep}})
    if (degree < 1) return problem(key, fmt::format("{} is not a degree; write 1 or more", degree));
  if (m.heads % tp != 0)
    return problem("tensor_parallel", fmt::format("{} does not divide the {} attention heads of {}", tp, m.heads, who));
  if (m.kv_heads % tp != 0 && tp % m.kv_heads != 0)
    return problem("tensor_parallel", fmt::format("{} neither divides the {} KV heads of {} nor is a multiple of them",
                                                  tp, m.kv_heads, who));
  for (const int64_t width : {m.ffn, m.dense_ffn, m.shared_ffn})
    if (width % tp != 0)
      return problem("tensor_parallel",
                     fmt::format("{} does not divide the feed-forward width {} of {}", tp, width, who));
  if (pp > m.layers)
    return problem("pipeline_parallel", fmt::format("{} stages are more than the {} layers of {}", pp, m.layers, who));
  if (ep == 1) return {};
  if (!m.is_moe()) return problem("expert_parallel", fmt::format("{} has no experts; write 1", who));
  if (m.experts % ep != 0)
    return problem("expert_parallel", fmt::format("{} does not divide the {} experts of {}", ep, m.experts, who));
  if (tp % ep != 0)
    return problem("expert_parallel",
                   fmt::format("{} does not divide tensor_parallel = {}: experts are spread over the GPUs of "
                               "one pipeline stage",
                               ep, tp));
  return {};
}

std::vector<int64_t> layers_by_stage(int64_t layers, int64_t stages) {
  assert(stages >= 1 && stages <= layers);
  std::vector<int64_t> by_stage(static_cast<size_t>(stages), layers / stages);
  for (int64_t i = 0; i < layers % stages; ++i) ++by_stage[static_cast<size_t>(stages - 2 - i)];
  return by_stage;
}

int64_t vocabulary_per_gpu(const Architecture& m, int64_t tensor_parallel) {
  const int64_t padded = (m.vocabulary + 63) / 64 * 64;
  return (padded + tensor_parallel - 1) / tensor_parallel;
}

int64_t kv_heads_per_gpu(const Architecture& m, int64_t tensor_parallel) {
  return std::max<int64_t>(1, m.kv_heads / tensor_parallel);
}

double kv_values_per_gpu(const Architecture& m, int64_t tensor_parallel) {
  if (m.is_mla() || m.is_encoder()) return m.kv_values_per_layer();
  return 2.0 * static_cast<double>(kv_heads_per_gpu(m, tensor_parallel) * m.head_dim);
}

}  // namespace dssim
