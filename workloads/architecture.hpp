// SPDX-License-Identifier: Apache-2.0
#pragma once

// The shape of a transformer, as far as time and memory depend on it. Read from workloads/models/<name>.toml or from a
// Hugging Face config.json (workloads/huggingface.hpp). Counts are whole-model counts, before any parallel split.
//
// Parameters are counted matrix by matrix, biases and norms included; tests hold them against the published totals.
// A layer is of one of two kinds: a dense model has dense ones only, an MoE has `dense_layers` dense ones, then MoE ones.
//
// Latent attention (MLA, DeepSeek-V2): a token's keys and values are kept as one latent vector of kv_lora_rank values,
// from which kv_b makes each head's, and one rotary key of qk_rope_head_dim values that all heads share. The KV cache
// holds these two, the same for every GPU of a tensor-parallel group. `kv_heads` is then `heads`, and `head_dim` the
// width of a head's query and key, qk_nope_head_dim + qk_rope_head_dim.
// Errors: an unknown name or a shape that makes no sense is bad_input, naming file and key.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "platforms/precision.hpp"
#include "sim/base/config.hpp"

namespace dssim {

enum class Activation { gated, plain };  // gated: SwiGLU or GeGLU, three FFN matrices; plain: GELU or ReLU, two
enum class Positions { rotary, learned, alibi };  // learned positions are stored parameters; the others are computed
enum class Family { decoder, encoder };           // an encoder only prefills (BERT)
enum class LayerKind { dense, moe };

struct Architecture {
  std::string name;    // "llama-3-8b"
  std::string title;   // "Llama 3 8B"
  std::string source;  // where the shape was published
  Family family = Family::decoder;
  int64_t layers = 0, hidden = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t ffn = 0;  // width of the feed-forward (of one expert, in an MoE)
  int64_t vocabulary = 0;
  int64_t max_positions = 0;
  int64_t extra_positions = 0;  // learned position rows stored beyond max_positions (OPT keeps two)
  Activation activation = Activation::gated;
  Positions positions = Positions::rotary;
  bool tied_embeddings = false;  // the output head is the embedding matrix
  bool attention_bias = false;   // biases of the q, k and v projections (Qwen2)
  bool linear_bias = false;      // biases of every linear layer and LayerNorm instead of RMSNorm (GPT-3, BERT)
  bool qk_norm = false;          // RMSNorm over each head's q and k (Qwen3)
  bool embedding_norm = false;   // LayerNorm right after the embedding (BERT, BLOOM)
  bool final_norm = true;        // norm before the output head; false where each layer ends in one (BERT, GLM)
  int64_t experts = 0, experts_per_token = 0;  // 0 = dense
  int64_t shared_ffn = 0;                   // of what every token passes beside its experts, all shared ones together
  bool shared_gate = false;                 // one sigmoid weight for that output (Qwen1.5-MoE)
  bool router_bias = false;                 // a bias for each expert that only its choice sees (DeepSeek-V3)
  int64_t dense_layers = 0, dense_ffn = 0;  // the first layers of an MoE that are dense, and their width
  int64_t kv_lora_rank = 0;                 // latent attention; 0 = none
  int64_t q_lora_rank = 0;                  // 0 = one plain q projection (DeepSeek-V2-Lite)
  int64_t qk_nope_head_dim = 0, qk_rope_head_dim = 0, v_head_dim = 0;
  int64_t token_types = 0;  // BERT's segment embeddings
  bool pooler = false;      // BERT's pooled output layer

  bool is_moe() const { return experts > 0; }
  bool is_encoder() const { return family == Family::encoder; }
  bool is_mla() const { return kv_lora_rank > 0; }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }                              // of the keys
  int64_t attended_width() const { return is_mla() ? heads * v_head_dim : q_width(); }  // what the o projection takes
  int64_t latent_width() const { return kv_lora_rank + qk_rope_head_dim; }  // of an MLA token in the KV cache

  LayerKind kind_of(int64_t layer) const {
    return is_moe() && layer >= dense_layers ? LayerKind::moe : LayerKind::dense;
  }
  int64_t layers_of(LayerKind kind) const {
    const int64_t dense = is_moe() ? dense_layers : layers;
    return kind == LayerKind::dense ? dense : layers - dense;
  }
  int64_t ffn_of(LayerKind kind) const { return is_moe() && kind == LayerKind::dense ? dense_ffn : ffn; }

  double layer_parameters(LayerKind kind) const;         // one layer, every expert counted
  double active_layer_parameters(LayerKind kind) const;  // of one layer, those that one token passes through
  double parameters() const;                             // the whole model: layers, embeddings, output head, final norm
  double active_parameters() const;     // those of the layers and head that one token passes (embeddings: one row each)
  double kv_values_per_layer() const {  // one token, before any split
    return is_encoder() ? 0.0 : static_cast<double>(is_mla() ? latent_width() : 2 * kv_width());
  }
  double kv_values_per_token() const { return static_cast<double>(layers) * kv_values_per_layer(); }
};

// workloads/models/<name>.toml.
std::vector<std::string> model_names();
Architecture load_model(const std::string& name);
Architecture read_model_file(const Config& file);  // the same from a document in hand

// The scenario's [model] table: name or config, weights, kv_cache. `config` is relative to the folder of the scenario.
struct ModelChoice {
  Architecture architecture;
  Precision weights = Precision::bf16;
  Precision kv_cache = Precision::bf16;  // by default 16 bits (32 for fp32 weights), whatever the weights' format
};
ModelChoice read_model(const Config& model, const std::filesystem::path& base_folder);

// Why the shape cannot be, as "key: what is wrong", or "" where it is sound. Both readers end with this.
std::string architecture_problem(const Architecture& model);

// A way to split a replica that the model does not allow: the key of [serving] and a sentence for it. Rules: heads, and
// the feed-forward widths, divide over tensor_parallel; KV heads divide over it or it over them (then they are
// replicated); every pipeline stage has a layer; experts, and tensor_parallel, divide over expert_parallel. The
// vocabulary is padded instead.
struct ParallelProblem {
  std::string key, message;  // key empty: no problem
  explicit operator bool() const { return !key.empty(); }
};
ParallelProblem parallel_problem(const Architecture& model, int64_t tensor_parallel, int64_t pipeline_parallel,
                                 int64_t expert_parallel);

// How many layers each of `stages` pipeline stages holds, as vLLM deals them out: equal runs, and the rest of the
// division one each to the last stages but the final one, which has the output head. 126 over 4: 31, 32, 32, 31. Needs
// 1 ≤ stages ≤ layers. Source: get_pp_indices in vllm/distributed/utils.py, unchanged from 0.8 to 0.19.
std::vector<int64_t> layers_by_stage(int64_t layers, int64_t stages);

// Rows of the embedding and of the output head that one GPU of `tensor_parallel` holds: the vocabulary padded to a
// multiple of 64 (vLLM, VocabParallelEmbedding), then to one of the degree.
int64_t vocabulary_per_gpu(const Architecture& model, int64_t tensor_parallel);

// KV heads that one GPU of `tensor_parallel` holds; at least one, so they are replicated beyond kv_heads.
int64_t kv_heads_per_gpu(const Architecture& model, int64_t tensor_parallel);

// Values that one GPU of `tensor_parallel` keeps of one token in one layer. MLA's latent belongs to no head, so every
// GPU keeps it whole (vLLM counts it as one KV head).
double kv_values_per_gpu(const Architecture& model, int64_t tensor_parallel);

}  // namespace dssim
