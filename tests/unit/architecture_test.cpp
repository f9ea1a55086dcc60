// SPDX-License-Identifier: Apache-2.0
#include "workloads/architecture.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <numeric>
#include <sstream>

#include "sim/base/files.hpp"
#include "tests/support/bad_input.hpp"

namespace dssim {
namespace {

using test::bad_input_of;

TEST(Architecture, EveryModelTheDesignNamesIsThere) {
  const auto names = model_names();
  for (const char* name :
       {"llama-7b",     "llama-13b",    "llama-33b",    "llama-65b",     "llama-2-7b", "llama-2-13b", "llama-2-70b",
        "llama-3-8b",   "llama-3-70b",  "llama-3-405b", "codellama-34b", "yi-34b",     "qwen2.5-7b",  "qwen3-32b",
        "mistral-nemo", "mixtral-8x7b", "gpt3-175b",    "dense-130b",    "bert-base",  "bert-tiny"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
}

// The totals of the published checkpoints: sums of their tensors' sizes, but for GPT-3 (table D.1 of its paper, to 0.1
// B) and GLM-130B (its name). Written here again, so that a model file and its own `parameters` line cannot be wrong
// together.
struct Published {
  const char* name;
  double parameters, rounding;
};
constexpr Published kPublished[] = {{"llama-7b", 6'738'415'616, 0},
                                    {"llama-13b", 13'015'864'320, 0},
                                    {"llama-33b", 32'528'943'616, 0},
                                    {"llama-65b", 65'285'660'672, 0},
                                    {"llama-2-7b", 6'738'415'616, 0},
                                    {"llama-2-13b", 13'015'864'320, 0},
                                    {"llama-2-70b", 68'976'648'192, 0},
                                    {"llama-3-8b", 8'030'261'248, 0},
                                    {"llama-3-70b", 70'553'706'496, 0},
                                    {"llama-3-405b", 405'853'388'800, 0},
                                    {"codellama-34b", 33'743'970'304, 0},
                                    {"qwen2.5-7b", 7'615'616'512, 0},
                                    {"qwen2.5-14b", 14'770'033'664, 0},
                                    {"qwen2.5-32b", 32'763'876'352, 0},
                                    {"qwen2.5-72b", 72'706'203'648, 0},
                                    {"qwen3-8b", 8'190'735'360, 0},
                                    {"qwen3-14b", 14'768'307'200, 0},
                                    {"qwen3-32b", 32'762'123'264, 0},
                                    {"qwen3-30b-a3b", 30'532'122'624, 0},
                                    {"yi-34b", 34'388'917'248, 0},
                                    {"mistral-7b", 7'248'023'552, 0},
                                    {"mistral-nemo", 12'247'782'400, 0},
                                    {"mixtral-8x7b", 46'702'792'704, 0},
                                    {"mixtral-8x22b", 140'620'634'112, 0},
                                    {"bloom-176b", 176'247'271'424, 0},
                                    {"opt-13b", 12'853'473'280, 0},
                                    {"deepseek-v3", 684'489'845'504 - 13'463'426'304, 0},  // less its MTP module
                                    {"deepseek-r1", 684'489'845'504 - 13'463'426'304, 0},
                                    {"deepseek-v2", 235'741'434'880, 0},
                                    {"deepseek-v2-lite", 15'706'484'224, 0},
                                    {"deepseek-moe-16b", 16'375'728'128, 0},
                                    {"deepseek-llm-7b", 6'910'365'696, 0},
                                    {"deepseek-llm-67b", 67'425'001'472, 0},
                                    {"kimi-k2", 1'026'408'232'448, 0},
                                    {"qwen1.5-moe-a2.7b", 14'315'784'192, 0},
                                    {"bert-base", 109'482'240, 0},
                                    {"bert-large", 335'141'888, 0},
                                    {"bert-tiny", 4'385'920, 0},
                                    {"gpt3-175b", 174.6e9, 0.05e9},
                                    {"opt-30b", 30e9, 0.5e9},
                                    {"opt-66b", 66e9, 0.5e9},
                                    {"dense-130b", 130e9, 2e9}};

TEST(Architecture, ParametersMatchThePublishedTotals) {
  for (const auto& published : kPublished)
    EXPECT_NEAR(load_model(published.name).parameters(), published.parameters, published.rounding) << published.name;
}

TEST(Architecture, EveryModelFileLoadsAndStatesItsSource) {
  for (const auto& name : model_names()) {
    const Architecture model = load_model(name);
    EXPECT_EQ(model.name, name);
    EXPECT_FALSE(model.title.empty()) << name;
    EXPECT_FALSE(model.source.empty()) << name;
    EXPECT_EQ(architecture_problem(model), "") << name;
  }
}

// Mixtral's paper gives 12.9 B parameters that a token uses, the embedding table (32000 × 4096) counted.
TEST(Architecture, ActiveParametersOfAnMoeCountTheChosenExperts) {
  const Architecture mixtral = load_model("mixtral-8x7b");
  EXPECT_NEAR(mixtral.active_parameters() + 32000.0 * 4096, 12.9e9, 0.05e9);
  EXPECT_LT(mixtral.active_parameters(), mixtral.parameters() / 3);
}

// DeepSeek-V2's paper: 21 B activated of 236 B; V3's: 37 B of 671 B; DeepSeekMoE's: 2.8 B of 16.4 B, embeddings counted.
TEST(Architecture, ActiveParametersCountSharedExpertsAndDenseLayers) {
  const auto active = [](const char* name) {
    const Architecture m = load_model(name);
    return m.active_parameters() + static_cast<double>((m.vocabulary - 1) * m.hidden);
  };
  EXPECT_NEAR(active("deepseek-v2"), 21e9, 0.5e9);
  EXPECT_NEAR(active("deepseek-v3"), 37e9, 0.6e9);
  EXPECT_NEAR(active("deepseek-moe-16b"), 2.8e9, 0.05e9);
  EXPECT_NEAR(active("kimi-k2"), 32e9, 1e9);
  EXPECT_NEAR(active("qwen1.5-moe-a2.7b"), 2.7e9, 0.05e9);
}

// One layer of DeepSeek-V3, matrix by matrix.
TEST(Architecture, LatentAttentionAndTheTwoKindsOfLayerCountMatrixByMatrix) {
  const Architecture m = load_model("deepseek-v3");
  const double attention = 7168.0 * 1536 + 1536 + 1536.0 * 128 * 192 + 7168.0 * 576 + 512 + 512.0 * 128 * 256 +
                           128.0 * 128 * 7168 + 2 * 7168;
  EXPECT_EQ(m.layer_parameters(LayerKind::dense), attention + 3 * 7168.0 * 18432);
  EXPECT_EQ(m.layer_parameters(LayerKind::moe), attention + 257 * 3 * 7168.0 * 2048 + 256 * 7168.0 + 256);
  EXPECT_EQ(m.active_layer_parameters(LayerKind::moe), attention + 9 * 3 * 7168.0 * 2048 + 256 * 7168.0 + 256);
  EXPECT_EQ(m.layers_of(LayerKind::dense), 3);
  EXPECT_EQ(m.layers_of(LayerKind::moe), 58);
  EXPECT_EQ(m.kind_of(2), LayerKind::dense);
  EXPECT_EQ(m.kind_of(3), LayerKind::moe);
  const Architecture llama = load_model("llama-3-8b"), mixtral = load_model("mixtral-8x7b");
  EXPECT_EQ(llama.layers_of(LayerKind::dense), 32);
  EXPECT_EQ(mixtral.layers_of(LayerKind::dense), 0);
  EXPECT_EQ(mixtral.kind_of(0), LayerKind::moe);
}

TEST(Architecture, KvPerTokenCountsKvHeadsOnly) {
  EXPECT_EQ(load_model("deepseek-v3").kv_values_per_token(), 61.0 * (512 + 64));  // 70,272 bytes in 16 bits
  EXPECT_EQ(load_model("deepseek-v2-lite").kv_values_per_token(), 27.0 * (512 + 64));
  for (const int64_t tp : {1, 8, 64}) EXPECT_EQ(kv_values_per_gpu(load_model("deepseek-v3"), tp), 576);
  EXPECT_EQ(kv_values_per_gpu(load_model("llama-3-8b"), 4), 2.0 * 2 * 128);
  EXPECT_EQ(load_model("llama-3-8b").kv_values_per_token(), 2.0 * 32 * 8 * 128);
  EXPECT_EQ(load_model("llama-2-7b").kv_values_per_token(), 2.0 * 32 * 32 * 128);
  EXPECT_EQ(load_model("bert-base").kv_values_per_token(), 0);
}

TEST(Architecture, UnknownModelNamesTheNearest) {
  const std::string message = bad_input_of([] { load_model("lama-3-8b"); });
  EXPECT_NE(message.find("did you mean 'llama-3-8b'"), std::string::npos) << message;
}

std::string llama_text() {
  return read_file(data_root() / "workloads/models/llama-3-8b.toml");
}

std::string with(std::string text, const std::string& from, const std::string& to) {
  const auto at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(Architecture, BadModelFilesNameFileLineAndKey) {
  const auto message = [](const std::string& text) {
    return bad_input_of([&] { read_model_file(Config::parse(text, "m.toml")); });
  };
  EXPECT_EQ(message(llama_text()), "");
  EXPECT_EQ(message(with(llama_text(), "hidden = 4096", "hidden = 0")), "m.toml:7: hidden: 0 is outside 1 to 10000000");
  EXPECT_NE(message(with(llama_text(), "layers = 32\n", "")).find("layers: is missing"), std::string::npos);
  EXPECT_NE(message(with(llama_text(), "kv_heads = 8", "kv_heads = 7")).find("kv_heads: 7 does not divide heads = 32"),
            std::string::npos);
  EXPECT_NE(message(with(llama_text(), "ffn = 14336", "ffn = 14335"))
                .find("parameters: the file says 8030261248, but its shape"),
            std::string::npos);
  EXPECT_NE(message(llama_text() + "expert = 8\n").find("'expert'"), std::string::npos);
  EXPECT_NE(message(llama_text() + "experts = 8\nexperts_per_token = 9\n").find("experts_per_token: 9 is outside"),
            std::string::npos);
  EXPECT_NE(message(llama_text() + "activation = \"gate\"\n").find("did you mean 'gated'"), std::string::npos);
}

TEST(Architecture, ExpertsAndLatentAttentionThatCannotBeAreRefused) {
  const auto message = [](const std::string& from, const std::string& to) {
    const std::string good = read_file(data_root() / "workloads/models/deepseek-v2-lite.toml");
    return bad_input_of([&] { read_model_file(Config::parse(with(good, from, to), "m.toml")); });
  };
  EXPECT_EQ(message("layers = 27", "layers = 27"), "");
  EXPECT_EQ(message("\ndense_layers = 1", "\ndense_layers = 27"),
            "m.toml:19: dense_layers: 27 of 27 layers leave none with experts");
  EXPECT_NE(message("dense_ffn = 10944", "").find("dense_ffn: goes with dense_layers"), std::string::npos);
  EXPECT_NE(message("shared_ffn = 2816", "shared_gate = true").find("shared_gate: needs shared_ffn"),
            std::string::npos);
  EXPECT_NE(message("v_head_dim = 128", "").find("needs qk_nope_head_dim, qk_rope_head_dim and v_head_dim"),
            std::string::npos);
  EXPECT_NE(message("kv_lora_rank = 512", "head_dim = 192").find("kv_lora_rank: is missing"), std::string::npos);
  EXPECT_NE(message("heads = 16", "heads = 16\nkv_heads = 4").find("kv_heads: 4 is not heads = 16"), std::string::npos);
  EXPECT_NE(message("heads = 16", "heads = 16\nhead_dim = 128").find("head_dim: 128 is not"), std::string::npos);
  EXPECT_NE(message("heads = 16", "heads = 16\nattention_bias = true").find("without biases"), std::string::npos);
  EXPECT_NE(message("experts = 64\nexperts_per_token = 6\n", "").find("dense_layers: needs experts"),
            std::string::npos);
  EXPECT_NE(message("ffn = 1408", "ffn = 1409").find("parameters: the file says"), std::string::npos);
}

TEST(Architecture, DegreesThatDoNotDivideAreRefusedWithTheKey) {
  const Architecture llama = load_model("llama-3-8b"), mixtral = load_model("mixtral-8x7b");
  EXPECT_FALSE(parallel_problem(llama, 8, 4, 1));
  EXPECT_FALSE(parallel_problem(llama, 16, 1, 1));  // twice the KV heads: replicated
  EXPECT_FALSE(parallel_problem(mixtral, 4, 1, 4));
  EXPECT_EQ(parallel_problem(llama, 3, 1, 1).key, "tensor_parallel");
  EXPECT_EQ(parallel_problem(llama, 64, 1, 1).message, "64 does not divide the 32 attention heads of Llama 3 8B");
  EXPECT_EQ(parallel_problem(load_model("yi-34b"), 7, 1, 1).message,  // 7 divides its 56 heads
            "7 neither divides the 8 KV heads of Yi 34B nor is a multiple of them");
  EXPECT_EQ(parallel_problem(load_model("llama-13b"), 5, 1, 1).key, "tensor_parallel");  // 40 heads, but 13824 / 5
  EXPECT_FALSE(parallel_problem(llama, 1, 5, 1));                                        // stages need not be equal
  EXPECT_FALSE(parallel_problem(llama, 1, 32, 1));
  EXPECT_EQ(parallel_problem(llama, 1, 33, 1).message, "33 stages are more than the 32 layers of Llama 3 8B");
  const Architecture deepseek = load_model("deepseek-v3");
  EXPECT_FALSE(parallel_problem(deepseek, 8, 2, 8));
  EXPECT_EQ(parallel_problem(deepseek, 3, 1, 1).message, "3 does not divide the 128 attention heads of DeepSeek-V3");
  EXPECT_EQ(parallel_problem(load_model("deepseek-v2-lite"), 16, 1, 16).key, "");
  EXPECT_EQ(parallel_problem(llama, 2, 1, 2).message, "Llama 3 8B has no experts; write 1");
  EXPECT_EQ(parallel_problem(mixtral, 8, 1, 3).key, "expert_parallel");
  EXPECT_EQ(parallel_problem(mixtral, 2, 1, 4).key, "expert_parallel");
  for (const int64_t degree : {0L, -1L}) EXPECT_EQ(parallel_problem(llama, degree, 1, 1).key, "tensor_parallel");
}

TEST(Architecture, LayersAreDealtOutAsVllmDoes) {
  using Layers = std::vector<int64_t>;
  // The cases of vLLM's own test (tests/distributed/test_pipeline_partition.py), and two that people meet.
  EXPECT_EQ(layers_by_stage(2, 2), (Layers{1, 1}));
  EXPECT_EQ(layers_by_stage(3, 2), (Layers{2, 1}));
  EXPECT_EQ(layers_by_stage(3, 3), (Layers{1, 1, 1}));
  EXPECT_EQ(layers_by_stage(4, 3), (Layers{1, 2, 1}));
  EXPECT_EQ(layers_by_stage(5, 3), (Layers{2, 2, 1}));
  EXPECT_EQ(layers_by_stage(126, 4), (Layers{31, 32, 32, 31}));
  EXPECT_EQ(layers_by_stage(80, 3), (Layers{27, 27, 26}));
  for (int64_t layers = 1; layers <= 130; ++layers)
    for (int64_t stages = 1; stages <= layers; ++stages) {
      const Layers dealt = layers_by_stage(layers, stages);
      ASSERT_EQ(std::accumulate(dealt.begin(), dealt.end(), int64_t{0}), layers) << stages;
      const auto [least, most] = std::minmax_element(dealt.begin(), dealt.end());
      ASSERT_EQ(*most - *least, layers % stages != 0) << layers << " " << stages;
      ASSERT_EQ(dealt.back(), layers / stages) << layers << " " << stages;  // it has the output head
    }
}

TEST(Architecture, VocabularyIsPaddedAndKvHeadsAreReplicated) {
  EXPECT_EQ(vocabulary_per_gpu(load_model("gpt3-175b"), 1), 50304);  // 50257 up to a multiple of 64
  EXPECT_EQ(vocabulary_per_gpu(load_model("gpt3-175b"), 8), 6288);
  EXPECT_EQ(kv_heads_per_gpu(load_model("llama-3-8b"), 4), 2);
  EXPECT_EQ(kv_heads_per_gpu(load_model("llama-3-8b"), 16), 1);
}

TEST(ReadModel, TakesNameOrConfigAndPrecisions) {
  const auto read = [](const std::string& text, const std::filesystem::path& folder = ".") {
    return read_model(Config::parse("[model]\n" + text, "s.toml").table("model"), folder);
  };
  const ModelChoice plain = read("name = \"llama-3-8b\"");
  EXPECT_EQ(plain.weights, Precision::bf16);
  EXPECT_EQ(plain.kv_cache, Precision::bf16);
  const ModelChoice quantised = read("name = \"llama-3-8b\"\nweights = \"int4\"\nkv_cache = \"fp8\"");
  EXPECT_EQ(quantised.weights, Precision::int4);
  EXPECT_EQ(quantised.kv_cache, Precision::fp8);

  test::ScratchFolder folder;
  folder.write("config.json",
               R"({"model_type": "gpt2", "n_layer": 12, "n_embd": 768, "n_head": 12,
          "vocab_size": 50257, "n_positions": 1024})");
  EXPECT_EQ(read("config = \"config.json\"", folder.path()).architecture.parameters(), 124'439'808);  // GPT-2 small

  EXPECT_EQ(bad_input_of([&] { read("name = \"llama3-8b\""); }),
            "s.toml:2: model.name: unknown model 'llama3-8b'; did you mean 'llama-3-8b'?");
  EXPECT_NE(bad_input_of([&] { read("weights = \"bf16\""); }).find("s.toml:1: model.name: is missing"),
            std::string::npos);
  EXPECT_NE(bad_input_of([&] { read("name = \"llama-3-8b\"\nconfig = \"x\""); }).find("not both"), std::string::npos);
  EXPECT_NE(bad_input_of([&] { read("name = \"llama-3-8b\"\nweights = \"bf8\""); }).find("model.weights"),
            std::string::npos);
  EXPECT_NE(bad_input_of([&] { read("config = \"nowhere.json\""); }).find("no such file"), std::string::npos);
}

}  // namespace
}  // namespace dssim
