// SPDX-License-Identifier: Apache-2.0

// Whole engine iterations, predicted beside measured. Nothing is fitted per row; the stack files' few host times are
// the only figures that come from whole steps. Each test prints its table's errors; docs/cost-model.md quotes them.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <vector>

#include "platforms/node.hpp"
#include "sim/base/csv.hpp"
#include "workloads/step_model.hpp"
#include "support/relative_errors.hpp"

namespace dssim {
namespace {

const std::string kRoot = DSSIM_SOURCE_DIR;
const std::string kData = kRoot + "/tests/validation/data/";

CostModel load(const std::string& gpu, const std::string& stack) {
  return CostModel::load_from(kRoot + "/kernels/profiles", load_gpu(gpu), stack);
}

Architecture shape(int64_t layers, int64_t hidden, int64_t heads, int64_t kv_heads, int64_t ffn, int64_t vocabulary) {
  Architecture a;
  a.layers = layers, a.hidden = hidden, a.heads = heads, a.kv_heads = kv_heads, a.head_dim = 128, a.ffn = ffn,
  a.vocabulary = vocabulary;
  return a;
}
Architecture llama_3_8b() {
  return shape(32, 4096, 32, 8, 14336, 128256);
}

using Errors = test::RelativeErrors;

Errors step_errors(const std::string& gpu, int tensor_parallel, const std::string& file) {
  const CostModel cost = load(gpu, "torch-2.11");
  StepModel model(llama_3_8b(), {.tensor_parallel = tensor_parallel}, cost);
  CsvTable csv(kData + file, {"phase", "batch", "new_tokens_each", "kv_len", "seconds"});
  Errors errors;
  while (csv.next()) {
    const int64_t batch = csv.integer(1), tokens = csv.integer(2), kv = csv.integer(3);
    StepShape step;
    std::vector<PrefillChunk> chunks;
    if (csv.text(0) == "prefill") {
      chunks.assign(static_cast<size_t>(batch), {tokens, kv - tokens, true});
    } else {
      step.decode_sequences = batch;
      step.decode_kv_tokens = batch * kv;
      if (csv.text(0) == "mixed") chunks.push_back({tokens, 0, true});
    }
    step.prefill = chunks;
    const double predicted = model.price(step).total_s(), measured = csv.number(4);
    std::printf("  %-8s batch %3ld  tokens %5ld  kv %5ld  measured %8.3f ms  predicted %8.3f ms  %+6.1f %%\n",
                std::string(csv.text(0)).c_str(), batch, tokens, kv, 1e3 * measured, 1e3 * predicted,
                100 * (predicted / measured - 1));
    errors.add(predicted, measured);
  }
  return errors;
}

TEST(Steps, Llama3_8bOnOneH100) {
  const Errors errors = step_errors("h100-sxm", 1, "steps_llama3-8b_h100_tp1.csv");
  errors.print("Llama-3-8B, H100, TP1, torch-2.11");
  EXPECT_LT(errors.quantile(0.5), 0.03);
  EXPECT_LT(errors.quantile(0.9), 0.08);
}

TEST(Steps, Llama3_8bOnTwoH200) {
  const Errors errors = step_errors("h200-sxm", 2, "steps_llama3-8b_h200_tp2.csv");
  errors.print("Llama-3-8B, H200, TP2, torch-2.11");
  EXPECT_LT(errors.quantile(0.5), 0.04);
  EXPECT_LT(errors.quantile(0.9), 0.10);
}

// Steps of a real replay: sequences of unequal length, batches between the graphs' sizes, a host that sometimes stalls.
TEST(Steps, IterationsOfAReplay) {
  const CostModel cost = load("h100-sxm", "torch-2.11");
  StepModel model(llama_3_8b(), {}, cost);
  CsvTable csv(kData + "iterations_llama3-8b_h100_tp1_conv_q4.csv",
               {"seconds", "decode_seqs", "prefill_tokens", "decode_kv_tokens", "prefill_kv_tokens"});
  Errors decode, mixed;
  double measured_s = 0, predicted_s = 0;
  while (csv.next()) {
    const PrefillChunk chunk{csv.integer(2), csv.integer(4) - csv.integer(2), true};
    const bool prefills = chunk.new_tokens > 0;
    const StepShape step{csv.integer(1), csv.integer(3) + csv.integer(1), {&chunk, prefills ? 1U : 0U}};
    const double predicted = model.price(step).total_s();
    (prefills ? mixed : decode).add(predicted, csv.number(0));
    if (!prefills) measured_s += csv.number(0), predicted_s += predicted;
  }
  decode.print("replay, decode steps");
  mixed.print("replay, steps with prefill");
  std::printf("replay, all decode steps together: predicted %+.1f %%\n", 100 * (predicted_s / measured_s - 1));
  EXPECT_NEAR(predicted_s / measured_s, 1, 0.04);
  EXPECT_LT(decode.quantile(0.5), 0.04);
  EXPECT_LT(mixed.quantile(0.5), 0.12);
}

TEST(Steps, SplitwiseOnA100) {
  const CostModel cost = load("a100-sxm-80gb", "splitwise");
  Architecture bloom = shape(70, 14336, 112, 112, 4 * 14336, 250880);
  bloom.activation = Activation::plain;
  bloom.positions = Positions::learned;
  const std::map<std::string, Architecture, std::less<>> models{{"llama2-70b", shape(80, 8192, 64, 8, 28672, 32000)},
                                                                {"bloom-176b", bloom}};
  CsvTable csv(kData + "splitwise_a100.csv",
               {"model", "prompt_tokens", "batch", "output_tokens", "prefill_ms", "per_token_ms", "tp"});
  struct Mean {
    double prefill_ms = 0, token_ms = 0;
    int count = 0;
  };
  std::map<std::tuple<std::string, int64_t, int64_t, int64_t, int64_t>, Mean> measured;
  while (csv.next()) {
    auto& mean = measured[{std::string(csv.text(0)), csv.integer(6), csv.integer(1), csv.integer(2), csv.integer(3)}];
    mean.prefill_ms += csv.number(4), mean.token_ms += csv.number(5), ++mean.count;
  }
  Errors prefill, token;
  for (const auto& [key, mean] : measured) {
    const auto& [name, tp, prompt, batch, output] = key;
    StepModel model(models.find(name)->second, {.tensor_parallel = static_cast<int>(tp)}, cost);
    const std::vector<PrefillChunk> chunks(static_cast<size_t>(batch), {prompt, 0, true});
    prefill.add(1e3 * model.price({0, 0, chunks}).total_s(), mean.prefill_ms / mean.count);
    token.add(1e3 * model.price({batch, batch * (prompt + output / 2), {}}).total_s(), mean.token_ms / mean.count);
  }
  prefill.print("Splitwise, prefill");
  token.print("Splitwise, time per token");
  EXPECT_LT(prefill.quantile(0.5), 0.10);
  EXPECT_LT(token.quantile(0.5), 0.10);
}

}  // namespace
}  // namespace dssim
