// SPDX-License-Identifier: Apache-2.0

// Least squares of kernel times, and the block schedules behind the price of attention launches.

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <queue>
#include <random>
#include <vector>

#include "kernels/attention_blocks.hpp"
#include "kernels/attention_launch.hpp"
#include "kernels/fit.hpp"

namespace dssim {
namespace {

TEST(FitSeconds, FindsLatencyAndBandwidth) {
  std::vector<double> terms, seconds;
  for (double bytes = 1024; bytes < 1e9; bytes *= 2) {
    terms.insert(terms.end(), {1, bytes});
    seconds.push_back(5e-6 + bytes / 3e11);
  }
  const Fit fit = fit_seconds(terms, 2, seconds);
  ASSERT_EQ(fit.coefficients.size(), 2U);
  EXPECT_NEAR(fit.coefficients[0], 5e-6, 1e-12);
  EXPECT_NEAR(1 / fit.coefficients[1], 3e11, 1e5);
  EXPECT_EQ(fit.rows, seconds.size());
  EXPECT_LT(fit.p90_error, 1e-9);
}

// y = 10 − x over x = 1…4 wants a negative slope; without it the constant that minimises Σ (c / y − 1)² is
// Σ 1/y ÷ Σ 1/y².
TEST(FitSeconds, NoTermMakesAKernelQuicker) {
  std::vector<double> terms, seconds;
  double sum = 0, squares = 0;
  for (double x = 1; x <= 4; ++x) {
    terms.insert(terms.end(), {1, x});
    seconds.push_back(10 - x);
    sum += 1 / (10 - x);
    squares += 1 / ((10 - x) * (10 - x));
  }
  const Fit fit = fit_seconds(terms, 2, seconds);
  EXPECT_EQ(fit.coefficients[1], 0);
  EXPECT_NEAR(fit.coefficients[0], sum / squares, 1e-12);
  EXPECT_GT(fit.median_error, 0);
  EXPECT_TRUE(fit_seconds({}, 2, {}).coefficients.empty());
}

double finish_one_by_one(const std::vector<BlockLevel>& levels, int slots) {
  std::priority_queue<double, std::vector<double>, std::greater<>> free;
  for (int i = 0; i < slots; ++i) free.push(0);
  double last = 0;
  for (const auto& level : levels)
    for (int i = 0; i < level.blocks; ++i) {
      const double end = free.top() + level.seconds;
      free.pop();
      free.push(end);
      last = std::max(last, end);
    }
  return last;
}

TEST(LastFinish, AgreesWithBlocksOneByOne) {
  std::mt19937 random(7);
  for (int round = 0; round < 300; ++round) {
    const int slots = 1 + static_cast<int>(random() % 140);
    std::vector<BlockLevel> levels;
    double seconds = 50;
    for (size_t i = 0, n = 1 + random() % 20; i < n; ++i) {
      seconds = random() % 4 == 0 ? 1 + random() % 60 : std::max(1.0, seconds - random() % 5);
      levels.push_back({static_cast<int>(random() % 300), seconds});
    }
    EXPECT_DOUBLE_EQ(last_finish(levels, slots), finish_one_by_one(levels, slots)) << round;
  }
}

TEST(LastFinish, WavesOfEqualBlocks) {
  const BlockLevel one_more{133, 2};
  EXPECT_EQ(last_finish({&one_more, 1}, 132), 4);
  const BlockLevel full{264, 2};
  EXPECT_EQ(last_finish({&full, 1}, 132), 4);
  EXPECT_EQ(last_finish({}, 132), 0);
}

// A lone sequence is cut into parts so that the GPU is full; many sequences are not cut.
TEST(DecodeBlocks, SplitsWhereTheBatchDoesNotFillTheGpu) {
  const DecodeBlocks alone = DecodeBlocks::choose(8, 2048, 264);
  EXPECT_EQ(alone.parts, 32);
  EXPECT_EQ(alone.waves, 1);
  EXPECT_EQ(alone.rounds, 16);
  const DecodeBlocks many = DecodeBlocks::choose(512, 64, 264);
  EXPECT_EQ(many.parts, 1);
  EXPECT_EQ(many.waves, 2);
  EXPECT_EQ(DecodeBlocks::choose(1, 4, 264).parts, 1);  // nothing to gain
}

}  // namespace
}  // namespace dssim
