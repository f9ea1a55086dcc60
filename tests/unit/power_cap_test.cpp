// SPDX-License-Identifier: Apache-2.0

#include "kernels/power_cap.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "platforms/node.hpp"
#include "workloads/step_model.hpp"

namespace dssim {
namespace {

// Memory-bound work loses nothing, a large product a fifth.
const std::vector<PowerCapSample> kKernels{{0.1, 1, 1}, {0.8, 1, 1.2}};
constexpr double kBurst = 0.05;

TEST(PowerCap, SlowdownIsThatOfTheNearestMeasuredKernels) {
  const PowerCap cap(kKernels, kBurst);
  EXPECT_NEAR(cap.slowdown(0.1), 1, 1e-6);
  EXPECT_NEAR(cap.slowdown(0.8), 1.2, 1e-6);
  EXPECT_NEAR(cap.slowdown(0.45), 1.1, 1e-3);  // half way
  EXPECT_NEAR(cap.compute_bound(cap.slowdown(0.8)), 1, 1e-6);
  EXPECT_NEAR(cap.compute_bound(1), 0, 1e-6);
}

TEST(PowerCap, WithoutTablesNothingIsLost) {
  const PowerCap none;
  GpuHeat heat;
  EXPECT_FALSE(none.acts());
  EXPECT_EQ(none.slowdown(0.8), 1);
  EXPECT_EQ(heat.run(none, 10, 12, 1, 0), 1);
}

TEST(PowerCap, PureProductsReachTheCapAfterTheMeasuredBurst) {
  const PowerCap cap(kKernels, kBurst);
  GpuHeat heat;
  EXPECT_NEAR(heat.run(cap, 0.2, 0.24, 1, 0), kBurst / 0.2, 1e-6);
  EXPECT_NEAR(heat.run(cap, 0.2, 0.24, 1, 0.05 + 0.75 * 0.24), 0, 1e-6);  // right after: no burst is left
}

TEST(PowerCap, ManyShortPiecesAreOneLongOne) {
  const PowerCap cap(kKernels, kBurst);
  GpuHeat heat;
  double now = 0, in_burst = 0;
  for (int i = 0; i < 100; ++i) {
    const double share = heat.run(cap, 0.002, 0.0024, 1, now);
    in_burst += 0.002 * share;
    now += 0.002 * share + 0.0024 * (1 - share);
  }
  EXPECT_NEAR(in_burst, kBurst, 1e-6);
}

// Four batches in flight, each of which keeps every stage at work for a quarter of its step.
TEST(PowerCap, AStageOfAPipelineHeatsByItsPartOfEachStep) {
  const PowerCap cap(kKernels, kBurst);
  GpuHeat alone, stage(4);
  for (double now = 0; now < 1; now += 0.01) {
    const double share = alone.run(cap, 0.008, 0.0096, 0.55, now);
    EXPECT_NEAR(stage.run(cap, 0.032, 0.0384, 0.55, now), share, 1e-12);
  }
  alone.run(cap, 0.2, 0.24, 1, 1);
  stage.run(cap, 0.8, 0.96, 1, 1);
  EXPECT_NEAR(stage.run(cap, 0.8, 0.96, 1, 1.5), alone.run(cap, 0.2, 0.24, 1, 1.5), 1e-12);  // both rested as long
}

TEST(PowerCap, RestAndMemoryBoundWorkCoolAlike) {
  const PowerCap cap(kKernels, kBurst);
  GpuHeat idle, decoding;
  idle.run(cap, 0.2, 0.24, 1, 0);
  decoding.run(cap, 0.2, 0.24, 1, 0);
  const double end = 0.05 + 0.75 * 0.24;
  decoding.run(cap, 0.1, 0.1, 0, end);
  const double after_idle = idle.run(cap, 0.2, 0.24, 1, end + 0.1);
  EXPECT_NEAR(decoding.run(cap, 0.2, 0.24, 1, end + 0.1), after_idle, 1e-9);
  EXPECT_NEAR(after_idle, (1 - std::exp(-2.0)) * kBurst / 0.2, 1e-6);  // two time constants of rest
}

TEST(PowerCap, WorkLessThanHalfComputeBoundNeverGetsThere) {
  const PowerCap cap(kKernels, kBurst);
  GpuHeat heat;
  double now = 0;
  for (int i = 0; i < 1000; ++i, now += 0.01) EXPECT_EQ(heat.run(cap, 0.01, 0.0108, 0.49, now), 1);
  GpuHeat more;
  double least = 1;
  for (int i = 0; i < 1000; ++i) least = std::min(least, more.run(cap, 0.01, 0.0108, 0.6, 0.011 * i));
  EXPECT_LT(least, 1);
}

class PowerCappedSteps : public testing::Test {
 protected:
  static Architecture llama_8b() {
    Architecture a;
    a.name = "llama";
    a.layers = 32, a.hidden = 4096, a.heads = 32, a.kv_heads = 8, a.head_dim = 128, a.ffn = 14336;
    a.vocabulary = 128256;
    return a;
  }
  const std::string profiles_ = std::string(DSSIM_SOURCE_DIR) + "/kernels/profiles";
};

TEST_F(PowerCappedSteps, PromptsThatFollowEachOtherSlowDownAndDecodesDoNot) {
  const CostModel cost = CostModel::load_from(profiles_, load_gpu("h100-sxm"), "dssim-1");
  ASSERT_TRUE(cost.power_cap().acts());
  StepModel model(llama_8b(), {}, cost);
  const PrefillChunk chunk[] = {{2048, 0, true}};
  GpuHeat heat;
  double now = 0;
  std::vector<double> prompts;
  for (int i = 0; i < 10; ++i) {
    prompts.push_back(model.price({0, 0, chunk}, nullptr, &heat, now).total_s());
    now += prompts.back();
  }
  EXPECT_EQ(prompts.front(), model.price({0, 0, chunk}).total_s());
  EXPECT_GT(prompts.back(), 1.05 * prompts.front());
  EXPECT_LT(prompts.back(), 1.2 * prompts.front());
  const StepShape decode{16, 16 * 1000, {}};
  EXPECT_NEAR(model.price(decode, nullptr, &heat, now).total_s(), model.price(decode).total_s(),
              0.01 * model.price(decode).total_s());
}

TEST_F(PowerCappedSteps, ACapStaysWithTheGpuItWasMeasuredOn) {
  Gpu gpu = load_gpu("h100-sxm");
  gpu.memory_bytes_per_s *= 1.5;  // a what-if is still that GPU
  EXPECT_TRUE(CostModel::load_from(profiles_, gpu, "dssim-1").power_cap().acts());
  EXPECT_FALSE(CostModel::load_from(profiles_, load_gpu("l4"), "dssim-1").power_cap().acts());
}

TEST_F(PowerCappedSteps, BreakdownAndUsageAddUp) {
  const CostModel cost = CostModel::load_from(profiles_, load_gpu("h100-sxm"), "dssim-1");
  StepModel model(llama_8b(), {}, cost);
  const PrefillChunk chunk[] = {{8192, 0, true}};  // longer than a burst
  StepUsage usage;
  const double price = model.price({8, 8 * 1000, chunk}, &usage).total_s();
  double operators = 0, classes = 0;
  for (const auto& o : model.breakdown({8, 8 * 1000, chunk})) operators += o.seconds;
  for (const double s : usage.class_s) classes += s;
  EXPECT_NEAR(operators, price, 1e-9);
  EXPECT_NEAR(classes, price, 1e-9);
}

}  // namespace
}  // namespace dssim
