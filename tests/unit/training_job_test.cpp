// SPDX-License-Identifier: Apache-2.0
// Rules of a training job, the split of layers, the stacks, and the order statistic that stragglers use.
#include <gtest/gtest.h>

#include <numeric>

#include "platforms/node.hpp"
#include "sim/base/error.hpp"
#include "sim/training/layer_cost.hpp"
#include "support/training.hpp"

namespace dssim {
namespace {

TrainingJob job_of(int64_t layers) {
  TrainingJob job;
  job.model = test::gpt(1024, layers, 16, 51200, 2048);
  job.global_batch = 64;
  return job;
}

TEST(TrainingJob, LayersDivideOrLeaveTheEndsShort) {
  EXPECT_EQ(layers_by_position(8, 4), (std::vector<int64_t>{2, 2, 2, 2}));
  EXPECT_EQ(layers_by_position(7, 4), (std::vector<int64_t>{2, 2, 2, 1}));
  // Llama 3 405B: 126 layers over 16 stages, the first and the last with one fewer.
  const auto split = layers_by_position(126, 16);
  ASSERT_EQ(split.size(), 16U);
  EXPECT_EQ(split.front(), 7);
  EXPECT_EQ(split[1], 8);
  EXPECT_EQ(split.back(), 7);
  EXPECT_EQ(std::accumulate(split.begin(), split.end(), int64_t{0}), 126);
  EXPECT_EQ(layers_by_position(126, 128).front(), 0);  // the embedding alone
  // DeepSeek-V3: 61 layers over 16 stages; the last holds two fewer than the others, and a prediction module beside
  // them.
  const auto deepseek = layers_by_position(61, 16);
  ASSERT_EQ(deepseek.size(), 16U);
  EXPECT_EQ(deepseek.front(), 3);
  EXPECT_EQ(deepseek[1], 4);
  EXPECT_EQ(deepseek.back(), 2);
  EXPECT_EQ(std::accumulate(deepseek.begin(), deepseek.end(), int64_t{0}), 61);
  EXPECT_TRUE(layers_by_position(31, 7).empty());
  EXPECT_TRUE(layers_by_position(1, 2).empty());
}

TEST(TrainingJob, NamesTheKeyThatBreaksARule) {
  const auto key_of = [](const auto& change) {
    TrainingJob job = job_of(24);
    change(job);
    return training_problem(job).key;
  };
  EXPECT_EQ(key_of([](TrainingJob&) {}), "");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.tensor_parallel = 3; }), "tensor_parallel");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.pipeline_parallel = 7; }), "pipeline_parallel");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.data_parallel = 5; }), "global_batch");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.context_parallel = 3; }), "context_parallel");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.expert_parallel = 2; }), "expert_parallel");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.routed_nodes = 4; }), "routed_nodes");
  // What would change nothing: experts that are not there, next tokens of an encoder, 8 bits beside 32.
  EXPECT_EQ(key_of([](TrainingJob& j) { j.dispatch = ExpertDispatch::deepep; }), "expert_dispatch");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.dispatch_precision = Precision::fp8; }), "dispatch_precision");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.mtp = 1; }), "");
  EXPECT_EQ(key_of([](TrainingJob& j) {
              j.mtp = 1;
              j.model.family = Family::encoder;
            }),
            "mtp");
  const auto wide = [](TrainingJob& j) {
    j.model = load_model("mixtral-8x7b");
    j.precision = Precision::fp32;
  };
  EXPECT_EQ(key_of(wide), "");
  EXPECT_EQ(key_of([&](TrainingJob& j) { wide(j), j.dispatch_precision = Precision::fp8; }), "dispatch_precision");
  EXPECT_EQ(key_of([&](TrainingJob& j) { wide(j), j.kept_precision = Precision::fp8; }), "kept_precision");
  EXPECT_EQ(key_of([&](TrainingJob& j) { wide(j), j.routed_nodes = 4; }), "routed_nodes");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.virtual_stages = 2; }), "virtual_stages");
  EXPECT_EQ(key_of([](TrainingJob& j) { j.sequence = 4096; }), "sequence");
  EXPECT_EQ(key_of([](TrainingJob& j) {
              j.compression = GradientCompression::four_bit;
              j.sharding = Sharding::zero3;
            }),
            "gradient_compression");
}

TEST(TrainingStack, TheGpusOwnOrTheMostLikeIt) {
  EXPECT_EQ(load_training_stack(load_gpu("a100-sxm-80gb"), "megatron").gpu, "a100-sxm-80gb");
  EXPECT_EQ(load_training_stack(load_gpu("h100-sxm"), "megatron").gpu, "h100-sxm");
  EXPECT_EQ(load_training_stack(load_gpu("a100-sxm-40gb"), "megatron").gpu, "a100-sxm-80gb");
  EXPECT_EQ(load_training_stack(load_gpu("h200-sxm"), "").gpu, "h200-sxm");
  EXPECT_THROW(load_training_stack(load_gpu("h100-sxm"), "megatorn"), Error);
}

TEST(TrainingStack, KernelsOfTheGpuItselfUnderItsPowerCap) {
  const Gpu h100 = load_gpu("h100-sxm"), h200 = load_gpu("h200-sxm"), h800 = load_gpu("h800-sxm");
  const auto megatron = load_training_stack(h100, "megatron");
  EXPECT_TRUE(megatron.power_cap.acts());
  EXPECT_EQ(megatron.sustained_matmul, 1);
  EXPECT_EQ(load_training_kernels(h100, megatron).stack().name, "dssim-1");
  EXPECT_FALSE(load_training_kernels(h100, megatron).transferred());
  EXPECT_EQ(load_training_kernels(h200, load_training_stack(h200, "megatron")).stack().gpu, "h200-sxm");
  // A GPU without tables takes those of the most similar one, and the cap that goes with the training figures.
  const auto carried = load_training_stack(h800, "megatron");
  EXPECT_TRUE(carried.power_cap.acts());
  EXPECT_TRUE(load_training_kernels(h800, carried).transferred());
  // Tables that were taken in long runs have it in them.
  EXPECT_FALSE(load_training_stack(h200, "torch-2.11").power_cap.acts());
  EXPECT_LT(load_training_stack(h200, "torch-2.11").sustained_matmul, 1);
}

TEST(TrainingStack, ExpectedMaximumOfNormalDraws) {
  // Tabulated order statistics (Harter 1961): n = 2: 0.5642, 10: 1.5388, 100: 2.5076; Blom's formula is within 2 %.
  EXPECT_EQ(expected_maximum(1), 0);
  EXPECT_NEAR(expected_maximum(2), 0.5642, 0.03);
  EXPECT_NEAR(expected_maximum(10), 1.5388, 0.02);
  EXPECT_NEAR(expected_maximum(100), 2.5076, 0.02);
}

}  // namespace
}  // namespace dssim
