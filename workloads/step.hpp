// SPDX-License-Identifier: Apache-2.0
#pragma once

// One engine iteration of one replica: its shape in, its price out. The serving engine asks this for every iteration,
// so StepModel remembers every part that depends on a small integer (tokens in the step, batch) and interpolates the
// rest.

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "kernels/price.hpp"

namespace dssim {

// A piece of one prompt processed in this iteration: `new_tokens` onto `past_tokens` already in the KV cache. The chunk
// that ends its prompt yields a token, so it passes the output head.
struct PrefillChunk {
  int64_t new_tokens = 0;
  int64_t past_tokens = 0;
  bool ends_prompt = true;
};

struct StepShape {
  int64_t decode_sequences = 0;  // one new token each
  int64_t decode_kv_tokens = 0;  // sum over them of the KV length, the new token included
  std::span<const PrefillChunk> prefill;
  int64_t decode_longest = 0;  // KV length of the longest decoding sequence; 0: all are equal
};

enum class OperatorClass : uint8_t {
  matmul,
  prefill_attention,
  decode_attention,
  moe,
  elementwise,
  output_head,
  all_reduce,
  host
};
inline constexpr size_t kOperatorClasses = 8;
inline constexpr std::array<std::string_view, kOperatorClasses> kOperatorClassNames{
    "matmul", "prefill_attention", "decode_attention", "moe", "elementwise", "output_head", "all_reduce", "host"};

// The price of one step. `layers_s` is all layers together, so a pipeline stage
// takes layers_s × (its layers / all layers), the first one embedding_s more, the last one head_s more, and each
// host_s.
struct StepPrice {
  double embedding_s = 0;
  double layers_s = 0;
  double head_s = 0;
  double host_s = 0;  // between steps: the GPU idles
  double total_s() const { return embedding_s + layers_s + head_s + host_s; }
};

// Sums over many steps: seconds by operator class, and by how well the table covered them (host time is not in
// coverage_s).
struct StepUsage {
  std::array<double, kOperatorClasses> class_s{};
  std::array<double, 3> coverage_s{};  // by Coverage
  void add(const StepUsage& other) {
    for (size_t i = 0; i < class_s.size(); ++i) class_s[i] += other.class_s[i];
    for (size_t i = 0; i < coverage_s.size(); ++i) coverage_s[i] += other.coverage_s[i];
  }
};

}  // namespace dssim
