// SPDX-License-Identifier: Apache-2.0
#include "workloads/huggingface.hpp"

#include <gtest/gtest.h>

#include "tests/support/bad_input.hpp"

namespace dssim {
namespace {

using test::bad_input_of;

// The shape keys of the published configurations, one for each model_type, beside the catalogue's entry for the same
// model.
struct Case {
  const char* model;
  const char* json;
};
constexpr Case kCases[] = {
    {"llama-3-8b",
     R"({"architectures": ["LlamaForCausalLM"], "attention_bias": false, "hidden_act": "silu", "hidden_size": 4096,
         "intermediate_size": 14336, "max_position_embeddings": 8192, "model_type": "llama", "num_attention_heads": 32,
         "num_hidden_layers": 32, "num_key_value_heads": 8, "rms_norm_eps": 1e-05, "rope_scaling": null,
         "rope_theta": 500000.0,
         "tie_word_embeddings": false, "torch_dtype": "bfloat16", "vocab_size": 128256})"},
    {"llama-7b",
     R"({"hidden_size": 4096, "intermediate_size": 11008, "max_position_embeddings": 2048, "model_type": "llama",
         "num_attention_heads": 32, "num_hidden_layers": 32, "vocab_size": 32000})"},
    {"mistral-nemo",
     R"({"head_dim": 128, "hidden_size": 5120, "intermediate_size": 14336, "max_position_embeddings": 131072,
         "model_type": "mistral", "num_attention_heads": 32, "num_hidden_layers": 40, "num_key_value_heads": 8,
         "sliding_window": null, "tie_word_embeddings": false, "vocab_size": 131072})"},
    {"qwen2.5-7b",
     R"({"hidden_size": 3584, "intermediate_size": 18944, "max_position_embeddings": 131072, "model_type": "qwen2",
         "num_attention_heads": 28, "num_hidden_layers": 28, "num_key_value_heads": 4, "tie_word_embeddings": false,
         "use_sliding_window": false, "vocab_size": 152064})"},
    {"qwen3-32b",
     R"({"attention_bias": false, "head_dim": 128, "hidden_size": 5120, "intermediate_size": 25600,
         "max_position_embeddings": 40960, "model_type": "qwen3", "num_attention_heads": 64, "num_hidden_layers": 64,
         "num_key_value_heads": 8, "tie_word_embeddings": false, "vocab_size": 151936})"},
    {"qwen3-30b-a3b",
     R"({"decoder_sparse_step": 1, "head_dim": 128, "hidden_size": 2048, "intermediate_size": 6144,
         "mlp_only_layers": [],
         "max_position_embeddings": 40960, "model_type": "qwen3_moe", "moe_intermediate_size": 768,
         "num_attention_heads": 32,
         "num_experts": 128, "num_experts_per_tok": 8, "num_hidden_layers": 48, "num_key_value_heads": 4,
         "tie_word_embeddings": false, "vocab_size": 151936})"},
    {"mixtral-8x7b",
     R"({"hidden_size": 4096, "intermediate_size": 14336, "max_position_embeddings": 32768, "model_type": "mixtral",
         "num_attention_heads": 32, "num_experts_per_tok": 2, "num_hidden_layers": 32, "num_key_value_heads": 8,
         "num_local_experts": 8, "tie_word_embeddings": false, "vocab_size": 32000})"},
    {"gpt3-175b",
     R"({"model_type": "gpt2", "n_ctx": 2048, "n_embd": 12288, "n_head": 96, "n_inner": null, "n_layer": 96,
         "n_positions": 2048, "vocab_size": 50257})"},
    {"opt-13b",
     R"({"do_layer_norm_before": true, "ffn_dim": 20480, "hidden_size": 5120, "max_position_embeddings": 2048,
         "model_type": "opt", "num_attention_heads": 40, "num_hidden_layers": 40, "vocab_size": 50272,
         "word_embed_proj_dim": 5120})"},
    {"bloom-176b",
     R"({"hidden_size": 14336, "model_type": "bloom", "n_head": 112, "n_layer": 70, "num_attention_heads": 112,
         "seq_length": 2048, "vocab_size": 250880})"},
    {"deepseek-v3",
     R"({"architectures": ["DeepseekV3ForCausalLM"], "attention_bias": false, "ep_size": 1, "first_k_dense_replace": 3,
         "hidden_act": "silu", "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
         "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
         "moe_layer_freq": 1, "n_group": 8, "n_routed_experts": 256, "n_shared_experts": 1, "norm_topk_prob": true,
         "num_attention_heads": 128, "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128,
         "num_nextn_predict_layers": 1, "q_lora_rank": 1536, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64,
         "quantization_config": {"fmt": "e4m3", "quant_method": "fp8", "weight_block_size": [128, 128]},
         "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "tie_word_embeddings": false, "topk_group": 4,
         "topk_method": "noaux_tc", "v_head_dim": 128, "vocab_size": 129280})"},
    {"deepseek-v2-lite",
     R"({"first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "kv_lora_rank": 512,
         "max_position_embeddings": 163840, "model_type": "deepseek_v2", "moe_intermediate_size": 1408,
         "moe_layer_freq": 1, "n_routed_experts": 64, "n_shared_experts": 2, "num_attention_heads": 16,
         "num_experts_per_tok": 6, "num_hidden_layers": 27, "num_key_value_heads": 16, "q_lora_rank": null,
         "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 102400})"},
    {"deepseek-moe-16b",
     R"({"first_k_dense_replace": 1, "hidden_size": 2048, "intermediate_size": 10944, "max_position_embeddings": 4096,
         "model_type": "deepseek", "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64,
         "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
         "num_key_value_heads": 16, "vocab_size": 102400})"},
    {"kimi-k2",
     R"({"first_k_dense_replace": 1, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
         "max_position_embeddings": 131072, "model_type": "kimi_k2", "moe_intermediate_size": 2048, "moe_layer_freq": 1,
         "n_routed_experts": 384, "n_shared_experts": 1, "num_attention_heads": 64, "num_experts_per_tok": 8,
         "num_hidden_layers": 61, "num_key_value_heads": 64, "q_lora_rank": 1536, "qk_nope_head_dim": 128,
         "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 163840})"},
    {"qwen1.5-moe-a2.7b",
     R"({"decoder_sparse_step": 1, "hidden_size": 2048, "intermediate_size": 5632, "max_position_embeddings": 8192,
         "model_type": "qwen2_moe", "moe_intermediate_size": 1408, "num_attention_heads": 16, "num_experts": 60,
         "num_experts_per_tok": 4, "num_hidden_layers": 24, "num_key_value_heads": 16,
         "shared_expert_intermediate_size": 5632, "tie_word_embeddings": false, "vocab_size": 151936})"},
    {"bert-base",
     R"({"hidden_size": 768, "intermediate_size": 3072, "max_position_embeddings": 512, "model_type": "bert",
         "num_attention_heads": 12, "num_hidden_layers": 12, "type_vocab_size": 2, "vocab_size": 30522})"}};

TEST(HuggingFace, ReadsTheShapeTheCatalogueHas) {
  for (const auto& [model, json] : kCases) {
    const Architecture read = parse_huggingface_config(json, "models/some-model/config.json"),
                       known = load_model(model);
    EXPECT_EQ(read.name, "some-model");
    EXPECT_EQ(read.parameters(), known.parameters()) << model;
    EXPECT_EQ(read.active_parameters(), known.active_parameters()) << model;
    EXPECT_EQ(read.kv_values_per_token(), known.kv_values_per_token()) << model;
    EXPECT_EQ(read.max_positions, known.max_positions) << model;
    EXPECT_EQ(read.family, known.family) << model;
    EXPECT_EQ(read.experts, known.experts) << model;
    EXPECT_EQ(read.ffn, known.ffn) << model;
    EXPECT_EQ(read.shared_ffn, known.shared_ffn) << model;
    EXPECT_EQ(read.dense_layers, known.dense_layers) << model;
    EXPECT_EQ(read.head_dim, known.head_dim) << model;
    EXPECT_EQ(read.kv_lora_rank, known.kv_lora_rank) << model;
  }
}

std::string message_of(const std::string& json) {
  return bad_input_of([&] { parse_huggingface_config(json, "config.json"); });
}

std::string llama(const std::string& extra) {
  return R"({"model_type": "llama", "hidden_size": 4096, "intermediate_size": 11008, "num_attention_heads": 32,
             "num_hidden_layers": 32, "vocab_size": 32000, "max_position_embeddings": 2048)" +
         extra + "}";
}

TEST(HuggingFace, RefusesWhatIsMissingOrAbsurdByKey) {
  EXPECT_EQ(message_of(llama("")), "");
  EXPECT_EQ(message_of("{"), "config.json: is not valid JSON");
  EXPECT_EQ(message_of("[1]"), "config.json: must be a JSON object, as Hugging Face writes it");
  EXPECT_EQ(message_of("{}"), "config.json: model_type: is missing");
  EXPECT_EQ(message_of(R"({"model_type": "lama"})"),
            "config.json: model_type: unknown model_type 'lama'; did you mean 'llama'?");
  EXPECT_EQ(message_of(R"({"model_type": "llama"})"), "config.json: num_hidden_layers: is missing");
  EXPECT_EQ(message_of(llama(R"(, "num_hidden_layers": -3)")),
            "config.json: num_hidden_layers: -3 is outside 1 to 10000");
  EXPECT_EQ(message_of(llama(R"(, "hidden_size": "4096")")),
            "config.json: hidden_size: must be an integer of 1 to 10000000");
  EXPECT_EQ(message_of(llama(R"(, "vocab_size": 1e300)")),
            "config.json: vocab_size: must be an integer of 1 to 1000000000");
  EXPECT_EQ(message_of(llama(R"(, "vocab_size": 18446744073709551615)")),
            "config.json: vocab_size: must be an integer of 1 to 1000000000");
  EXPECT_EQ(message_of(llama(R"(, "num_attention_heads": 33)")),
            "config.json: hidden_size: 4096 is not a multiple of num_attention_heads = 33, and head_dim is missing");
  EXPECT_EQ(message_of(llama(R"(, "num_key_value_heads": 5)")), "config.json: kv_heads: 5 does not divide heads = 32");
  EXPECT_EQ(message_of(llama(R"(, "tie_word_embeddings": 1)")),
            "config.json: tie_word_embeddings: must be true or false");
}

TEST(HuggingFace, RefusesShapesItDoesNotModel) {
  EXPECT_NE(message_of(
                R"({"model_type": "opt", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                           "ffn_dim": 4096,
                           "vocab_size": 50272, "max_position_embeddings": 2048, "word_embed_proj_dim": 512})")
                .find("word_embed_proj_dim"),
            std::string::npos);
  EXPECT_NE(message_of(R"({"model_type": "deepseek_v3", "hidden_size": 64, "num_hidden_layers": 2, "vocab_size": 100,
                           "num_attention_heads": 4, "intermediate_size": 64, "max_position_embeddings": 512,
                           "n_routed_experts": 4, "moe_intermediate_size": 32, "num_experts_per_tok": 2,
                           "moe_layer_freq": 2})")
                .find("moe_layer_freq"),
            std::string::npos);
  EXPECT_NE(message_of(R"({"model_type": "bert", "is_decoder": true})").find("is_decoder"), std::string::npos);
}

}  // namespace
}  // namespace dssim
