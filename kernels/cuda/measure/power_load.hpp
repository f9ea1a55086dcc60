// SPDX-License-Identifier: Apache-2.0
// Work that keeps the GPU in one regime, for measuring its power and what it loses under its power cap. Each member
// launches its kernels once; data are random, as power depends on them.
#pragma once

#include <functional>

#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/gemm.hpp"

namespace dssim::cuda {

class PowerLoad {
 public:
  explicit PowerLoad(cudaStream_t stream);
  ~PowerLoad();

  void memory_bound();   // a copy of 1 GiB
  void compute_bound();  // a product of 8192³
  void decode_like();    // 64 sequences of 4096 tokens: a layer's weights, then its KV
  void prefill_like();   // a chunk of 4096 tokens through a layer of Llama-3-8B's size
  void prefill_attention(int new_tokens, int past_tokens);  // one sequence, 32 heads on 8
  void product(const Gemm& gemm);
  void fill(DataType type);  // what products read; bf16 at first

  // Keeps the GPU at it for `seconds`, never waiting for the host; `between` is called now and then.
  void keep_busy(
      double seconds, const std::function<void()>& work, const std::function<void()>& between = [] {});

  const GemmContext& context() const { return context_; }
  cudaStream_t stream() const { return stream_; }

 private:
  static constexpr std::size_t kGib = std::size_t{1} << 30;
  static constexpr int kPages = static_cast<int>(kGib / (kPageTokens * 8 * 128 * 2));

  cudaStream_t stream_;
  cudaEvent_t done_[2] = {};
  Buffer weights_{2 * kGib}, activations_{kGib / 2}, output_{kGib};
  Buffer pages_{4096 * 1024}, lengths_{4096}, starts_{64}, workspace_;
  AttentionArgs attention_;
  GemmContext context_;
  Gemm big_{context_, DataType::bf16, 8192, 8192, 8192, 1};
  Gemm up_decode_{context_, DataType::bf16, 64, 28672, 4096, 1};
  Gemm down_decode_{context_, DataType::bf16, 64, 4096, 14336, 1};
  Gemm up_prefill_{context_, DataType::bf16, 4096, 28672, 4096, 1};
  Gemm down_prefill_{context_, DataType::bf16, 4096, 4096, 14336, 1};
};

}  // namespace dssim::cuda
