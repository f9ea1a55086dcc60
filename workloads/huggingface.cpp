// SPDX-License-Identifier: Apache-2.0
#include "workloads/huggingface.hpp"

#include <fmt/format.h>

#include <cmath>
#include <nlohmann/json.hpp>
#include <optional>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

using Json = nlohmann::json;

// One config.json: typed access by key, with errors that name file and key.
class Document {
 public:
  Document(std::string_view text, std::string name) : name_(std::move(name)) {
    root_ = Json::parse(text, nullptr, false);
    if (root_.is_discarded()) throw bad_input(fmt::format("{}: is not valid JSON", name_));
    if (!root_.is_object()) throw bad_input(fmt::format("{}: must be a JSON object, as Hugging Face writes it", name_));
  }

  Error error(std::string_view key, std::string_view message) const {
    return bad_input(fmt::format("{}: {}: {}", name_, key, message));
  }

  // Absent and null are the same: the transformers library writes null where a default holds.
  std::optional<int64_t> find_integer(const char* key, Range<int64_t> range) const {
    const auto found = root_.find(key);
    if (found == root_.end() || found->is_null()) return std::nullopt;
    const bool whole =
        found->is_number_integer() && !(found->is_number_unsigned() && found->get<uint64_t>() > INT64_MAX);
    if (!whole) throw error(key, fmt::format("must be an integer of {} to {}", range.least, range.most));
    const auto value = found->get<int64_t>();
    if (value < range.least || value > range.most)
      throw error(key, fmt::format("{} is outside {} to {}", value, range.least, range.most));
    return value;
  }
  int64_t integer(const char* key, Range<int64_t> range) const {
    if (const auto value = find_integer(key, range)) return *value;
    throw error(key, "is missing");
  }
  int64_t integer(const char* key, Range<int64_t> range, int64_t fallback) const {
    return find_integer(key, range).value_or(fallback);
  }
  // The first of two spellings that is there.
  int64_t integer_of(const char* key, const char* other, Range<int64_t> range) const {
    return root_.contains(key) || !root_.contains(other) ? integer(key, range) : integer(other, range);
  }

  bool boolean(const char* key, bool fallback) const {
    const auto found = root_.find(key);
    if (found == root_.end() || found->is_null()) return fallback;
    if (!found->is_boolean()) throw error(key, "must be true or false");
    return found->get<bool>();
  }

  std::string text(const char* key) const {
    const auto found = root_.find(key);
    if (found == root_.end() || found->is_null()) throw error(key, "is missing");
    if (!found->is_string()) throw error(key, "must be text");
    return found->get<std::string>();
  }

  bool is_empty_list(const char* key) const {
    const auto found = root_.find(key);
    return found == root_.end() || found->is_null() || (found->is_array() && found->empty());
  }

 private:
  std::string name_;
  Json root_;
};

constexpr Range<int64_t> kLayers{1, 10'000}, kWidth{1, 10'000'000}, kHeads{1, 100'000}, kTokens{1, 1'000'000'000};

// Llama and what descends from it: RMSNorm, rotary positions, gated feed-forward, grouped KV heads.
void read_llama_like(const Document& d, Architecture& m) {
  m.layers = d.integer("num_hidden_layers", kLayers);
  m.hidden = d.integer("hidden_size", kWidth);
  m.heads = d.integer("num_attention_heads", kHeads);
  m.kv_heads = d.integer("num_key_value_heads", kHeads, m.heads);
  const auto head_dim = d.find_integer("head_dim", kHeads);
  if (!head_dim && m.hidden % m.heads != 0)
    throw d.error(
        "hidden_size",
        fmt::format("{} is not a multiple of num_attention_heads = {}, and head_dim is missing", m.hidden, m.heads));
  m.head_dim = head_dim.value_or(m.hidden / m.heads);
  m.ffn = d.integer("intermediate_size", kWidth);
  m.vocabulary = d.integer("vocab_size", kTokens);
  m.max_positions = d.integer("max_position_embeddings", kTokens);
  m.tied_embeddings = d.boolean("tie_word_embeddings", false);
  m.attention_bias = d.boolean("attention_bias", false);
}

void read_qwen2(const Document& d, Architecture& m) {
  read_llama_like(d, m);
  m.attention_bias = true;  // fixed in Qwen2's code; its configuration has no key for it
}

void read_qwen3(const Document& d, Architecture& m) {
  read_llama_like(d, m);
  m.head_dim = d.integer("head_dim", kHeads, 128);
  m.qk_norm = true;
}

void read_mixtral(const Document& d, Architecture& m) {
  read_llama_like(d, m);
  m.experts = d.integer("num_local_experts", {1, 100'000});
  m.experts_per_token = d.integer("num_experts_per_tok", {1, 100'000});
}

// Dense layers are modelled where they come first; Qwen's keys put them anywhere.
void refuse_scattered_dense_layers(const Document& d) {
  if (d.integer("decoder_sparse_step", {1, 10'000}, 1) != 1 || !d.is_empty_list("mlp_only_layers"))
    throw d.error("decoder_sparse_step", "dense layers among MoE layers are not modelled");
}

void read_qwen3_moe(const Document& d, Architecture& m) {
  read_qwen3(d, m);
  m.ffn = d.integer("moe_intermediate_size", kWidth);
  m.experts = d.integer("num_experts", {1, 100'000});
  m.experts_per_token = d.integer("num_experts_per_tok", {1, 100'000});
  refuse_scattered_dense_layers(d);
}

void read_qwen2_moe(const Document& d, Architecture& m) {
  read_qwen2(d, m);
  m.ffn = d.integer("moe_intermediate_size", kWidth);
  m.experts = d.integer("num_experts", {1, 100'000});
  m.experts_per_token = d.integer("num_experts_per_tok", {1, 100'000});
  m.shared_ffn = d.integer("shared_expert_intermediate_size", kWidth);
  m.shared_gate = true;
  refuse_scattered_dense_layers(d);
}

// What DeepSeek's three generations share: dense layers first, then experts beside shared ones.
void read_deepseek(const Document& d, Architecture& m) {
  read_llama_like(d, m);
  m.experts = d.integer("n_routed_experts", {0, 100'000}, 0);
  if (!m.is_moe()) return;
  m.dense_layers = d.integer("first_k_dense_replace", {0, 10'000}, 0);
  if (m.dense_layers > 0) m.dense_ffn = m.ffn;  // intermediate_size
  m.ffn = d.integer("moe_intermediate_size", kWidth);
  m.experts_per_token = d.integer("num_experts_per_tok", {1, 100'000});
  m.shared_ffn = d.integer("n_shared_experts", {0, 1000}, 0) * m.ffn;
  if (d.integer("moe_layer_freq", {1, 10'000}, 1) != 1)
    throw d.error("moe_layer_freq", "dense layers among MoE layers are not modelled");
}

// Latent attention. Multi-token prediction modules (num_nextn_predict_layers) are not part of the model as served.
void read_deepseek_v2(const Document& d, Architecture& m) {
  read_deepseek(d, m);
  m.kv_lora_rank = d.integer("kv_lora_rank", kWidth);
  m.q_lora_rank = d.integer("q_lora_rank", {0, kWidth.most}, 0);
  m.qk_nope_head_dim = d.integer("qk_nope_head_dim", kHeads);
  m.qk_rope_head_dim = d.integer("qk_rope_head_dim", kHeads);
  m.v_head_dim = d.integer("v_head_dim", kHeads);
  m.head_dim = m.qk_nope_head_dim + m.qk_rope_head_dim;
  m.kv_heads = m.heads;
}

void read_deepseek_v3(const Document& d, Architecture& m) {
  read_deepseek_v2(d, m);
  m.router_bias = m.is_moe();  // e_score_correction_bias
}

// The GPT-2 generation: LayerNorm, biases everywhere, two feed-forward matrices, every head its own KV.
void set_classic(Architecture& m) {
  m.activation = Activation::plain;
  m.positions = Positions::learned;
  m.tied_embeddings = true;
  m.linear_bias = true;
  m.kv_heads = m.heads;
}

void set_head_dim(const Document& d, Architecture& m, const char* hidden_key) {
  if (m.hidden % m.heads != 0)
    throw d.error(hidden_key, fmt::format("{} is not a multiple of the {} attention heads", m.hidden, m.heads));
  m.head_dim = m.hidden / m.heads;
}

void read_gpt2(const Document& d, Architecture& m) {
  m.layers = d.integer("n_layer", kLayers);
  m.hidden = d.integer("n_embd", kWidth);
  m.heads = d.integer("n_head", kHeads);
  m.ffn = d.integer("n_inner", kWidth, 4 * m.hidden);
  m.vocabulary = d.integer("vocab_size", kTokens);
  m.max_positions = d.integer_of("n_positions", "n_ctx", kTokens);
  set_head_dim(d, m, "n_embd");
  set_classic(m);
  m.tied_embeddings = d.boolean("tie_word_embeddings", true);
}

void read_opt(const Document& d, Architecture& m) {
  m.layers = d.integer("num_hidden_layers", kLayers);
  m.hidden = d.integer("hidden_size", kWidth);
  m.heads = d.integer("num_attention_heads", kHeads);
  m.ffn = d.integer("ffn_dim", kWidth);
  m.vocabulary = d.integer("vocab_size", kTokens);
  m.max_positions = d.integer("max_position_embeddings", kTokens);
  m.extra_positions = 2;  // OPT's position table starts two rows in
  set_head_dim(d, m, "hidden_size");
  set_classic(m);
  m.tied_embeddings = d.boolean("tie_word_embeddings", true);
  if (d.integer("word_embed_proj_dim", kWidth, m.hidden) != m.hidden)
    throw d.error("word_embed_proj_dim", "embeddings of another width than hidden_size are not modelled");
  if (!d.boolean("do_layer_norm_before", true)) throw d.error("do_layer_norm_before", "false is not modelled");
  if (!d.boolean("enable_bias", true)) throw d.error("enable_bias", "false is not modelled");
}

void read_bloom(const Document& d, Architecture& m) {
  m.layers = d.integer_of("n_layer", "num_hidden_layers", kLayers);
  m.hidden = d.integer_of("hidden_size", "n_embed", kWidth);
  m.heads = d.integer_of("n_head", "num_attention_heads", kHeads);
  m.ffn = 4 * m.hidden;
  m.vocabulary = d.integer("vocab_size", kTokens);
  m.max_positions = d.integer("seq_length", kTokens, 2048);  // ALiBi has no table; BLOOM was trained at 2048
  set_head_dim(d, m, "hidden_size");
  set_classic(m);
  m.positions = Positions::alibi;
  m.embedding_norm = true;
}

void read_bert(const Document& d, Architecture& m) {
  if (d.boolean("is_decoder", false)) throw d.error("is_decoder", "BERT as a decoder is not modelled");
  m.family = Family::encoder;
  m.layers = d.integer("num_hidden_layers", kLayers);
  m.hidden = d.integer("hidden_size", kWidth);
  m.heads = d.integer("num_attention_heads", kHeads);
  m.ffn = d.integer("intermediate_size", kWidth);
  m.vocabulary = d.integer("vocab_size", kTokens);
  m.max_positions = d.integer("max_position_embeddings", kTokens);
  m.token_types = d.integer("type_vocab_size", {0, 1000}, 2);
  set_head_dim(d, m, "hidden_size");
  set_classic(m);
  m.embedding_norm = true;
  m.final_norm = false;
  m.pooler = true;
}

struct Reader {
  const char* model_type;
  void (*read)(const Document&, Architecture&);
};
constexpr Reader kReaders[] = {{"llama", read_llama_like},
                               {"mistral", read_llama_like},
                               {"qwen2", read_qwen2},
                               {"qwen3", read_qwen3},
                               {"mixtral", read_mixtral},
                               {"qwen3_moe", read_qwen3_moe},
                               {"gpt2", read_gpt2},
                               {"opt", read_opt},
                               {"bloom", read_bloom},
                               {"bert", read_bert},
                               {"qwen2_moe", read_qwen2_moe},
                               {"deepseek", read_deepseek},
                               {"deepseek_v2", read_deepseek_v2},
                               {"deepseek_v3", read_deepseek_v3},
                               {"kimi_k2", read_deepseek_v3}};

}  // namespace

Architecture parse_huggingface_config(std::string_view json, const std::string& name) {
  const Document document(json, name);
  const std::string type = document.text("model_type");
  std::vector<std::string> known;
  for (const auto& reader : kReaders) {
    known.emplace_back(reader.model_type);
    if (type != reader.model_type) continue;
    Architecture model;
    // Hugging Face keeps one folder a model, so the folder names it where the file is called config.json.
    const std::filesystem::path path(name);
    model.name = path.stem() == "config" && path.has_parent_path() ? path.parent_path().filename().string()
                                                                   : path.stem().string();
    model.title = model.name;
    model.source = name;
    reader.read(document, model);
    if (const std::string problem = architecture_problem(model); !problem.empty())
      throw bad_input(fmt::format("{}: {}", name, problem));
    return model;
  }
  throw document.error("model_type", unknown_name("model_type", type, known));
}

Architecture read_huggingface_config(const std::filesystem::path& path) {
  return parse_huggingface_config(read_file(path), path.string());
}

}  // namespace dssim
