// SPDX-License-Identifier: Apache-2.0

#include "kernels/cost_model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "kernels/profile.hpp"
#include "platforms/node.hpp"
#include "sim/base/error.hpp"

namespace dssim {
namespace {

const std::string kProfiles = std::string(DSSIM_SOURCE_DIR) + "/kernels/profiles";
CostModel load(const std::string& gpu, const std::string& stack) {
  return CostModel::load_from(kProfiles, load_gpu(gpu), stack);
}

TEST(CostModel, AMeasuredPointComesBack) {
  const CostModel cost = load("h100-sxm", "torch-2.11");
  const Profile profile(kProfiles, "h100-sxm", "torch-2.11");
  EXPECT_FALSE(cost.transferred());
  for (const auto& s : profile.gemm(Precision::bf16)) {
    const Price price = cost.gemm(Precision::bf16, s.m, s.n, s.k);
    EXPECT_NEAR(price.seconds, s.seconds, 1e-6 * s.seconds);
    EXPECT_EQ(price.coverage, Coverage::inside);
  }
  for (const auto& s : profile.attention(Precision::bf16)) {
    if (s.q_len != 1) continue;
    const Price price =
        cost.decode_attention({s.heads, s.kv_heads, s.head_dim, Precision::bf16}, s.batch, s.batch * (s.past_len + 1));
    EXPECT_NEAR(price.seconds, s.seconds, 1e-6 * s.seconds);
  }
}

TEST(CostModel, CoverageSaysHowFarFromTheTable) {
  const CostModel cost = load("h100-sxm", "vllm-0.14");
  EXPECT_EQ(cost.gemm(Precision::bf16, 100, 4096, 4096).coverage, Coverage::inside);
  EXPECT_EQ(cost.gemm(Precision::bf16, 12000, 4096, 4096).coverage, Coverage::edge);  // within a doubling of m = 8192
  EXPECT_EQ(cost.gemm(Precision::bf16, 50000, 4096, 4096).coverage, Coverage::outside);  // further
  EXPECT_EQ(cost.gemm(Precision::int4, 100, 4096, 4096).coverage, Coverage::outside);    // no table
  EXPECT_EQ(cost.decode_attention({8, 1, 128, Precision::bf16}, 8, 8 * 500).coverage, Coverage::inside);
  EXPECT_EQ(cost.decode_attention({32, 32, 128, Precision::bf16}, 8, 8 * 500).coverage,
            Coverage::edge);  // read at (8, 8) × 4
}

// KV heads that were not measured are read at batch × KV heads of the same group: twice the heads, half the sequences.
TEST(CostModel, KvHeadsTradeAgainstSequences) {
  const CostModel cost = load("h100-sxm", "vllm-0.14");
  const double few = cost.decode_attention({16, 16, 128, Precision::bf16}, 32, 32 * 1000.0).seconds;
  const double many = cost.decode_attention({32, 32, 128, Precision::bf16}, 16, 16 * 1000.0).seconds;
  EXPECT_NEAR(few, many, 0.01 * many);
}

TEST(CostModel, MoreOfAResourceNeverCosts) {
  for (const auto& [name, stack] : {std::pair{"h100-sxm", "vllm-0.14"}, std::pair{"rtx-4090", "vllm-0.19"}}) {
    const Gpu base = load_gpu(name);
    Gpu wide = base, fast = base;
    wide.memory_bytes_per_s *= 1.02;
    for (auto& rate : fast.dense_flops_per_s) rate *= 1.02;
    const CostModel cost = CostModel::load_from(kProfiles, base, stack);
    for (const Gpu& better : {wide, fast}) {
      const CostModel other = CostModel::load_from(kProfiles, better, stack);
      EXPECT_TRUE(other.transferred());
      for (const double m : {1.0, 17.0, 300.0, 5000.0}) {
        EXPECT_LE(other.gemm(Precision::bf16, m, 5000, 5000).seconds,
                  cost.gemm(Precision::bf16, m, 5000, 5000).seconds);
        const AttentionHeads heads{32, 8, 128, Precision::bf16};
        const AttentionChunk chunk{m, 1000};
        EXPECT_LE(other.decode_attention(heads, m, m * 700).seconds, cost.decode_attention(heads, m, m * 700).seconds);
        EXPECT_LE(other.prefill_attention(heads, {&chunk, 1}).seconds,
                  cost.prefill_attention(heads, {&chunk, 1}).seconds);
        EXPECT_LE(other.elementwise(Elementwise::add_rmsnorm, m, 4096).seconds,
                  cost.elementwise(Elementwise::add_rmsnorm, m, 4096).seconds);
      }
    }
  }
}

TEST(CostModel, EightBitsBeatSixteenInLargeProducts) {
  for (const char* gpu : {"h100-sxm", "h200-sxm"}) {
    const CostModel cost = load(gpu, std::string(gpu) == "h100-sxm" ? "vllm-0.14" : "vllm-0.19");
    const double ratio =
        cost.gemm(Precision::fp8, 4096, 8192, 8192).seconds / cost.gemm(Precision::bf16, 4096, 8192, 8192).seconds;
    EXPECT_GT(ratio, 0.4) << gpu;
    EXPECT_LT(ratio, 0.8) << gpu;
  }
  // A100 has no 8-bit float units: the weights are half as many bytes, the product runs in 16 bits.
  const CostModel a100 = load("a100-sxm-80gb", "vllm-0.14");
  EXPECT_NEAR(
      a100.gemm(Precision::fp8, 8192, 8192, 8192).seconds / a100.gemm(Precision::bf16, 8192, 8192, 8192).seconds, 1,
      0.02);
  EXPECT_LT(a100.gemm(Precision::fp8, 1, 8192, 8192).seconds, 0.7 * a100.gemm(Precision::bf16, 1, 8192, 8192).seconds);
}

TEST(CostModel, PastKvCostsAsMuchAsItsTiles) {
  const CostModel cost = load("h100-sxm", "vllm-0.14");
  const AttentionHeads heads{32, 8, 128, Precision::bf16};
  const AttentionChunk fresh{4096, 0}, last_half{2048, 2048}, first_half{2048, 0};
  const double whole = cost.prefill_attention(heads, {&fresh, 1}).seconds;
  const double halves =
      cost.prefill_attention(heads, {&first_half, 1}).seconds + cost.prefill_attention(heads, {&last_half, 1}).seconds;
  EXPECT_NEAR(halves, whole, 0.25 * whole);  // the same tiles in two launches, each with a worse tail
  EXPECT_GT(halves, whole);
  const double both_ways = cost.prefill_attention(heads, {&fresh, 1}, false).seconds;
  EXPECT_GT(both_ways, 1.5 * whole);  // not causal: twice the pairs, in longer tiles
}

// A launch of one chunk and decodes that was measured costs what it took; several chunks lie between their own prices;
// heads of another group, and other GPUs, have the tiles alone.
TEST(CostModel, AMeasuredMixedLaunchComesBack) {
  const CostModel cost = load("rtx-4090", "vllm-0.19");
  const AttentionHeads heads{32, 8, 128, Precision::bf16};
  for (const auto& s : Profile(kProfiles, "rtx-4090", "vllm-0.19").mixed_attention(Precision::bf16)) {
    const AttentionChunk chunk{s.q_len, s.past_len};
    const Price price = cost.mixed_attention(heads, {&chunk, 1}, s.decode_batch, s.decode_batch * s.decode_kv_len);
    ASSERT_NEAR(price.seconds, s.seconds, 1e-6 * s.seconds);
    ASSERT_EQ(price.coverage, Coverage::inside);
  }
  const auto price = [&](const AttentionHeads& h, std::vector<AttentionChunk> chunks, double batch, double kv) {
    return cost.mixed_attention(h, chunks, batch, batch * kv);
  };
  EXPECT_EQ(price(heads, {{1, 0}}, 1, 16).coverage, Coverage::inside);  // one tile, as 16 tokens
  EXPECT_EQ(price(heads, {{4096, 0}}, 8, 1024).coverage, Coverage::edge);
  EXPECT_EQ(price(heads, {{1024, 0}}, 8, 100000).coverage, Coverage::outside);
  EXPECT_EQ(price({16, 4, 128, Precision::bf16}, {{1024, 0}}, 8, 1024).coverage, Coverage::edge);
  EXPECT_NE(price({32, 32, 128, Precision::bf16}, {{1024, 0}}, 8, 1024).coverage, Coverage::inside);
  const double one = price(heads, {{1024, 0}}, 32, 1024).seconds,
               two = price(heads, {{1024, 0}, {1024, 0}}, 32, 1024).seconds;
  EXPECT_GT(two, one);
  EXPECT_LT(two, 2 * one);
}

// Latent attention: what was measured comes back within the table's scatter, long work at the rates it was measured at.
TEST(CostModel, LatentAttentionIsReadFromItsTable) {
  const CostModel cost = load("h100-sxm", "vllm-0.14");
  const Profile profile(kProfiles, "h100-sxm", "vllm-0.14");
  const LatentHeads heads{16, 512, 64, 128, 128, Precision::bf16};
  int rows = 0;
  for (const auto& s : profile.latent_attention(Precision::bf16)) {
    if (s.heads != 16 || s.batch * s.q_len < 16 || s.seconds < 0.5e-3) continue;
    const std::vector<AttentionChunk> chunks(static_cast<size_t>(s.batch), {s.q_len, s.past_len});
    const Price price = s.q_len == 1 ? cost.latent_decode(heads, s.batch, s.batch * (s.past_len + 1))
                                     : cost.latent_prefill(heads, chunks);
    EXPECT_NEAR(price.seconds, s.seconds, 0.25 * s.seconds) << s.batch << " × " << s.q_len << " on " << s.past_len;
    EXPECT_EQ(price.coverage, Coverage::inside);
    ++rows;
  }
  EXPECT_GT(rows, 30);
  EXPECT_EQ(cost.latent_decode(heads, 1, 100).coverage, Coverage::outside);  // hidden behind the host's launches
  LatentHeads other = heads;
  other.kv_lora_rank = 256;
  EXPECT_EQ(cost.latent_decode(other, 256, 256 * 4096.0).coverage, Coverage::outside);
  EXPECT_LT(cost.latent_decode(other, 256, 256 * 4096.0).seconds, cost.latent_decode(heads, 256, 256 * 4096.0).seconds);
}

// One latent serves all heads: twice the heads read the same bytes, and one chunk on a past costs more than without.
// Sequences of one length together are as many of them apart; a damaged table's batch of 10^15 takes no time to read.
TEST(CostModel, LatentWorkCountsEqualSequencesAtOnce) {
  const LatentHeads heads{16, 512, 64, 128, 128, Precision::bf16};
  LatentWork apart, together;
  for (int i = 0; i < 37; ++i) apart.add_expanded(heads, 600, 4000);
  together.add_expanded(heads, 600, 4000, 37);
  EXPECT_EQ(together.tokens, apart.tokens);
  EXPECT_EQ(together.pairs, apart.pairs);
  EXPECT_EQ(together.product_flops, apart.product_flops);
  EXPECT_EQ(together.weight_bytes, apart.weight_bytes);
  EXPECT_EQ(together.attention_flops, apart.attention_flops);
  EXPECT_EQ(together.cache_bytes, apart.cache_bytes);
  EXPECT_EQ(together.vector_bytes, apart.vector_bytes);
  const LatentSample huge[] = {{true, 16, 1, 1, 1000, 1e-3}, {false, 16, 1e15, 600, 0, 1}};
  EXPECT_FALSE(LatentAttentionTable(huge, Precision::bf16, Machine::of(load_gpu("h100-sxm"))).empty());
}

TEST(CostModel, LatentAttentionGrowsWithItsWork) {
  for (const auto& [gpu, stack] : {std::pair{"h100-sxm", "vllm-0.14"},
                                   {"a100-sxm-80gb", "vllm-0.14"},
                                   {"h200-sxm", "vllm-0.19"},
                                   {"h100-sxm", "dssim-1"}}) {
    const CostModel cost = load(gpu, stack);
    const LatentHeads heads{16, 512, 64, 128, 128, Precision::bf16};
    double last = 0;
    for (double kv = 1024; kv <= 131072; kv *= 2) {
      const double now = cost.latent_decode(heads, 64, 64 * kv).seconds;
      EXPECT_GT(now, last) << gpu << " " << kv;
      last = now;
    }
    for (const double tokens : {1.0, 2.0, 64.0, 512.0, 513.0}) {  // in both ways, and where only decodes are absorbed
      const AttentionChunk chunk{tokens, 4096};
      const double now = cost.latent_prefill(heads, {&chunk, 1}).seconds;
      EXPECT_GT(now, 15e-6) << gpu << " " << tokens;
      EXPECT_LT(now, 5e-3) << gpu << " " << tokens;
    }
    const AttentionChunk fresh{2048, 0}, behind{2048, 8192}, longer{8192, 0};
    const double one = cost.latent_prefill(heads, {&fresh, 1}).seconds;
    EXPECT_GT(cost.latent_prefill(heads, {&behind, 1}).seconds, 1.5 * one) << gpu;
    EXPECT_GT(cost.latent_prefill(heads, {&longer, 1}).seconds, 3 * one) << gpu;
    EXPECT_GT(cost.latent_prefill(heads, {&fresh, 1}).seconds, cost.gpu().name == "h100-sxm" ? 60e-6 : 40e-6);
  }
  // FlashMLA's 8-bit table is Hopper's: on A100 an 8-bit cache saves bytes alone.
  const CostModel a100 = load("a100-sxm-80gb", "vllm-0.14");
  LatentHeads eight{16, 512, 64, 128, 128, Precision::fp8}, sixteen = eight;
  sixteen.kv_cache = Precision::bf16;
  EXPECT_EQ(a100.latent_decode(eight, 64, 64 * 4096.0).coverage, Coverage::outside);
  EXPECT_GT(a100.latent_decode(eight, 64, 64 * 4096.0).seconds,
            0.45 * a100.latent_decode(sixteen, 64, 64 * 4096.0).seconds);
  // A GPU without tables reads those of the nearest, flagged, and never beats what it sustains.
  const CostModel b200 = load("b200", "vllm-0.19");
  const LatentHeads heads{128, 512, 64, 128, 128, Precision::bf16};
  const Price price = b200.latent_decode(heads, 256, 256 * 4096.0);
  EXPECT_EQ(price.coverage, Coverage::outside);
  EXPECT_GT(price.seconds, 256 * 4096.0 * 1152 / b200.gpu().memory_bytes_per_s);
  EXPECT_LT(price.seconds, load("h100-sxm", "vllm-0.14").latent_decode(heads, 256, 256 * 4096.0).seconds);
}

// A card that its power cap holds below the rated rate does not get it by way of another one's tables.
TEST(CostModel, ACarriedOverRateIsTheOneTheCardSustains) {
  for (const char* name : {"t4", "l4", "v100-sxm", "a40", "l40s"}) {
    Gpu gpu = load_gpu(name);
    ASSERT_GT(gpu.sustained_share, 0) << name;
    const double share = gpu.sustained_share, rate = gpu.matrix_flops_per_s(Precision::fp16);
    const auto of_rate = [&] {
      const CostModel cost = CostModel::load_from(kProfiles, gpu, "");
      return 2 * 4096.0 * 4096 * 4096 / cost.gemm(Precision::fp16, 4096, 4096, 4096).seconds / rate;
    };
    EXPECT_LE(of_rate(), share * 1.001) << name;
    EXPECT_GT(of_rate(), share * 0.8) << name;
    const AttentionChunk chunk{4096, 0};
    const double flops = 4 * 128 * 32 * 4096.0 * 4096 / 2;
    EXPECT_GT(CostModel::load_from(kProfiles, gpu, "").prefill_attention({32, 8, 128}, {&chunk, 1}).seconds,
              flops / (share * rate))
        << name;
    gpu.sustained_share = 0;
    EXPECT_GE(of_rate(), share * 0.99) << name;
  }
}

TEST(CostModel, AllReduceIsTheEnginesOwn) {
  const CostModel cost = load("h100-sxm", "vllm-0.14");
  EXPECT_NEAR(cost.all_reduce(4, 131072, true).seconds, 5.8352e-6, 1e-9);  // the table's row
  EXPECT_EQ(cost.all_reduce(1, 131072, true).seconds, 0);
  EXPECT_GT(cost.all_reduce(4, 131072, false).seconds, cost.all_reduce(4, 131072, true).seconds);
  const double six = cost.all_reduce(6, 1e6, true).seconds;
  EXPECT_GT(six, cost.all_reduce(4, 1e6, true).seconds);
  EXPECT_LT(six, cost.all_reduce(8, 1e6, true).seconds);
  EXPECT_LT(cost.collective(Collective::all_gather, 8, 1 << 26).seconds,
            cost.collective(Collective::all_reduce, 8, 1 << 26).seconds);
  EXPECT_GT(cost.collective(Collective::all_to_all, 8, 1 << 20).seconds, 0);
}

// A stack that runs NCCL's all-reduce does not name vLLM's table among what its prices come from.
TEST(CostModel, AnAllReduceThatIsNotTheEnginesNamesNoOthersTable) {
  const CostModel cost = load("h200-sxm", "dssim-1");
  EXPECT_EQ(cost.all_reduce(4, 131072, true).coverage, Coverage::inside);
  ASSERT_EQ(cost.sources().size(), 1U);
  EXPECT_NE(cost.sources()[0].find("h200-sxm/dssim-1"), std::string::npos);
}

// Every GPU of the catalogue can be priced on every stack, finite and above zero.
TEST(CostModel, EveryGpuIsPriced) {
  for (const char* gpu : {"a40", "l40s", "t4", "v100-sxm", "jetson-nano", "mi300x", "b200", "h100-pcie"}) {
    const CostModel cost = load(gpu, "");
    EXPECT_TRUE(cost.transferred()) << gpu;
    const AttentionHeads heads{28, 4, 96, Precision::fp8};
    const AttentionChunk chunk{300, 77};
    const MoeShape moe{100, 2048, 1000, 60, 4, 1, 1};
    for (const Price p : {cost.gemm(Precision::int8, 33, 3584, 18944), cost.decode_attention(heads, 3, 1000),
                          cost.prefill_attention(heads, {&chunk, 1}), cost.mixed_attention(heads, {&chunk, 1}, 9, 9000),
                          cost.moe(Precision::fp16, moe), cost.elementwise(Elementwise::sampler, 7, 32000),
                          cost.all_reduce(2, 1e6, false), cost.copy(1e6)}) {
      EXPECT_GT(p.seconds, 0) << gpu;
      EXPECT_LT(p.seconds, 10) << gpu;
      EXPECT_EQ(p.coverage, Coverage::outside) << gpu;
    }
  }
}

TEST(CostModel, UnknownStacksNameTheNearest) {
  try {
    load("h100-sxm", "vlm-0.14");
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::bad_input);
    EXPECT_NE(std::string(e.what()).find("did you mean 'vllm-0.14'"), std::string::npos);
  }
}

TEST(CostModel, AStackCarriesOverToTheMostSimilarGpu) {
  const CostModel cost = load("h200-sxm", "vllm-0.14");  // measured on H100 and A100
  EXPECT_EQ(cost.stack().gpu, "h100-sxm");
  const CostModel a40 = load("a40", "vllm-0.14");
  EXPECT_EQ(a40.stack().gpu, "a100-sxm-80gb");
  ASSERT_FALSE(a40.sources().empty());
  EXPECT_NE(a40.sources()[0].find("a100-sxm-80gb/vllm-0.14"), std::string::npos);
}

// A launch waits for its longest sequence, also where its blocks do not fit on the GPU at once.
TEST(CostModel, DecodesOfUnlikeLengthTakeLongerThanEqualOnes) {
  const CostModel cost = load("h100-sxm", "dssim-1");
  const AttentionHeads heads{32, 8, 128, Precision::bf16};
  for (const double batch : {1.0, 8.0, 33.0, 256.0}) EXPECT_EQ(cost.decode_spread(heads, batch, batch * 900, 900), 1);
  for (const double batch : {8.0, 256.0}) {
    const double kv_tokens = batch * 900, longest = 100'000;
    const double with_it = cost.decode_spread(heads, batch, kv_tokens + longest, longest) *
                           cost.decode_attention(heads, batch, kv_tokens + longest).seconds;
    const double alone = cost.decode_attention(heads, 1, longest).seconds;
    EXPECT_GT(with_it, alone) << batch;
  }
  // 2,048 head tiles leave room for two parts of each sequence: 782 rounds of four pages, 0.75 us each.
  EXPECT_GT(cost.decode_spread(heads, 256, 256 * 900, 100'000) * cost.decode_attention(heads, 256, 256 * 900).seconds,
            782 * 0.7e-6);
}

}  // namespace
}  // namespace dssim
