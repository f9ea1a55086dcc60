// SPDX-License-Identifier: Apache-2.0
// moe.csv (tokens spread evenly) and moe_skewed.csv (by a power law over the experts): a whole mixture-of-experts block
// on one GPU: routing, gather, two grouped products, activation, weighted sum. ffn is the whole model's; tensor
// parallelism tp holds ffn / tp of every expert, expert parallelism ep holds experts / ep.
#include <algorithm>
#include <cmath>
#include <random>
#include <set>
#include <tuple>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/moe.hpp"

namespace dssim::cuda {
namespace {

struct Model {
  int hidden, ffn, top_k, experts;
};

constexpr Model kModels[] = {{4096, 14336, 2, 8},   // Mixtral-8x7B
                             {2048, 768, 8, 128}};  // Qwen3-30B-A3B: many small experts

// Logits that make the router choose as wanted: in turn, or by a power law over the experts.
std::vector<bf16> router_logits(int tokens, const Model& model, double exponent) {
  std::mt19937 engine(7);
  std::vector<double> weight(model.experts);
  for (int e = 0; e < model.experts; ++e) weight[e] = std::pow(e + 1.0, -exponent);
  std::shuffle(weight.begin(), weight.end(), engine);
  std::vector<bf16> logits(static_cast<std::size_t>(tokens) * model.experts, __float2bfloat16(-8.0f));
  int turn = 0;
  for (int t = 0; t < tokens; ++t) {
    std::vector<double> left = weight;
    for (int k = 0; k < model.top_k; ++k) {
      int expert = turn++ % model.experts;
      if (exponent > 0.0) expert = std::discrete_distribution<int>(left.begin(), left.end())(engine);
      left[expert] = 0.0;
      logits[static_cast<std::size_t>(t) * model.experts + expert] = __float2bfloat16(1.0f - 0.25f * k);
    }
  }
  return logits;
}

class MoeBench {
 public:
  explicit MoeBench(Bench& bench)
      : bench_(bench),
        weights_(affordable_bytes(std::size_t{3} << 30, 0.4)),
        hidden_(kMostTokens * kMostWidth * 2),
        output_(kMostTokens * kMostWidth * 2) {
    fill_bf16(weights_.as(), weights_.bytes() / 2, 0.02f, 8);
    fill_bf16(hidden_.as(), hidden_.bytes() / 2, 1.0f, 9);
  }

  void row(Table& table, const Model& model, int tokens, int tp, int ep, double exponent) {
    MoeArgs args;
    args.tokens = tokens;
    args.width = model.hidden;
    args.ffn = model.ffn / tp;
    args.experts = model.experts;
    args.local_experts = model.experts / ep;
    args.top_k = model.top_k;
    std::size_t gate_up_bytes = static_cast<std::size_t>(args.local_experts) * 2 * args.ffn * args.width * 2;
    if (gate_up_bytes * 3 / 2 > weights_.bytes()) return;
    Buffer workspace(moe_workspace_bytes(args));
    std::vector<bf16> logits = router_logits(tokens, model, exponent);
    Buffer device_logits(logits.size() * sizeof(bf16));
    device_logits.upload(logits);
    args.hidden = hidden_.as<bf16>();
    args.output = output_.as<bf16>();
    args.router_logits = device_logits.as<bf16>();
    args.gate_up = weights_.as<bf16>();
    args.down = weights_.as<bf16>(gate_up_bytes);
    auto reading = bench_.meter.measure([&](int, cudaStream_t stream) { moe_forward(args, workspace.as(), stream); });
    std::string distribution = "balanced";
    if (exponent > 0.0) distribution = "power_law_" + std::to_string(exponent).substr(0, 3);
    if (reading) {
      table.row(*reading, "bf16", tokens, model.hidden, model.ffn, model.top_k, model.experts, tp, ep, distribution);
    }
  }

  static constexpr std::size_t kMostTokens = 8192;
  static constexpr std::size_t kMostWidth = 4096;

 private:
  Bench& bench_;
  Buffer weights_, hidden_, output_;
};

}  // namespace

void measure_moe(Bench& bench) {
  const char* header = "dtype,tokens,hidden,ffn,top_k,experts,tp,ep,distribution,seconds,mad";
  MoeBench moe(bench);
  std::vector<int> tokens = {1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192};
  if (bench.quick) tokens = {1, 16, 128, 1024};
  std::set<int> in_grid(tokens.begin(), tokens.end());
  Table table = bench.profile.begin("moe", header);
  Table skewed = bench.profile.begin("moe_skewed", header);
  for (int t : tokens) {
    for (const Model& model : kModels) {
      moe.row(table, model, t, 1, 1, 0.0);
      moe.row(skewed, model, t, 1, 1, 1.2);
      if (bench.quick) continue;
      for (int split : {2, 4, 8}) {
        if (model.ffn / split % 64 == 0) moe.row(table, model, t, split, 1, 0.0);
        moe.row(table, model, t, 1, split, 0.0);
      }
    }
  }
  skewed.finish();
  Table check = bench.profile.begin("check_moe", header);
  ShapeGenerator random(20261123);
  for (int i = 0; i < (bench.quick ? 4 : 24); ++i) {
    int t = random.draw(1, 8000, 1);
    if (in_grid.insert(t).second) moe.row(check, kModels[i % 2], t, i % 2 == 0 ? 1 << random.pick(3) : 1, 1, 0.0);
  }
  check.finish();
  bench.profile.end(table, "moe", bench.notes);
}

}  // namespace dssim::cuda
