// SPDX-License-Identifier: Apache-2.0
// Traffic and memory of ZeRO against its paper (Rajbhandari et al. 2020, arXiv 1910.02054).
#include <gtest/gtest.h>

#include "sim/training/memory.hpp"
#include "sim/training/sharding.hpp"
#include "support/training.hpp"

namespace dssim {
namespace {

constexpr double kParameters = 1e9;

TrainingJob job_on(int ranks, Sharding sharding) {
  TrainingJob job;
  job.model = test::gpt(1024, 24, 16, 51200, 1024);
  job.data_parallel = ranks;
  job.global_batch = ranks;
  job.sharding = sharding;
  job.gradient_precision = Precision::bf16;
  return job;
}

TEST(ZeroTraffic, AsThePaperCountsIt) {
  // Section 7: data parallel 2 Ψ, stages 1 and 2 the same, stage 3 1.5 times as much; Ψ values of two bytes, times (n −
  // 1)/n.
  for (const int n : {2, 8, 64}) {
    const double unit = 2 * kParameters * (n - 1) / n;
    const auto sent = [&](Sharding sharding) {
      return bytes_sent(step_exchanges(job_on(n, sharding), kParameters, 0), 1);
    };
    EXPECT_DOUBLE_EQ(sent(Sharding::none), 2 * unit);
    EXPECT_DOUBLE_EQ(sent(Sharding::zero1), 2 * unit);
    EXPECT_DOUBLE_EQ(sent(Sharding::zero2), 2 * unit);
    EXPECT_DOUBLE_EQ(sent(Sharding::zero3), 3 * unit);
  }
}

TEST(ZeroTraffic, Stages2And3PayForEachMicroBatch) {
  const auto scattered = step_exchanges(job_on(8, Sharding::zero2), kParameters, 0);
  EXPECT_DOUBLE_EQ(bytes_sent(scattered, 4), 2.5 * bytes_sent(scattered, 1));  // Ψ each, and Ψ once
  const auto exchanges = step_exchanges(job_on(8, Sharding::zero3), kParameters, 0);
  EXPECT_DOUBLE_EQ(bytes_sent(exchanges, 4), 4 * bytes_sent(exchanges, 1));
  const auto reduced = step_exchanges(job_on(8, Sharding::none), kParameters, 0);
  EXPECT_DOUBLE_EQ(bytes_sent(reduced, 4), bytes_sent(reduced, 1));
}

TEST(ZeroTraffic, OneRankExchangesNothing) {
  EXPECT_TRUE(step_exchanges(job_on(1, Sharding::none), kParameters, 0).empty());
}

TEST(ZeroTraffic, ExpertsAreExchangedAmongTheirOwnCopies) {
  TrainingJob job = job_on(8, Sharding::none);
  job.expert_parallel = 4;
  const auto exchanges = step_exchanges(job, kParameters, kParameters);
  ASSERT_EQ(exchanges.size(), 2U);
  EXPECT_EQ(exchanges[0].ranks, 8);
  EXPECT_EQ(exchanges[1].ranks, 2);
}

TEST(ZeroTraffic, Compression) {
  TrainingJob job = job_on(8, Sharding::none);
  job.gradient_precision = Precision::fp32;
  const double whole = bytes_sent(step_exchanges(job, kParameters, 0), 1);
  job.compression = GradientCompression::four_bit;  // 4 bits and 16 for each 64 values, of 32
  EXPECT_DOUBLE_EQ(bytes_sent(step_exchanges(job, kParameters, 0), 1), whole * (4 + 16.0 / 64) / 32);
  EXPECT_GT(compressed_gradient(job).moved_bytes, 0);
  // Rank r of an h × w matrix: r (h + w) of h w values.
  job.compression = GradientCompression::powersgd;
  job.powersgd_rank = 4;
  EXPECT_DOUBLE_EQ(bytes_sent(step_exchanges(job, kParameters, 0), 1), whole * 4 * (1024 + 4096) / (1024.0 * 4096));
}

TEST(ZeroMemory, Figure1OfThePaper) {
  // 7.5 G parameters on 64 GPUs, mixed-precision Adam (2 + 2 + 12 bytes): 120, 31.4, 16.6 and 1.9 GB.
  TrainingStack stack;
  const std::pair<Sharding, double> expected[] = {
      {Sharding::none, 120e9}, {Sharding::zero1, 31.4e9}, {Sharding::zero2, 16.6e9}, {Sharding::zero3, 1.88e9}};
  for (const auto& [sharding, bytes] : expected) {
    TrainingJob job = job_on(64, sharding);
    job.model = test::gpt(4096, 36, 32, 50304, 1024);
    const double scale = 7.5e9 / stage_parameters(job, 0).total();
    EXPECT_NEAR(scale, 1, 0.02);
    const auto memory = plan_training_memory(job, stack, 80e9, {1});
    const double states = memory.weights_bytes + memory.gradient_bytes + memory.optimizer_bytes;
    EXPECT_NEAR(states * scale, bytes, 0.01 * bytes) << kShardingNames[static_cast<size_t>(sharding)];
  }
}

}  // namespace
}  // namespace dssim
