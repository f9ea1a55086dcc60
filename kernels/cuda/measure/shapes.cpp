// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/shapes.hpp"

#include <algorithm>
#include <set>

namespace dssim::cuda {
namespace {

struct Model {
  int hidden;
  int ffn;  // of one matrix; gated models hold two beside each other
  int heads;
  int kv_heads;
  int vocabulary;
  bool gated;
  bool main;
};

// From the models' published configurations; head_dim is 128 in all.
constexpr Model kModels[] = {
    {4096, 14336, 32, 8, 128256, true, true},     // Llama-3-8B; Mixtral-8x7B's attention
    {8192, 28672, 64, 8, 128256, true, true},     // Llama-3-70B, Llama-2-70B
    {5120, 13824, 40, 40, 32000, true, true},     // Llama-2-13B, Llama-13B
    {4096, 11008, 32, 32, 32000, true, true},     // Llama-2-7B, Llama-7B
    {8192, 22016, 64, 8, 32000, true, true},      // CodeLlama-34B
    {3584, 18944, 28, 4, 152064, true, true},     // Qwen2.5-7B
    {5120, 25600, 64, 8, 151936, true, true},     // Qwen3-32B
    {7168, 20480, 56, 8, 64000, true, false},     // Yi-34B
    {5120, 14336, 32, 8, 131072, true, false},    // Mistral-Nemo
    {6656, 17920, 52, 52, 32000, true, false},    // Llama-33B
    {8192, 22016, 64, 64, 32000, true, false},    // Llama-65B
    {16384, 53248, 128, 8, 128256, true, true},   // Llama-3-405B
    {12288, 49152, 96, 96, 51200, false, false},  // GPT-3 175B
    {12288, 32768, 96, 96, 150528, true, false},  // dense 130B
};
constexpr int kHeadDim = 128;

}  // namespace

std::vector<Product> catalogue_products(bool main_only) {
  std::vector<Product> products;
  std::set<std::pair<int, int>> seen;
  auto add = [&](int n, int k, bool few_rows) {
    if (n % 16 == 0 && k % 16 == 0 && seen.insert({n, k}).second) products.push_back({n, k, few_rows});
  };
  for (const Model& m : kModels) {
    if (main_only && !m.main) continue;
    for (int tp : {1, 2, 4, 8}) {
      if (m.heads % tp != 0) continue;
      int kv_heads = std::max(1, m.kv_heads / tp);
      add((m.heads / tp + 2 * kv_heads) * kHeadDim, m.hidden, false);
      add(m.hidden, m.heads / tp * kHeadDim, false);
      add((m.gated ? 2 : 1) * m.ffn / tp, m.hidden, false);
      add(m.hidden, m.ffn / tp, false);
      add(m.vocabulary / tp, m.hidden, true);
    }
  }
  return products;
}

std::vector<Product> grid_products() {
  std::vector<Product> products;
  for (int n :
       {512, 640, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096, 5120, 6144, 8192, 10240, 12288, 16384, 24576, 32768}) {
    for (int k : {512, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 12288, 16384, 28672})
      products.push_back({n, k, false});
  }
  return products;
}

std::vector<std::pair<int, int>> attention_heads() {
  return {{32, 8}, {32, 32}, {64, 8}, {8, 1},  {40, 40}, {16, 4}, {8, 2},  {4, 1},   {32, 4},
          {16, 2}, {20, 20}, {8, 8},  {28, 4}, {14, 2},  {7, 1},  {56, 8}, {128, 8}, {96, 96}};
}

}  // namespace dssim::cuda
