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
constexpr double kBurst = 0.05, kNoRecovery = 1e-9;

// The share done before the cap of work of burst_s that loses a fifth under it and is so compute-bound; the clock comes
// back at once.
double share_run(GpuHeat& heat, const PowerCap& cap, double burst_s, double compute_bound, double now_s) {
  const GpuWork work{burst_s, burst_s * (1 + 0.2 * compute_bound), 1.2 * burst_s};
  return (work.capped_s - heat.run(cap, work, now_s)) / (work.capped_s - work.burst_s);
}

TEST(PowerCap, SlowdownIsThatOfTheNearestMeasuredKernels) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
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
  EXPECT_EQ(heat.run(none, {10, 12, 12}, 0), 10);
}

TEST(PowerCap, PureProductsReachTheCapAfterTheMeasuredBurst) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  GpuHeat heat;
  EXPECT_NEAR(share_run(heat, cap, 0.2, 1, 0), kBurst / 0.2, 1e-6);
  EXPECT_NEAR(share_run(heat, cap, 0.2, 1, 0.05 + 0.75 * 0.24), 0, 1e-6);  // right after: no burst is left
}

TEST(PowerCap, ManyShortPiecesAreOneLongOne) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  GpuHeat heat;
  double now = 0, in_burst = 0;
  for (int i = 0; i < 100; ++i) {
    const double share = share_run(heat, cap, 0.002, 1, now);
    in_burst += 0.002 * share;
    now += 0.002 * share + 0.0024 * (1 - share);
  }
  EXPECT_NEAR(in_burst, kBurst, 1e-6);
}

// Four batches in flight, each of which keeps every stage at work for a quarter of its step.
TEST(PowerCap, AStageOfAPipelineHeatsByItsPartOfEachStep) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  GpuHeat alone, stage(4);
  for (double now = 0; now < 1; now += 0.01) {
    const double share = share_run(alone, cap, 0.008, 0.55, now);
    EXPECT_NEAR(share_run(stage, cap, 0.032, 0.55, now), share, 1e-12);
  }
  share_run(alone, cap, 0.2, 1, 1);
  share_run(stage, cap, 0.8, 1, 1);
  EXPECT_NEAR(share_run(stage, cap, 0.8, 1, 1.5), share_run(alone, cap, 0.2, 1, 1.5), 1e-12);  // both rested as long
}

TEST(PowerCap, RestAndMemoryBoundWorkCoolAlike) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  GpuHeat idle, decoding;
  share_run(idle, cap, 0.2, 1, 0);
  share_run(decoding, cap, 0.2, 1, 0);
  const double end = 0.05 + 0.75 * 0.24;
  share_run(decoding, cap, 0.1, 0, end);
  const double after_idle = share_run(idle, cap, 0.2, 1, end + 0.1);
  EXPECT_NEAR(share_run(decoding, cap, 0.2, 1, end + 0.1), after_idle, 1e-9);
  EXPECT_NEAR(after_idle, (1 - std::exp(-2.0)) * kBurst / 0.2, 1e-6);  // two time constants of rest
}

// The power management looks at its own times: hotter work does not reach the cap sooner.
TEST(PowerCap, WorkOverTheCapReachesItAfterTheMeasuredBurst) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  for (const double compute_bound : {0.6, 0.8, 1.0}) {
    GpuHeat heat;
    EXPECT_NEAR(share_run(heat, cap, 0.2, compute_bound, 0), kBurst / 0.2, 1e-6) << compute_bound;
  }
}

// Two thirds of products, and a third of memory-bound work: over the cap. Waiting for links for so much of the time that
// its 2.7 of products make up for the excess, (2/3 - 1/3) / 1.7, is not.
TEST(PowerCap, WaitingForLinksCoolsMore) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  const auto run = [&](double links) {
    GpuHeat heat;
    double seconds = 0;
    for (int i = 0; i < 100; ++i) seconds += heat.run(cap, {0.1, 0.1 * (1 + 0.2 * 2 / 3), 0.12, 0.1 * links}, seconds);
    return seconds;
  };
  const double capped = kBurst + (10 - kBurst) * 1.2;
  EXPECT_NEAR(run(0), capped, 1e-6);
  EXPECT_NEAR(run(0.195), capped, 1e-6);
  EXPECT_NEAR(run(0.197), 10, 1e-9);
}

TEST(PowerCap, WorkLessThanHalfComputeBoundNeverGetsThere) {
  const PowerCap cap(kKernels, kBurst, kNoRecovery);
  GpuHeat heat;
  double now = 0;
  for (int i = 0; i < 1000; ++i, now += 0.01) EXPECT_EQ(share_run(heat, cap, 0.01, 0.49, now), 1);
  GpuHeat more;
  double least = 1;
  for (int i = 0; i < 1000; ++i) least = std::min(least, share_run(more, cap, 0.01, 0.6, 0.011 * i));
  EXPECT_LT(least, 1);
}

// Right after the cap memory-bound work loses all that the clock takes, later exp(-t / recovery) of it.
TEST(PowerCap, TheClockComesBackExponentially) {
  constexpr double kRecovery = 0.03;
  const PowerCap cap(kKernels, kBurst, kRecovery);
  const GpuWork products{0.2, 0.24, 0.24}, decode{1e-6, 1e-6, 1.04e-6};
  GpuHeat heat;
  double now = heat.run(cap, products, 0);
  EXPECT_NEAR(heat.run(cap, decode, now), 1.04e-6, 1e-11);
  now += kRecovery;  // idle
  EXPECT_NEAR(heat.run(cap, decode, now), 1e-6 * (1 + 0.04 * std::exp(-1.0)), 1e-11);
  // Long work loses the integral, in one piece or in many.
  GpuHeat one, many;
  const double end = one.run(cap, products, 0);
  many.run(cap, products, 0);
  const double whole = one.run(cap, {0.1, 0.1, 0.104}, end);
  double pieces = 0;
  for (int i = 0; i < 100; ++i) pieces += many.run(cap, {0.001, 0.001, 0.00104}, end + pieces);
  EXPECT_NEAR(whole - 0.1, 0.04 * kRecovery * (1 - std::exp(-0.1 / kRecovery)), 1e-9);
  EXPECT_NEAR(pieces, whole, 1e-9);
}

// Decode-like work that is at the cap by itself keeps a fifth of the lowered clock, the less the more it waits for links.
TEST(PowerCap, DecodesAtTheCapHoldTheClockDown) {
  constexpr double kRecovery = 0.03, kHeld = 0.2;
  const PowerCap cap(kKernels, kBurst, kRecovery, kHeld);
  const auto decoded = [&](double links) {
    GpuHeat heat;
    return (heat.run(cap, {10, 10, 10.4, 10 * links}, 0) - 10) / (0.4 * (1 - kRecovery / 10));
  };
  EXPECT_NEAR(decoded(0), kHeld, 1e-9);
  EXPECT_NEAR(decoded(0.001), kHeld * (1 - 0.001 / 0.08), 1e-9);
  EXPECT_NEAR(decoded(0.1), 0, 1e-9);
}

// What heats runs on the clock that it finds: after decodes the held one, after idling the highest.
TEST(PowerCap, PromptsRunOnTheClockThatDecodesLeave) {
  constexpr double kHeld = 0.2;
  const PowerCap cap(kKernels, kBurst, 0.03, kHeld);
  const GpuWork prompt{0.01, 0.012, 0.012};
  GpuHeat idle, decoding;
  EXPECT_NEAR(idle.run(cap, prompt, 0), 0.01, 1e-12);
  EXPECT_NEAR(idle.run(cap, prompt, 0.01), 0.01, 1e-12);
  const double end = decoding.run(cap, {10, 10, 10.4}, 0);
  EXPECT_NEAR(decoding.run(cap, prompt, end), 0.01 * (1 + 0.2 * kHeld), 1e-9);
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
  // Decodes feel the lowered clock in their short kernels, until it has come back.
  const StepShape decode{16, 16 * 1000, {}};
  const double cool = model.price(decode).total_s(), after = model.price(decode, nullptr, &heat, now).total_s();
  EXPECT_GT(after, 1.005 * cool);
  EXPECT_LT(after, 1.05 * cool);
  EXPECT_NEAR(model.price(decode, nullptr, &heat, now + 1).total_s(), cool, 1e-6 * cool);
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
