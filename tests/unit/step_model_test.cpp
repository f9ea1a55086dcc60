// SPDX-License-Identifier: Apache-2.0

#include "workloads/step_model.hpp"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "platforms/node.hpp"

namespace dssim {
namespace {

const std::string kProfiles = std::string(DSSIM_SOURCE_DIR) + "/kernels/profiles";

Architecture llama_8b() {
  Architecture a;
  a.name = "llama";
  a.layers = 32, a.hidden = 4096, a.heads = 32, a.kv_heads = 8, a.head_dim = 128, a.ffn = 14336, a.vocabulary = 128256;
  return a;
}

class Steps : public testing::Test {
 protected:
  CostModel vllm_ = CostModel::load_from(kProfiles, load_gpu("h100-sxm"), "vllm-0.14");
  CostModel torch_ = CostModel::load_from(kProfiles, load_gpu("h100-sxm"), "torch-2.11");
};

double total(const std::vector<OperatorPrice>& operators) {
  return std::accumulate(operators.begin(), operators.end(), 0.0,
                         [](double s, const auto& o) { return s + o.seconds; });
}

TEST_F(Steps, BreakdownAndUsageAddUpToThePrice) {
  const PrefillChunk chunks[] = {{700, 300, true}, {90, 0, false}};
  for (const CostModel* cost : {&vllm_, &torch_})
    for (const int tp : {1, 4})
      for (const StepShape& shape : {StepShape{37, 37 * 900, {}}, StepShape{0, 0, chunks},
                                     StepShape{12, 12 * 4000, chunks}, StepShape{1, 1, {}}}) {
        StepModel model(llama_8b(), {.tensor_parallel = tp}, *cost);
        StepUsage usage;
        const double price = model.price(shape, &usage).total_s();
        EXPECT_NEAR(total(model.breakdown(shape)), price, 1e-9);
        EXPECT_NEAR(std::accumulate(usage.class_s.begin(), usage.class_s.end(), 0.0), price, 1e-9);
        const double host = usage.class_s[static_cast<size_t>(OperatorClass::host)];
        EXPECT_NEAR(std::accumulate(usage.coverage_s.begin(), usage.coverage_s.end(), 0.0), price - host, 1e-9);
        EXPECT_EQ(usage.class_s[static_cast<size_t>(OperatorClass::all_reduce)] > 0, tp > 1);
      }
}

TEST_F(Steps, AskingTwiceGivesTheSameAnswer) {
  StepModel model(llama_8b(), {}, vllm_);
  const PrefillChunk chunk[] = {{700, 300, true}};
  const StepShape mixed{12, 12 * 4000, chunk}, decode{77, 77 * 123, {}};
  const double first = model.price(mixed).total_s(), second = model.price(decode).total_s();
  EXPECT_EQ(model.price(mixed).total_s(), first);
  EXPECT_EQ(model.price(decode).total_s(), second);
  StepModel fresh(llama_8b(), {}, vllm_);
  EXPECT_EQ(fresh.price(decode).total_s(), second);  // whatever was asked before
}

TEST_F(Steps, RememberedDecodeAttentionIsTheCostModels) {
  StepModel model(llama_8b(), {}, vllm_);
  for (const int64_t kv : {64, 1000, 3333, 40001}) {
    StepUsage usage;
    model.price({24, 24 * kv, {}}, &usage);
    const double exact =
        32 * vllm_.decode_attention({32, 8, 128, Precision::bf16}, 24, 24.0 * static_cast<double>(kv)).seconds;
    EXPECT_NEAR(usage.class_s[static_cast<size_t>(OperatorClass::decode_attention)], exact, 0.005 * exact);
  }
}

TEST_F(Steps, ADecodeBatchIsPaddedToItsGraph) {
  StepModel model(llama_8b(), {}, torch_);  // graphs at 32, 48, 64, 80
  EXPECT_DOUBLE_EQ(model.price({33, 33 * 500, {}}).total_s(),
                   model.price({48, 48 * 500, {}}).total_s() -
                       (model.price({48, 48 * 500, {}}).head_s - model.price({33, 33 * 500, {}}).head_s));
  EXPECT_LT(model.price({32, 32 * 500, {}}).layers_s, model.price({33, 33 * 500, {}}).layers_s);
}

// FlashAttention-2's splits were fixed when the graph was captured: a few short sequences leave most of them empty.
TEST_F(Steps, CapturedSplitsSlowShortSequencesOfSmallBatches) {
  StepModel model(llama_8b(), {}, torch_);
  const auto attention = [&](int64_t batch, int64_t kv) {
    StepUsage usage;
    model.price({batch, batch * kv, {}}, &usage);
    return usage.class_s[static_cast<size_t>(OperatorClass::decode_attention)];
  };
  const auto table = [&](double batch, double kv) {
    return 32 * torch_.decode_attention({32, 8, 128, Precision::bf16}, batch, batch * kv).seconds;
  };
  EXPECT_GT(attention(4, 512), 1.1 * table(4, 512));  // 8 splits of 576 tokens: one of them holds the sequence
  EXPECT_NEAR(attention(4, 4096), table(4, 4096), 0.01 * table(4, 4096));          // all of them at work
  EXPECT_NEAR(attention(32, 512), table(32, 512), 0.01 * table(32, 512));          // 256 blocks fill the GPU unsplit
  EXPECT_NEAR(attention(4, 1024), attention(4, 2048), 0.01 * attention(4, 2048));  // longer than a split: no slower
}

TEST_F(Steps, AnEagerStepTakesAtLeastItsLaunches) {
  StepModel model(llama_8b(), {}, torch_);
  const Stack& stack = torch_.stack();
  const PrefillChunk small[] = {{16, 0, true}};
  const StepPrice price = model.price({0, 0, small});
  EXPECT_NEAR(price.total_s(), 32 * stack.eager_launch_s + stack.iteration_host_s + stack.eager_host_s, 1e-12);
  EXPECT_GT(model.price({81, 81 * 10, {}}).total_s(), 32 * stack.eager_launch_s);  // beyond the last graph
  EXPECT_LT(model.price({80, 80 * 10, {}}).total_s(), 32 * stack.eager_launch_s);
}

TEST_F(Steps, AnEmptyStepCostsNothing) {
  StepModel model(llama_8b(), {}, vllm_);
  EXPECT_EQ(model.price({}).total_s(), 0);
  EXPECT_TRUE(model.breakdown({}).empty());
}

TEST_F(Steps, OnlyChunksThatEndAPromptPassTheHead) {
  StepModel model(llama_8b(), {}, vllm_);
  const PrefillChunk cut[] = {{600, 0, false}}, whole[] = {{600, 0, true}};
  EXPECT_EQ(model.price({0, 0, cut}).head_s, 0);
  EXPECT_GT(model.price({0, 0, whole}).head_s, 0);
  Architecture encoder = llama_8b();
  encoder.family = Family::encoder;
  StepModel bert(encoder, {}, vllm_);
  EXPECT_EQ(bert.price({0, 0, whole}).head_s, 0);
}

TEST_F(Steps, CollectivesFromOutsideReplaceTheProfiles) {
  double gathered = 0;
  StepModelOptions options{.tensor_parallel = 4};
  options.collective = [&](Collective kind, double bytes) {
    if (kind == Collective::all_gather)
      gathered += bytes;
    else
      EXPECT_EQ(bytes, 2 * 32 * 4096);
    return Price{1e-3, Coverage::outside};
  };
  StepModel model(llama_8b(), options, vllm_);
  StepUsage usage;
  model.price({32, 32 * 100, {}}, &usage);
  // Two a layer, one for the embedding.
  EXPECT_NEAR(usage.class_s[static_cast<size_t>(OperatorClass::all_reduce)], 65e-3, 1e-12);
  EXPECT_EQ(gathered, 2 * 32 * 128256);  // the logits, in 16 bits
}

// Decodes of more KV, and longer prompts.
void expect_more_work_never_takes_less(StepModel& model) {
  double last = 0;
  for (const int64_t kv : {10, 100, 1000, 10000, 100000}) {
    const double now = model.price({16, 16 * kv, {}}).total_s();
    EXPECT_GE(now, 0.999 * last);
    last = now;
  }
  last = 0;
  for (int64_t tokens = 64; tokens <= 16384; tokens *= 2) {
    const PrefillChunk chunk[] = {{tokens, 0, true}};
    const double now = model.price({0, 0, chunk}).total_s();
    EXPECT_GE(now, 0.98 * last) << tokens;
    last = now;
  }
}

TEST_F(Steps, MoreWorkNeverTakesLess) {
  StepModel model(llama_8b(), {.tensor_parallel = 2}, vllm_);
  expect_more_work_never_takes_less(model);
}

TEST_F(Steps, ExpertsReplaceTheFeedForward) {
  Architecture moe = llama_8b();
  moe.experts = 8, moe.experts_per_token = 2, moe.vocabulary = 32000;
  StepModel model(moe, {.tensor_parallel = 2}, vllm_);
  StepUsage usage;
  model.price({64, 64 * 500, {}}, &usage);
  EXPECT_GT(usage.class_s[static_cast<size_t>(OperatorClass::moe)], 0.6 * (usage.class_s[0] + usage.class_s[3]));
}

// DeepSeek-V3, cut eight ways: a step's parts add up, and every part of the shape is in it.
TEST_F(Steps, LatentAttentionAndSharedExpertsAreInTheStep) {
  StepModel model(load_model("deepseek-v3"), {.weights = Precision::fp8, .tensor_parallel = 8}, vllm_);
  const PrefillChunk chunks[] = {{700, 300, true}, {90, 0, false}};
  for (const StepShape& shape : {StepShape{37, 37 * 900, {}}, StepShape{0, 0, chunks}, StepShape{12, 12 * 4000, chunks},
                                 StepShape{1, 1, {}, 1}}) {
    StepUsage usage;
    const double price = model.price(shape, &usage).total_s();
    EXPECT_NEAR(total(model.breakdown(shape)), price, 1e-9);
    EXPECT_NEAR(std::accumulate(usage.class_s.begin(), usage.class_s.end(), 0.0), price, 1e-9);
  }
  double flops = 0, weights = 0;
  for (const auto& o : model.breakdown({1, 4096, {}})) {
    if (o.kind == OperatorClass::matmul) flops += o.flops, weights += o.bytes;
    if (o.name == "gate_up") EXPECT_EQ(o.flops, 3 * 2 * 7168.0 * 2 * 18432 / 8);
    if (o.name == "shared gate_up") EXPECT_EQ(o.flops, 58 * 2 * 7168.0 * 2 * 2048 / 8);
    if (o.name == "q_a and kv_a") EXPECT_EQ(o.flops, 61 * 2 * 7168.0 * (1536 + 576));  // whole on every GPU
    if (o.name == "decode attention") {
      EXPECT_EQ(o.bytes, 61 * 4096 * 576 * 2.0);
      EXPECT_EQ(o.flops, 61 * 4096 * 16 * 2.0 * 1088);
    }
  }
  // Per token and GPU: q_b, o, dense and shared feed-forwards are cut, the products down to the latents are not.
  const double cut = 61 * (1536.0 * 128 * 192 + 128 * 128.0 * 7168) + 3 * 3 * 7168.0 * 18432 + 58 * 3 * 7168.0 * 2048;
  EXPECT_NEAR(flops, 2 * (61 * 7168.0 * (1536 + 576) + cut / 8), 1e-6 * flops);
}

// The cache of latents is read whole by every GPU: cutting heads saves products, not the reading.
TEST_F(Steps, LatentDecodesAreCutByHeadsOnly) {
  const auto attention = [&](int tp) {
    StepModel model(load_model("deepseek-v3"), {.weights = Precision::fp8, .tensor_parallel = tp}, vllm_);
    StepUsage usage;
    model.price({128, 128 * 8000, {}}, &usage);
    return usage.class_s[static_cast<size_t>(OperatorClass::decode_attention)];
  };
  EXPECT_GT(attention(8), 61 * 128 * 8000.0 * 1152 / 3.35e12);  // the latents at the memory bandwidth
  EXPECT_LT(attention(8), attention(1));
  EXPECT_GT(attention(8), 0.25 * attention(1));
}

TEST_F(Steps, LatentStepsGrowWithTheirWork) {
  StepModel model(load_model("deepseek-v2-lite"), {}, vllm_);
  expect_more_work_never_takes_less(model);
  // DeepSeekMoE 16B and Qwen1.5-MoE: shared experts with plain attention.
  for (const char* name : {"deepseek-moe-16b", "qwen1.5-moe-a2.7b"}) {
    const Architecture shared = load_model(name);
    Architecture routed = shared;
    routed.shared_ffn = 0;
    EXPECT_GT(StepModel(shared, {}, vllm_).price({64, 64 * 500, {}}).total_s(),
              StepModel(routed, {}, vllm_).price({64, 64 * 500, {}}).total_s());
  }
}

}  // namespace
}  // namespace dssim
