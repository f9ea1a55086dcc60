// SPDX-License-Identifier: Apache-2.0
#pragma once

// The shape of a transformer, as far as time and memory depend on it. Read from workloads/models/<name>.toml or from a
// Hugging Face config.json. Counts are whole-model counts, before any parallel split.

#include <cstdint>
#include <string>
#include <vector>

namespace dssim {

enum class Activation { gated, plain };      // gated: SwiGLU, three FFN matrices; plain: GELU or ReLU, two
enum class Positions { rotary, learned };    // learned positions are stored parameters
enum class Family { decoder, encoder };      // an encoder only prefills (BERT)

struct Architecture {
  std::string name;   // "llama-3-8b"
  std::string title;  // "Llama 3 8B"
  std::string source; // where the shape was published
  Family family = Family::decoder;
  int64_t layers = 0, hidden = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  int64_t ffn = 0;  // width of the feed-forward (of one expert, in an MoE)
  int64_t vocabulary = 0;
  int64_t max_positions = 0;
  Activation activation = Activation::gated;
  Positions positions = Positions::rotary;
  bool tied_embeddings = false;
  bool attention_bias = false;  // biases of the q, k and v projections (Qwen2)
  bool linear_bias = false;     // biases of every linear layer and LayerNorm instead of RMSNorm (GPT-3, BERT)
  bool qk_norm = false;         // RMSNorm over each head's q and k (Qwen3)
  int64_t experts = 0, experts_per_token = 0;  // 0 = dense
  int64_t token_types = 0;      // BERT's segment embeddings
  bool pooler = false;          // BERT's pooled output layer

  bool is_moe() const { return experts > 0; }
  int64_t q_width() const { return heads * head_dim; }
  int64_t kv_width() const { return kv_heads * head_dim; }

  double layer_parameters() const;  // one layer, every expert counted
  double parameters() const;        // the whole model: layers, embeddings, output head, final norm
  double active_parameters() const; // those that one token passes through
  double kv_values_per_token() const { return 2.0 * static_cast<double>(layers * kv_width()); }
};

}  // namespace dssim
