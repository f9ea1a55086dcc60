// SPDX-License-Identifier: Apache-2.0
// Activations against the closed forms of Korthikanti et al. 2022 (arXiv 2205.05198), section 4, and the remedies.
#include <gtest/gtest.h>

#include "sim/training/memory.hpp"
#include "support/training.hpp"

namespace dssim {
namespace {

constexpr double kSequence = 2048, kBatch = 4, kHidden = 12288, kHeads = 96;

struct Case {
  int tensor;
  bool sequence_parallel;
  Recompute recompute;
  TrainingAttention attention;
  double expected;  // in units of s b h bytes
};

TEST(TrainingMemory, ActivationsOfALayerAsPublished) {
  TrainingStack stack;  // what every framework keeps: 2 bytes for a norm's input
  stack.dropout_values = 0.5;
  const double scores = 5 * kHeads * kSequence / kHidden;
  using enum TrainingAttention;
  const Case cases[] = {
      {1, false, Recompute::none, unfused, 34 + scores},
      {8, false, Recompute::none, unfused, 10 + 24.0 / 8 + scores / 8},
      {8, true, Recompute::none, unfused, (34 + scores) / 8},
      {8, false, Recompute::selective, unfused, 10 + 24.0 / 8},
      {8, true, Recompute::selective, unfused, 34.0 / 8},
      {8, true, Recompute::selective, flash,
       (34 - 4 - 8) / 8.0 + 4 * kHeads / kHidden / 8},  // no norm outputs, no GELU output
      {8, false, Recompute::full, unfused, 2},
      {8, true, Recompute::full, unfused, 2.0 / 8},
  };
  for (const auto& c : cases) {
    TrainingJob job;
    job.model = test::gpt(12288, 96, 96, 51200, 2048);
    job.micro_batch = 4;
    job.sequence = 2048;
    job.tensor_parallel = c.tensor;
    job.sequence_parallel = c.sequence_parallel;
    job.recompute = c.recompute;
    job.attention = c.attention;
    EXPECT_NEAR(layer_activation_bytes(job, stack), c.expected * kSequence * kBatch * kHidden,
                1e-6 * kSequence * kBatch * kHidden)
        << "tensor " << c.tensor << " sequence parallel " << c.sequence_parallel << " recompute "
        << static_cast<int>(c.recompute);
  }
}

TEST(TrainingMemory, ContextParallelismDividesActivations) {
  TrainingStack stack;
  TrainingJob job;
  job.model = test::gpt(4096, 32, 32, 51200, 8192);
  job.sequence = 8192;
  const double whole = layer_activation_bytes(job, stack);
  job.context_parallel = 4;
  EXPECT_DOUBLE_EQ(layer_activation_bytes(job, stack), whole / 4);
}

TEST(TrainingMemory, OptimizerStates) {
  TrainingJob job;
  EXPECT_EQ(optimizer_bytes_per_parameter(job), 12);  // two fp32 moments, fp32 master weights
  job.optimizer = Optimizer::adamw_8bit;
  EXPECT_EQ(optimizer_bytes_per_parameter(job), 6);
  job.optimizer = Optimizer::sgd;
  EXPECT_EQ(optimizer_bytes_per_parameter(job), 4);
  job.optimizer = Optimizer::adamw;
  job.state_precision = Precision::bf16;
  job.master_weights = false;
  EXPECT_EQ(optimizer_bytes_per_parameter(job), 4);
  job.precision = Precision::fp32;
  job.master_weights = true;  // the weights are their own
  EXPECT_EQ(optimizer_bytes_per_parameter(job), 4);
}

TEST(TrainingMemory, PipelineStagesHoldTheirShareOfTheModel) {
  TrainingJob job;
  job.model = test::gpt(2048, 24, 16, 51200, 2048);
  const double whole = stage_parameters(job, 0).total();
  EXPECT_NEAR(whole, job.model.parameters(), 0.001 * whole);
  job.pipeline_parallel = 4;
  job.global_batch = 8;
  double sum = 0;
  for (int s = 0; s < 4; ++s) sum += stage_parameters(job, s).total();
  // Tied embeddings are held twice: on the first and on the last stage.
  EXPECT_NEAR(sum - whole, 51200.0 * 2048, 0.001 * whole);
}

// Two gathered layers of ZeRO-3 are the largest ones: dense first layers can be larger than those with experts spread
// over many GPUs.
TEST(TrainingMemory, GatheredLayersAreTheLargest) {
  const TrainingStack stack;
  TrainingJob job;
  job.model = load_model("deepseek-v3");
  job.data_parallel = 256;
  job.global_batch = 256;
  job.sharding = Sharding::zero3;
  const auto gathered = [&] { return plan_training_memory(job, stack, 80e9, in_flight_chunks(job)).reserved_bytes; };
  const double attention = parameters_of(attention_matrices(job.model, 1)) + 4.0 * 7168;
  EXPECT_NEAR(gathered(), 2 * 2 * (attention + 257 * 3 * 7168.0 * 2048 + 256.0 * 7168), 1e6);
  job.expert_parallel = 256;
  EXPECT_NEAR(gathered(), 2 * 2 * (attention + 3 * 7168.0 * 18432), 1e6);
}

TEST(TrainingMemory, RemediesMakeItFit) {
  TrainingStack stack;
  TrainingJob job;
  job.model = test::gpt(4096, 36, 32, 51200, 2048);
  job.data_parallel = 8;
  job.global_batch = 8;
  const double gpu_bytes = 80e9;
  EXPECT_FALSE(plan_training_memory(job, stack, gpu_bytes, in_flight_chunks(job)).fits);
  const auto remedies = training_remedies(job, stack, gpu_bytes, 8);
  ASSERT_FALSE(remedies.empty());
  EXPECT_EQ(remedies.front(), "sharding = \"zero1\"");
  job.sharding = Sharding::zero1;
  const auto plan = plan_training_memory(job, stack, gpu_bytes, in_flight_chunks(job));
  EXPECT_TRUE(plan.fits);
  EXPECT_EQ(plan.shortfall_bytes, 0);
}

}  // namespace
}  // namespace dssim
