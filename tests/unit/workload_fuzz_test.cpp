// SPDX-License-Identifier: Apache-2.0

// Readers of files that users bring, fed with damaged copies of good ones from a fixed seed: whatever comes, they
// either read it or refuse it as bad input in one line. Crashes, hangs, other exceptions and (in the sanitizer build)
// stray reads fail.

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "sim/base/files.hpp"
#include "tests/support/bad_input.hpp"
#include "workloads/huggingface.hpp"
#include "workloads/memory_plan.hpp"
#include "workloads/request_stream.hpp"
#include "workloads/trace.hpp"

namespace dssim {
namespace {

class Mutator {
 public:
  explicit Mutator(uint64_t seed) : random_(seed) {}

  std::string operator()(std::string text) {
    static const std::string kPieces[] = {"-1",
                                          "0",
                                          "nan",
                                          "inf",
                                          "1e999",
                                          "99999999999999999999",
                                          "9223372036854775807",
                                          "\"",
                                          "{",
                                          "}",
                                          "[",
                                          "]",
                                          ",",
                                          ",,",
                                          "\n",
                                          "\r\n",
                                          "=",
                                          ":",
                                          "null",
                                          "true",
                                          "''",
                                          std::string(1, '\0'),
                                          "\xff\xfe",
                                          "\xc3",
                                          "#",
                                          ".",
                                          "e",
                                          " ",
                                          "\t",
                                          std::string(300, '['),
                                          std::string(2000, 'x')};
    for (size_t count = 1 + below(4); count > 0; --count) {
      const size_t at = below(text.size() + 1), length = std::min(text.size() - at, below(12));
      switch (below(6)) {
        case 0:
          text.erase(at, length);
          break;
        case 1:
          text.insert(at, kPieces[below(std::size(kPieces))]);
          break;
        case 2:
          text.replace(at, length, kPieces[below(std::size(kPieces))]);
          break;
        case 3:
          if (at < text.size()) text[at] = static_cast<char>(below(256));
          break;
        case 4:
          text.insert(at, text.substr(below(text.size() + 1), below(80)));
          break;
        default:
          if (below(4) == 0) text.resize(at);
          break;
      }
    }
    return text;
  }

 private:
  size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }
  std::mt19937_64 random_;
};

// Runs `read` on damaged copies; how many of them it refused. bad_input_of() fails the test on errors of other kinds,
// and GoogleTest on other exceptions.
template <typename Read>
int refused(const std::string& good, int rounds, Read read) {
  EXPECT_EQ(test::bad_input_of([&] { read(good); }), "");
  Mutator mutate(20261121);
  int count = 0;
  for (int i = 0; i < rounds; ++i) {
    const std::string text = mutate(good);
    if (!test::bad_input_of([&] { read(text); }).empty()) ++count;
  }
  return count;
}

TEST(Fuzz, HuggingFaceConfig) {
  const std::string good =
      R"({"architectures": ["MixtralForCausalLM"], "head_dim": 128, "hidden_size": 4096, "intermediate_size": 14336,
      "max_position_embeddings": 32768, "model_type": "mixtral", "num_attention_heads": 32,
      "num_experts_per_tok": 2, "num_hidden_layers": 32,
      "num_key_value_heads": 8, "num_local_experts": 8, "rope_theta": 1000000.0,
      "tie_word_embeddings": false, "vocab_size": 32000})";
  EXPECT_GT(refused(good, 4000, [](const std::string& text) { parse_huggingface_config(text, "config.json"); }), 1000);
}

TEST(Fuzz, DeepSeekConfig) {
  const std::string good =
      R"({"first_k_dense_replace": 3, "hidden_size": 7168, "intermediate_size": 18432, "kv_lora_rank": 512,
      "max_position_embeddings": 163840, "model_type": "deepseek_v3", "moe_intermediate_size": 2048,
      "moe_layer_freq": 1, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 128,
      "num_experts_per_tok": 8, "num_hidden_layers": 61, "num_key_value_heads": 128, "q_lora_rank": 1536,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "vocab_size": 129280})";
  // What is read makes sense to what follows, too.
  const auto read_and_plan = [](const std::string& text) {
    const Architecture model = parse_huggingface_config(text, "config.json");
    Deployment deployment;
    deployment.weights = Precision::fp8;
    if (!parallel_problem(model, 8, 1, 8)) deployment.tensor_parallel = deployment.expert_parallel = 8;
    const MemoryPlan plan = plan_memory(model, deployment, 141e9, {});
    EXPECT_TRUE(std::isfinite(plan.weights_bytes) && plan.weights_bytes > 0) << text;
    EXPECT_TRUE(std::isfinite(plan.activation_bytes) && plan.activation_bytes > 0) << text;
    EXPECT_TRUE(std::isfinite(plan.kv_bytes_per_token) && plan.kv_bytes_per_token > 0) << text;
    EXPECT_LE(model.active_layer_parameters(LayerKind::moe), model.layer_parameters(LayerKind::moe)) << text;
  };
  EXPECT_GT(refused(good, 4000, read_and_plan), 1000);
}

TEST(Fuzz, ModelFile) {
  const std::string latent = read_file(data_root() / "workloads/models/deepseek-v2-lite.toml");
  EXPECT_GT(refused(latent, 2000, [](const std::string& text) { read_model_file(Config::parse(text, "m.toml")); }),
            500);
  const std::string good = read_file(data_root() / "workloads/models/mixtral-8x7b.toml");
  EXPECT_GT(refused(good, 2000, [](const std::string& text) { read_model_file(Config::parse(text, "m.toml")); }), 500);
}

TEST(Fuzz, WorkloadTable) {
  const std::string good =
      "[workload]\nkind = \"gamma\"\nrate = \"4/s\"\nburstiness = 0.5\nrequests = 20\n"
      "prompt = { tokens = { lognormal = { median = 400, sigma = 1.1, max = 4096 } }, shared_prefix = 10, prefixes = "
      "3, distinct = 9 }\n"
      "output = { tokens = 248 }\n";
  EXPECT_GT(refused(good, 2000,
                    [](const std::string& text) {
                      const Config file = Config::parse(text, "s.toml");
                      const auto stream = make_request_stream(file.table("workload"), 1, ".");
                      file.finish();
                      Request r;
                      for (int i = 0; i < 30 && stream->next(r); ++i) {
                        EXPECT_GE(r.input_tokens, 1);
                        EXPECT_GE(r.output_tokens, 1);
                      }
                    }),
            500);
}

void read_trace_text(const std::filesystem::path& path) {
  for (const auto& row : load_trace(path).rows) {
    EXPECT_GE(row.arrival_s, 0);
    EXPECT_GE(row.input_tokens, 1);
    EXPECT_GE(row.output_tokens, 1);
  }
}

TEST(Fuzz, Traces) {
  const test::ScratchFolder folder;
  const auto reader = [&](const char* name) {
    return [&folder, name](const std::string& text) { read_trace_text(folder.write(name, text)); };
  };
  const std::string csv = "arrival,input,output\n0.5,100,20\n1.25,2000,1\n7,35,400\n";
  EXPECT_GT(refused(csv, 600, reader("t.csv")), 150);
  const std::string azure =
      "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 "
      "18:15:50.9951690,396,109\n";
  EXPECT_GT(refused(azure, 600, reader("t.csv")), 150);
  const std::string mooncake =
      "{\"timestamp\": 0, \"input_length\": 1100, \"output_length\": 500, \"hash_ids\": [0, 1, 2]}\n"
      "{\"timestamp\": 3000, \"input_length\": 600, \"output_length\": 3, \"hash_ids\": [0, 14]}\n";
  EXPECT_GT(refused(mooncake, 600, reader("t.jsonl")), 150);
  const std::string real = read_file(load_trace_info("azure-2023-code").file);
  EXPECT_GT(refused(real.substr(0, real.find('\n', 3000)), 200, reader("t.csv")), 40);
}

}  // namespace
}  // namespace dssim
