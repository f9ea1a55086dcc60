// SPDX-License-Identifier: Apache-2.0
// The matrices of a layer against the model's own count of parameters, layers by position and kind, copies of a token
// on its way to experts, and what each choice of [training] does to a layer's cost.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "sim/training/layer_shape.hpp"
#include "sim/training/step.hpp"
#include "support/training.hpp"

namespace dssim {
namespace {

using test::cluster_of;
using test::job_with_defaults;

TEST(LayerShape, MatricesHoldTheLayersParameters) {
  for (const char* name : {"llama-3-8b", "deepseek-v3", "deepseek-v2-lite", "mixtral-8x7b", "qwen1.5-moe-a2.7b"}) {
    const Architecture m = load_model(name);
    double sum = 0;
    for (int64_t layer = 0; layer < m.layers; ++layer) {
      sum += parameters_of(attention_matrices(m, 1));
      if (m.kind_of(layer) == LayerKind::dense) {
        sum += parameters_of(feed_forward_matrices(m, m.ffn_of(LayerKind::dense), 1));
        continue;
      }
      sum += static_cast<double>(m.experts) * parameters_of(feed_forward_matrices(m, m.ffn, 1));
      sum += parameters_of(feed_forward_matrices(m, m.shared_ffn, 1));
    }
    EXPECT_NEAR(sum, m.parameters() - 2.0 * static_cast<double>(m.vocabulary * m.hidden), 0.001 * m.parameters())
        << name;
  }
}

TEST(LayerShape, TensorRanksShareWhatBelongsToHeads) {
  const Architecture m = load_model("deepseek-v3");
  const auto whole = attention_matrices(m, 1), half = attention_matrices(m, 2);
  ASSERT_EQ(whole.size(), 5U);  // q_a, q_b, kv_a, kv_b, o
  const double latents = whole[0].parameters() + whole[2].parameters();
  EXPECT_DOUBLE_EQ(parameters_of(half), (parameters_of(whole) - latents) / 2 + latents);
  const auto widths = attention_widths(m, 1);
  EXPECT_EQ(widths.q, 128 * 192);
  EXPECT_EQ(widths.k, 128 * 192);
  EXPECT_EQ(widths.v, 128 * 128);
  EXPECT_EQ(widths.result, 128 * 128);
  EXPECT_EQ(widths.latent, 1536 + 512 + 64);
}

// Which products end in a sum over the tensor ranks, and which make heads of a latent, is a matter of their place: GPT's
// wide feed-forward on four ranks, and V2-Lite's kv_b on two, have the hidden width by chance.
TEST(LayerShape, ProductsSayWhatTheyAre) {
  const auto closing = [](const std::vector<MatrixShape>& matrices) {
    return std::count_if(matrices.begin(), matrices.end(), [](const auto& m) { return m.closes; });
  };
  const Architecture gpt = test::gpt(4096, 32, 32, 51200, 2048), lite = load_model("deepseek-v2-lite");
  const auto wide = feed_forward_matrices(gpt, gpt.ffn, 4);
  EXPECT_EQ(wide[0].n, 4096);
  EXPECT_FALSE(wide[0].closes);
  EXPECT_TRUE(wide[1].closes);
  const auto latent = attention_matrices(lite, 2);  // q, kv_a, kv_b, o
  ASSERT_EQ(latent.size(), 4U);
  EXPECT_EQ(latent[2].n, lite.hidden);
  for (const auto& matrices :
       {wide, latent, attention_matrices(gpt, 4), attention_matrices(load_model("deepseek-v3"), 8)})
    EXPECT_TRUE(closing(matrices) == 1 && matrices.back().closes);
  for (const auto& matrix : latent) EXPECT_EQ(matrix.expands, matrix.k == 512);
}

TEST(LayerShape, DenseLayersComeFirstAndPredictionLast) {
  TrainingJob job;
  job.model = load_model("deepseek-v3");
  job.mtp = 1;
  const auto layers = position_layers(job, 16);
  EXPECT_EQ(layers.front().dense, 3);
  EXPECT_EQ(layers.front().moe, 0);
  EXPECT_EQ(layers[1].moe, 4);
  EXPECT_EQ(layers.back().moe, 3);  // two, and the module's
  EXPECT_EQ(layers.back().mtp, 1);
}

TEST(ExpertExchange, CopiesOfAToken) {
  // One expert: one GPU, on the token's own node once in so many.
  const auto one = token_copies(1, 64, 8, 0);
  EXPECT_NEAR(one.over_nic, 7.0 / 8, 1e-12);
  EXPECT_NEAR(one.over_node_links, 7.0 / 8, 1e-12);
  // In one node nothing goes over the NIC.
  EXPECT_EQ(token_copies(8, 8, 8, 0).over_nic, 0);
  // Eight experts on at most four of eight nodes reach 4 (1 − 0.75⁸) = 3.6 of them, one in eight the token's own;
  // without the bound 8 (1 − 0.875⁸) = 5.25.
  EXPECT_NEAR(token_copies(8, 64, 8, 4).over_nic, 4 * (1 - std::pow(0.75, 8)) * 7 / 8, 1e-12);
  EXPECT_NEAR(token_copies(8, 64, 8, 0).over_nic, 8 * (1 - std::pow(0.875, 8)) * 7 / 8, 1e-12);
  // More GPUs share as many experts: never more than a copy for each.
  for (const int ranks : {8, 16, 64, 256}) EXPECT_LT(token_copies(8, ranks, 8, 0).over_node_links, 8);
}

class DeepSeekLayer : public testing::Test {
 protected:
  DeepSeekLayer() : predictor(cluster_of("hgx-h800", 128, 8, "fabric = \"ndr400-rail\"\n"), "megatron") {
    job = job_with_defaults(predictor.stack(), load_model("deepseek-v3"));
    job.precision = Precision::fp8;
    job.sequence = 4096;
    job.pipeline_parallel = 2;
    job.data_parallel = 64;
    job.expert_parallel = 64;
    job.global_batch = 64 * 4;
    job.sharding = Sharding::zero1;
    job.sequence_parallel = false;
    job.schedule = "dualpipe";
    job.dispatch = ExpertDispatch::deepep;
    job.routed_nodes = 4;
  }
  double step_with(const std::function<void(TrainingJob&)>& change) {
    TrainingJob changed = job;
    change(changed);
    EXPECT_FALSE(training_problem(changed)) << training_problem(changed).message;
    return predictor.predict(changed).step_s();
  }
  StepPredictor predictor;
  TrainingJob job;
};

TEST_F(DeepSeekLayer, EachChoiceCostsOrSaves) {
  const double base = step_with([](TrainingJob&) {});
  EXPECT_GT(step_with([](TrainingJob& j) { j.routed_nodes = 0; }), base);
  EXPECT_GT(step_with([](TrainingJob& j) { j.routed_nodes = 0, j.dispatch = ExpertDispatch::all_to_all; }), base);
  EXPECT_LT(step_with([](TrainingJob& j) { j.dispatch_precision = Precision::fp8; }), base);
  EXPECT_GT(step_with([](TrainingJob& j) { j.mtp = 1; }), base);
  EXPECT_GT(step_with([](TrainingJob& j) { j.schedule = "1f1b"; }), base);
  EXPECT_GT(step_with([](TrainingJob& j) { j.attention = TrainingAttention::flash_2; }),
            step_with([](TrainingJob& j) { j.attention = TrainingAttention::flash; }));
  EXPECT_GT(step_with([](TrainingJob& j) { j.precision = Precision::bf16; }), base);
}

TEST_F(DeepSeekLayer, SelectiveRecomputationMakesWhatLatentAttentionExpands) {
  TrainingJob light = job;
  light.recompute = Recompute::selective;
  const TrainingStack& stack = predictor.stack();
  // Queries, keys and values of 128 heads less, their latents kept either way; and the input of each half's product, in
  // 8 bits.
  const auto widths = attention_widths(job.model, 1);
  const double tokens = 4096, hidden = 7168;
  const double less =
      layer_activation_bytes(job, stack, LayerKind::dense) - layer_activation_bytes(light, stack, LayerKind::dense);
  EXPECT_NEAR(less, tokens * (2 * widths.all() + 2 * hidden), 1e-6 * less);
  EXPECT_GT(step_with([](TrainingJob& j) { j.recompute = Recompute::selective; }), step_with([](TrainingJob&) {}));
  // Kept in 8 bits, gate and up of nine experts take half.
  TrainingJob kept = light;
  kept.kept_precision = Precision::fp8;
  EXPECT_NEAR(
      layer_activation_bytes(light, stack, LayerKind::moe) - layer_activation_bytes(kept, stack, LayerKind::moe),
      tokens * 9 * 2048 * 2, 1);
}

// Full recomputation runs the prediction modules' layers again as well: of an MoE layer with its eight experts and the
// shared one, forward once more.
TEST_F(DeepSeekLayer, HardwareFlopsCountModulesThatAreRunAgain) {
  const auto flops = [&](Recompute recompute, int mtp) {
    TrainingJob changed = job;
    changed.recompute = recompute;
    changed.mtp = mtp;
    return hardware_flops_per_step(changed) / changed.tokens_per_step();
  };
  const Architecture& m = job.model;
  const double hidden = 7168, attention = 2.0 * static_cast<double>(128 * (192 + 128) * job.sequence);
  const double layer = 2 * (parameters_of(attention_matrices(m, 1)) + 9 * 3 * 2048 * hidden + 256 * hidden) + attention;
  const double module = flops(Recompute::none, 1) - flops(Recompute::none, 0);
  EXPECT_NEAR(flops(Recompute::full, 1) - flops(Recompute::full, 0), module + layer, 1e-9 * module);
  EXPECT_NEAR(module, 3 * layer + 6 * (2 * hidden * hidden + hidden * 129280), 1e-9 * module);
}

// The first stage's layers are dense and send nothing to experts; the others' links are what is reported.
TEST_F(DeepSeekLayer, TheFabricCarriesTheExchangeOfTheStageWithMostExperts) {
  job.pipeline_parallel = 16;
  job.data_parallel = 64;
  job.schedule = "1f1b";
  const auto fabric_bytes = [&](const TrainingJob& j) {
    const auto step = predictor.predict(j);
    return step.fabric.bytes;
  };
  TrainingJob silent = job;
  silent.expert_parallel = 8;  // in the node: only gradients and sends go through the NIC
  const double copies = 4 * (1 - std::pow(0.75, 8)) * 7 / 8, micro_batches = 4;
  const double exchange =
      copies * 4096 * 7168 * (2 + 2) * 2 * 4 * micro_batches;  // out and back, both passes, 4 layers
  EXPECT_GT(fabric_bytes(job), exchange);
  EXPECT_LT(fabric_bytes(job), exchange + 1.5 * fabric_bytes(silent));
}

TEST_F(DeepSeekLayer, FewerNicsSlowTheExchangeAndFillFaster) {
  const auto with_nics = [&](int nics) {
    StepPredictor other(
        cluster_of("hgx-h800", 128, 8,
                   fmt::format("fabric = \"ndr400-rail\"\noverride = {{ \"fabric.nics_per_node\" = {} }}\n", nics)),
        "megatron");
    return other.predict(job);
  };
  const auto eight = with_nics(8), four = with_nics(4);
  EXPECT_GT(four.step_s(), eight.step_s());
  EXPECT_GT(four.parts.expert_s, 1.2 * eight.parts.expert_s);
  EXPECT_NEAR(four.fabric.bytes, 2 * eight.fabric.bytes, 0.2 * four.fabric.bytes);  // of the busiest NIC
}

TEST_F(DeepSeekLayer, PartsSumToTheStep) {
  job.mtp = 1;
  const auto step = predictor.predict(job);
  double sum = 0;
  for (const auto& [name, seconds] : step.parts.named()) {
    EXPECT_GE(seconds, 0) << name;
    sum += seconds;
  }
  EXPECT_NEAR(sum, step.step_s(), 1e-9);
  EXPECT_GT(step.hfu(), step.mfu());  // the prediction module is none of the FLOPs the model needs
  EXPECT_GT(step.fabric.bytes, 0);
}

}  // namespace
}  // namespace dssim
