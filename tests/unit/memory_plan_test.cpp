// SPDX-License-Identifier: Apache-2.0
#include "workloads/memory_plan.hpp"

#include <gtest/gtest.h>

#include "sim/base/units.hpp"

namespace dssim {
namespace {

constexpr double k80GB = 80e9;

MemoryPlan plan(const char* model, const Deployment& deployment, double gpu_bytes = k80GB,
                const StackMemory& stack = {}) {
  return plan_memory(load_model(model), deployment, gpu_bytes, stack);
}

// The fullest stage where memory is plenty: the one that a KV token costs the most.
constexpr double kPlenty = 1e15;
double weight_bytes_per_gpu(const Architecture& model, const Deployment& d) {
  return plan_memory(model, d, kPlenty, {}).weights_bytes;
}
double activation_bytes_per_gpu(const Architecture& model, const Deployment& d) {
  return plan_memory(model, d, kPlenty, {}).activation_bytes;
}
double kv_bytes_per_token(const Architecture& model, const Deployment& d) {
  return plan_memory(model, d, kPlenty, {}).kv_bytes_per_token;
}

TEST(MemoryPlan, WeightsOfOneGpuAreTheParametersAndTheRotaryTable) {
  const Architecture llama = load_model("llama-3-8b");
  EXPECT_EQ(weight_bytes_per_gpu(llama, {}), 2 * (llama.parameters() + 8192.0 * 128));
  const Architecture qwen = load_model("qwen3-8b");  // norms of q and k
  EXPECT_EQ(weight_bytes_per_gpu(qwen, {}), 2 * (qwen.parameters() + 40960.0 * 128));
  const Architecture bert = load_model("bert-base");  // learned positions; its vocabulary of 30522 is padded by 6 rows
  EXPECT_EQ(weight_bytes_per_gpu(bert, {}), 2 * (bert.parameters() + 6.0 * 768));
  Deployment wide;
  wide.weights = Precision::fp32;
  EXPECT_EQ(weight_bytes_per_gpu(llama, wide), 4 * (llama.parameters() + 8192.0 * 128));
}

TEST(MemoryPlan, TensorParallelismSplitsAllButNormsAndReplicatesKvHeads) {
  const Architecture llama = load_model("llama-3-8b");
  const double norms = 65 * 4096.0, table = 8192.0 * 128;
  Deployment d;
  d.tensor_parallel = 8;
  EXPECT_EQ(weight_bytes_per_gpu(llama, d), 2 * ((llama.parameters() - norms) / 8 + norms + table));
  EXPECT_EQ(kv_bytes_per_token(llama, d), kv_bytes_per_token(llama, {}) / 8);
  // 16 GPUs share 8 KV heads: each still holds one whole head, of weights and of cache.
  d.tensor_parallel = 16;
  const double k_and_v = 32 * 2 * 4096.0 * 1024;
  EXPECT_EQ(weight_bytes_per_gpu(llama, d),
            2 * ((llama.parameters() - norms - k_and_v) / 16 + k_and_v / 8 + norms + table));
  EXPECT_EQ(kv_bytes_per_token(llama, d), kv_bytes_per_token(llama, {}) / 8);
}

TEST(MemoryPlan, PipelineStagesShareLayersAndTheFullestCounts) {
  const Architecture llama = load_model("llama-3-8b");
  Deployment d;
  d.pipeline_parallel = 2;
  // The last stage: half the layers, the head and the final norm.
  const double head = 128256.0 * 4096 + 4096;
  EXPECT_EQ(weight_bytes_per_gpu(llama, d), 2 * (16 * llama.layer_parameters(LayerKind::dense) + head + 8192.0 * 128));
  EXPECT_EQ(kv_bytes_per_token(llama, d), kv_bytes_per_token(llama, {}) / 2);
  // A tied head is stored once on one stage, and a second time where it stands apart from the embedding.
  const Architecture bloom = load_model("bloom-176b");
  EXPECT_EQ(weight_bytes_per_gpu(bloom, {}), 2 * bloom.parameters());
  const double table = 250880.0 * 14336, norm = 2 * 14336.0;
  EXPECT_EQ(weight_bytes_per_gpu(bloom, d), 2 * (35 * bloom.layer_parameters(LayerKind::dense) + table + norm));
  // The fullest is the last stage, whose sampler is wider than the forward pass.
  EXPECT_EQ(activation_bytes_per_gpu(bloom, d), 9.8 * 256 * 250880 * 4 + 2048 * 14336.0 * 2);
}

// 126 layers on four stages are 31, 32, 32 and 31. The two of 32 have no table, yet hold the most, and every stage keeps
// as many KV blocks as they have room for.
TEST(MemoryPlan, UnevenStagesKeepTheFewestBlocksOfAny) {
  const Architecture llama = load_model("llama-3-405b");
  Deployment d;
  d.tensor_parallel = 8;
  d.pipeline_parallel = 4;
  const MemoryPlan even_handed = plan_memory(llama, d, k80GB, {});
  ASSERT_TRUE(even_handed.fits);
  ASSERT_EQ(even_handed.stages.size(), 4u);
  int64_t layers = 0, fewest = INT64_MAX;
  for (const StageMemory& stage : even_handed.stages) {
    layers += stage.layers;
    EXPECT_EQ(stage.kv_bytes_per_token, static_cast<double>(stage.layers) * 2 * 128 * 2);  // one KV head of eight
    const double room = even_handed.budget_bytes - stage.weights_bytes - stage.activation_bytes;
    fewest = std::min(fewest, static_cast<int64_t>(room / (stage.kv_bytes_per_token * 16)));
  }
  EXPECT_EQ(layers, 126);
  EXPECT_EQ(even_handed.kv_blocks, fewest);
  EXPECT_EQ(even_handed.kv_bytes_per_token, 32 * 2 * 128 * 2.0);
  EXPECT_EQ(even_handed.weights_bytes, even_handed.stages[1].weights_bytes);
  // A partition of one's own: the stage of 60 layers decides.
  d.pipeline_partition = {22, 22, 60, 22};
  const MemoryPlan own = plan_memory(llama, d, 141e9, {});
  EXPECT_EQ(own.kv_bytes_per_token, 60 * 2 * 128 * 2.0);
  EXPECT_EQ(own.weights_bytes, own.stages[2].weights_bytes);
  EXPECT_LT(own.kv_tokens, plan_memory(llama, {.tensor_parallel = 8, .pipeline_parallel = 4}, 141e9, {}).kv_tokens);
  // Where it does not fit, the stage that misses most says by how much.
  const MemoryPlan tight = plan_memory(llama, d, 40e9, {});
  EXPECT_FALSE(tight.fits);
  EXPECT_EQ(tight.weights_bytes, tight.stages[2].weights_bytes);
}

TEST(MemoryPlan, QuantisedFormatsKeepEmbeddingsHeadAndNormsIn16Bits) {
  const Architecture llama = load_model("llama-3-8b");
  const double outside = 2 * 128256.0 * 4096 + 65 * 4096.0 + 8192.0 * 128,
               linear = llama.parameters() - outside + 8192.0 * 128;
  Deployment d;
  d.weights = Precision::int4;
  EXPECT_DOUBLE_EQ(weight_bytes_per_gpu(llama, d), 2 * outside + linear * (0.5 + 2.5 / 128));
  d.weights = Precision::fp8;
  const double channels = 32 * (4096 + 1024 + 1024 + 4096 + 2 * 14336.0 + 4096);
  EXPECT_DOUBLE_EQ(weight_bytes_per_gpu(llama, d), 2 * outside + linear + 4 * channels);
}

TEST(MemoryPlan, ExpertsTakeTheSameBytesHoweverTheyAreSpread) {
  const Architecture mixtral = load_model("mixtral-8x7b");
  Deployment d;
  d.tensor_parallel = 8;
  const double cut = weight_bytes_per_gpu(mixtral, d);
  d.expert_parallel = 8;
  EXPECT_EQ(weight_bytes_per_gpu(mixtral, d), cut);
  EXPECT_NEAR(cut, 2 * mixtral.parameters() / 8, 0.02 * cut);
}

// Every GPU keeps the whole latent of a token, and the projections down to it; the rest is cut.
TEST(MemoryPlan, LatentAttentionIsCutByHeadsAndItsCacheIsNot) {
  const Architecture m = load_model("deepseek-v3");
  const double table = 163840.0 * 64, norms = 61 * (2 * 7168 + 1536 + 512.0) + 7168;
  const double down = 61 * 7168.0 * (1536 + 576), router = 58 * (7168.0 + 1) * 256;
  Deployment d;
  EXPECT_EQ(weight_bytes_per_gpu(m, d), 2 * (m.parameters() + table));
  EXPECT_EQ(kv_bytes_per_token(m, d), 70272);  // 61 × 576 × 2
  d.tensor_parallel = 8;
  EXPECT_EQ(weight_bytes_per_gpu(m, d),
            2 * ((m.parameters() - norms - down - router) / 8 + norms + down + router + table));
  EXPECT_EQ(kv_bytes_per_token(m, d), 70272);
  const double cut = weight_bytes_per_gpu(m, d);
  d.expert_parallel = 8;
  EXPECT_EQ(weight_bytes_per_gpu(m, d), cut);
  d.kv_cache = Precision::fp8;
  EXPECT_EQ(kv_bytes_per_token(m, d), 70272 / 2);
  // DeepSeek-V2-Lite has one plain q projection, cut by heads.
  const Architecture lite = load_model("deepseek-v2-lite");
  EXPECT_EQ(weight_bytes_per_gpu(lite, {}), 2 * (lite.parameters() + table));
  EXPECT_EQ(kv_bytes_per_token(lite, {.tensor_parallel = 4}), 27 * 576 * 2);
}

// FP8 keeps a 16-bit copy of kv_b for decode beside the 8-bit one.
TEST(MemoryPlan, QuantisedLatentAttentionKeepsKvBInSixteenBitsToo) {
  const Architecture m = load_model("deepseek-v3");
  Deployment d;
  d.weights = Precision::fp8;
  const double outside = 2 * 129280.0 * 7168 + 61 * (2 * 7168 + 1536 + 512.0) + 7168 + 58 * (7168.0 + 1) * 256;
  const double linear = m.parameters() - outside, kv_b = 61 * 512.0 * 128 * 256, table = 163840.0 * 64;
  const double channels =
      61 * (1536 + 128 * 192.0 + 576 + 128 * 256 + 7168) + 3 * (2 * 18432.0 + 7168) + 58 * 257 * (2 * 2048.0 + 7168);
  EXPECT_EQ(weight_bytes_per_gpu(m, d), linear + 2 * (outside + kv_b + table) + 4 * channels);
}

TEST(MemoryPlan, DenseLayersLieInTheFirstStages) {
  const Architecture m = load_model("deepseek-v3");
  Deployment d;
  d.pipeline_parallel = 61;  // one layer each
  const MemoryPlan p = plan_memory(m, d, kPlenty, {});
  const double table = 163840.0 * 64;
  EXPECT_EQ(p.stages[2].weights_bytes, 2 * (m.layer_parameters(LayerKind::dense) + table));
  EXPECT_EQ(p.stages[3].weights_bytes, 2 * (m.layer_parameters(LayerKind::moe) + table));
  // Qwen1.5-MoE: a shared expert with a gate.
  const Architecture qwen = load_model("qwen1.5-moe-a2.7b");
  EXPECT_EQ(weight_bytes_per_gpu(qwen, {}), 2 * (qwen.parameters() + 8192.0 * 128));
}

// 671 GB of FP8 weights: not on eight H100s, and on eight H200s.
TEST(MemoryPlan, DeepSeekR1NeedsEightH200) {
  Deployment d;
  d.weights = Precision::fp8;
  d.tensor_parallel = 8;
  d.max_batched_tokens = 8192;
  EXPECT_FALSE(plan("deepseek-r1", d, 80e9).fits);
  const MemoryPlan p = plan("deepseek-r1", d, 141e9);
  EXPECT_TRUE(p.fits);
  EXPECT_NEAR(p.weights_bytes, 671e9 / 8, 4e9);
  EXPECT_GT(plan("deepseek-r1", d, 180e9).kv_tokens, p.kv_tokens);
}

TEST(MemoryPlan, TermsAddUpToTheBudget) {
  const StackMemory stack{.context_bytes = 0.5e9, .graphs_bytes = 0.7e9, .communication_bytes = 0.3e9};
  Deployment d;
  d.tensor_parallel = 2;
  const MemoryPlan p = plan("llama-3-70b", d, 141e9, stack);
  ASSERT_TRUE(p.fits);
  EXPECT_EQ(p.budget_bytes, 0.9 * 141e9);
  const double block = p.kv_bytes_per_token * 16,
               left = p.budget_bytes - p.weights_bytes - p.activation_bytes - 0.3e9 - p.kv_bytes;
  EXPECT_GE(left, 0);
  EXPECT_LT(left, block);  // whole blocks
  EXPECT_EQ(p.kv_tokens, p.kv_blocks * 16);
  EXPECT_DOUBLE_EQ(p.kv_bytes, static_cast<double>(p.kv_tokens) * p.kv_bytes_per_token);
  EXPECT_EQ(p.reserved_bytes(), 1.5e9);
  // One GPU needs no collectives.
  EXPECT_EQ(plan("llama-3-8b", {}, k80GB, stack).communication_bytes, 0);
  // With a fraction of one, the context and the graphs cut the budget instead of hiding in what is left.
  d.gpu_memory_fraction = 1;
  EXPECT_EQ(plan("llama-3-70b", d, 141e9, stack).budget_bytes, 141e9 - 1.2e9);
}

TEST(MemoryPlan, GivenKvTokensOverrideThePlan) {
  Deployment d;
  d.kv_tokens = 41408;
  const MemoryPlan p = plan("llama-3.1-8b", d, 24e9);
  EXPECT_TRUE(p.fits);
  EXPECT_TRUE(p.kv_given);
  EXPECT_EQ(p.kv_tokens, 41408);
  EXPECT_EQ(p.kv_blocks, 2588);
  EXPECT_EQ(p.kv_bytes, 41408 * 131072.0);
  EXPECT_FALSE(plan("llama-3-70b", d, 24e9).fits);  // the weights alone are too big
  d.context_tokens = 50000;
  EXPECT_FALSE(plan("llama-3.1-8b", d, 24e9).fits);
}

TEST(MemoryPlan, ShortfallIsExactlyWhatIsMissing) {
  Deployment d;
  d.context_tokens = 8192;
  const MemoryPlan p = plan("llama-3-8b", d, 16e9);
  ASSERT_FALSE(p.fits);
  const double room = p.budget_bytes - p.weights_bytes - p.activation_bytes;
  EXPECT_DOUBLE_EQ(p.shortfall_bytes, 8192 * 131072.0 - room);
  // That much more budget, and it fits; a block less, and it does not.
  EXPECT_TRUE(plan("llama-3-8b", d, 16e9 + (p.shortfall_bytes + 1) / 0.9).fits);
  EXPECT_FALSE(plan("llama-3-8b", d, 16e9 + (p.shortfall_bytes - 1e6) / 0.9).fits);
}

TEST(MemoryPlan, MoreMemoryNeverHoldsFewerTokens) {
  int64_t before = 0;
  for (double bytes = 16e9; bytes < 200e9; bytes *= 1.07) {
    const int64_t tokens = plan("llama-3-8b", {}, bytes).kv_tokens;
    EXPECT_GE(tokens, before);
    before = tokens;
  }
  EXPECT_GT(before, 0);
}

TEST(MemoryPlan, AnEncoderHasNoKv) {
  const MemoryPlan p = plan("bert-base", {}, 4e9);
  EXPECT_TRUE(p.fits);
  EXPECT_EQ(p.kv_tokens, 0);
  EXPECT_FALSE(plan("bert-base", {}, 0.2e9).fits);
}

TEST(MemoryPlan, ConcurrencyCountsWholeBlocks) {
  EXPECT_EQ(max_concurrency(41408, 16, 2048), 20);  // 2588 blocks, 128 each
  EXPECT_EQ(max_concurrency(41408, 16, 2049), 20);  // 129 each
  EXPECT_EQ(max_concurrency(41408, 16, 41409), 0);
  EXPECT_EQ(max_concurrency(41408, 16, 1), 2588);
}

const RemedyOptions kH100Cluster{.gpu = "h100-sxm",
                                 .gpus_per_node = 8,
                                 .gpus = 8,
                                 .catalogue = {{"a100-sxm-40gb", 40e9},
                                               {"h200-sxm", 141e9},
                                               {"b200", 180e9},
                                               {"mi300x", 192e9},
                                               {"b300", 288e9},
                                               {"h100-sxm", k80GB}}};

std::string remedies(const char* model, const Deployment& d, double gpu_bytes = k80GB) {
  std::string all;
  for (const auto& line : memory_remedies(load_model(model), d, gpu_bytes, {}, kH100Cluster)) all += line + "\n";
  return all;
}

TEST(MemoryRemedies, NameFormatsDegreesAndGpusThatFit) {
  Deployment d;
  d.context_tokens = 4096;
  const std::string text = remedies("llama-3-70b", d);
  EXPECT_NE(text.find("weights = \"int4\""), std::string::npos) << text;
  EXPECT_EQ(text.find("weights = \"fp8\""), std::string::npos) << text;                  // 70 GB of 72
  EXPECT_NE(text.find("tensor_parallel = 4: 4 × h100-sxm"), std::string::npos) << text;  // two have room for 736 tokens
  EXPECT_NE(text.find("b200 (180 GB), mi300x (192 GB), b300 (288 GB)"), std::string::npos) << text;
  EXPECT_EQ(text.find("max_batched_tokens"), std::string::npos) << text;
}

TEST(MemoryRemedies, PipelineOverNodesWhereOneNodeIsTooSmall) {
  Deployment d;
  d.tensor_parallel = 8;
  const std::string text = remedies("llama-3-405b", d);
  EXPECT_NE(text.find("tensor_parallel = 8, pipeline_parallel = 2: 16 × h100-sxm"), std::string::npos) << text;
  EXPECT_NE(text.find("the cluster has 8"), std::string::npos) << text;
}

TEST(MemoryRemedies, SmallerStepsWhereThatIsEnough) {
  Deployment d;
  d.max_batched_tokens = 131072;  // 14.5 GB of activations
  d.context_tokens = 4096;
  const std::string text = remedies("llama-3-8b", d, 32e9);
  EXPECT_NE(text.find("max_batched_tokens = 65536"), std::string::npos) << text;
  d.max_batched_tokens = 2048;
  d.context_tokens = 200000;
  EXPECT_NE(remedies("llama-3-8b", d, 24e9).find("requests of at most "), std::string::npos);
}

// A degree that does not divide the layers is proposed only where the deployment says itself how to deal them out.
TEST(MemoryRemedies, APartitionOfTheDeploymentsOwnStays) {
  Deployment d;
  d.tensor_parallel = 4;
  d.pipeline_parallel = 4;
  EXPECT_EQ(remedies("llama-3-405b", d, 36e9).find("tensor_parallel = 8, pipeline_parallel = 4"), std::string::npos);
  d.pipeline_partition = {31, 32, 32, 31};
  EXPECT_NE(remedies("llama-3-405b", d, 36e9).find("tensor_parallel = 8, pipeline_parallel = 4"), std::string::npos);
}

// 61 layers have no divisor: equal stages would be one layer each.
TEST(MemoryRemedies, StagesOfUnequalDepthWhereEqualOnesAreAbsurd) {
  Deployment d;
  d.weights = Precision::fp8;
  d.tensor_parallel = 8;
  const std::string text = remedies("deepseek-r1", d);
  EXPECT_NE(text.find("tensor_parallel = 8, pipeline_parallel = 2, pipeline_partition = [31, 30]: 16 × h100-sxm"),
            std::string::npos)
      << text;
}

// Every remedy is a plan that was computed; none may be proposed that the plan itself refuses.
TEST(MemoryRemedies, WhatIsProposedFits) {
  Deployment d;
  d.max_batched_tokens = 16384;
  d.context_tokens = 8192;
  for (const char* model : {"llama-3-8b", "llama-3-70b", "mixtral-8x7b", "yi-34b", "gpt3-175b", "deepseek-v2-lite"}) {
    for (const double bytes : {16e9, 24e9, 48e9, 80e9}) {
      const Architecture m = load_model(model);
      if (plan_memory(m, d, bytes, {}).fits) continue;
      for (const auto& line : memory_remedies(m, d, bytes, {}, kH100Cluster)) {
        Deployment other = d;
        long tensor = 0, pipeline = 0, number = 0;
        double fraction = 0;
        if (sscanf(line.c_str(), "tensor_parallel = %ld, pipeline_parallel = %ld", &tensor, &pipeline) >= 1) {
          other.tensor_parallel = tensor;
          other.pipeline_parallel = std::max(1L, pipeline);
          EXPECT_FALSE(parallel_problem(m, other.tensor_parallel, other.pipeline_parallel, 1)) << line;
        } else if (sscanf(line.c_str(), "max_batched_tokens = %ld", &number) == 1) {
          other.max_batched_tokens = number;
        } else if (sscanf(line.c_str(), "max_sequences = %ld", &number) == 1) {
          other.max_sequences = number;
        } else if (sscanf(line.c_str(), "gpu_memory_fraction = %lf", &fraction) == 1) {
          other.gpu_memory_fraction = fraction;
        } else if (sscanf(line.c_str(), "requests of at most %ld", &number) == 1) {
          other.context_tokens = number;
        } else if (line.starts_with("weights")) {
          for (const Precision p : {Precision::fp8, Precision::int8, Precision::int4})
            if (line.find("\"" + std::string(name_of(p)) + "\"") != std::string::npos) other.weights = p;
        } else if (line.starts_with("kv_cache")) {
          other.kv_cache = Precision::fp8;
        } else {
          EXPECT_TRUE(line.starts_with("another GPU")) << line;
          continue;
        }
        EXPECT_TRUE(plan_memory(m, other, bytes, {}).fits) << model << " on " << bytes << ": " << line;
      }
    }
  }
}

}  // namespace
}  // namespace dssim
