// SPDX-License-Identifier: Apache-2.0

// The memory plan beside what vLLM logged. GPU memory is what CUDA reported in each case.
//
//   a. RTX 4090, vLLM 0.19, Llama-3.1-8B bf16, fraction 0.9: 2588 blocks of 16 (LLMServingSim's run). The card reports
//   between 23.55 and 23.64 GiB, by driver.
//   b. A100-80GB (79.15 GiB), vLLM 0.2.4, Llama-2-7B: 7449 blocks; Llama-2-70B on four: 31,615 blocks (vllm pull 2031,
//   before it began to count what is allocated outside PyTorch).
//   c. H100 (79.22 GiB), vLLM 0.6.4, Llama-3-8B: weights 14.96 GiB, peak activation 1.26 GiB at TP 1 and TP 2 (vllm
//   pull 10511). d. RTX 3090, vLLM 0.6.4, Llama-3.1-8B: weights 14.9888 GiB, peak 17.06 GiB at 20,000 batched
//   tokens, 17.98 GiB at 29,000
//      (vllm issue 10517).
//   e. Eight H200, vLLM 0.11.2, DeepSeek-R1-0528 in FP8, TP 8, 8192 positions: weights 79.739 GiB, KV cache 41.60 GiB,
//      635,648 tokens (a start-up log kept in a public memory estimator's tests; it counts NCCL's and cuBLAS' memory).

#include <gtest/gtest.h>

#include "sim/base/units.hpp"
#include "workloads/memory_plan.hpp"

namespace dssim {
namespace {

constexpr double kPlenty = 1e15;
double weight_bytes_per_gpu(const Architecture& model, const Deployment& d) {
  return plan_memory(model, d, kPlenty, {}).weights_bytes;
}
double activation_bytes_per_gpu(const Architecture& model, const Deployment& d) {
  return plan_memory(model, d, kPlenty, {}).activation_bytes;
}

TEST(MemoryMeasured, KvBlocksOfAnRtx4090) {
  const Architecture llama = load_model("llama-3.1-8b");
  const auto blocks = [&](double gib) { return static_cast<double>(plan_memory(llama, {}, gib * kGiB, {}).kv_blocks); };
  EXPECT_NEAR(blocks(23.55), 2588, 0.02 * 2588);
  EXPECT_NEAR(blocks(23.64), 2588, 0.02 * 2588);
}

TEST(MemoryMeasured, KvBlocksOfLlama2OnA100) {
  Deployment d;
  d.max_batched_tokens = 4096;
  const auto blocks = [&](const char* model) {
    return static_cast<double>(plan_memory(load_model(model), d, 79.15 * kGiB, {}).kv_blocks);
  };
  EXPECT_NEAR(blocks("llama-2-7b"), 7449, 0.01 * 7449);
  d.tensor_parallel = 4;
  EXPECT_NEAR(blocks("llama-2-70b"), 31615, 0.01 * 31615);
}

TEST(MemoryMeasured, DeepSeekR1OnEightH200) {
  Deployment d;
  d.weights = Precision::fp8;
  d.tensor_parallel = 8;
  d.max_batched_tokens = 8192;
  const StackMemory stack{.context_bytes = kGiB, .graphs_bytes = kGiB, .communication_bytes = 0.5 * kGiB};
  const MemoryPlan plan = plan_memory(load_model("deepseek-r1"), d, 139.8 * kGiB, stack);
  EXPECT_NEAR(plan.weights_bytes / kGiB, 79.739, 0.005 * 79.739);
  EXPECT_EQ(plan.kv_bytes_per_token, 70272);  // 41.60 GiB / 635,648
  EXPECT_NEAR(static_cast<double>(plan.kv_tokens), 635648, 0.07 * 635648);
}

TEST(MemoryMeasured, PeakActivationWhereTheSamplerIsWidest) {
  const Architecture llama = load_model("llama-3-8b");
  Deployment d;
  d.max_batched_tokens = 8192;
  for (const int64_t tensor_parallel : {1, 2}) {
    d.tensor_parallel = tensor_parallel;
    EXPECT_NEAR(activation_bytes_per_gpu(llama, d) / kGiB, 1.26, 0.01);
  }
  EXPECT_NEAR(weight_bytes_per_gpu(llama, {}) / kGiB, 14.96, 0.01);
}

TEST(MemoryMeasured, PeakActivationWhereTheFeedForwardIsWidest) {
  const Architecture llama = load_model("llama-3.1-8b");
  EXPECT_NEAR(weight_bytes_per_gpu(llama, {}) / kGiB, 14.9888, 0.0005);
  Deployment d;
  d.max_batched_tokens = 20000;
  EXPECT_NEAR(activation_bytes_per_gpu(llama, d) / kGiB, 17.06 - 14.9888, 0.02);
  d.max_batched_tokens = 29000;
  EXPECT_NEAR(activation_bytes_per_gpu(llama, d) / kGiB, 17.98 - 14.9888, 0.02);
}

}  // namespace
}  // namespace dssim
