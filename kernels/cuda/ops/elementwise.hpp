// SPDX-License-Identifier: Apache-2.0
// The memory-bound kernels of a transformer layer, bf16 in and out, fp32 inside. Every width is a multiple of 8, every
// pointer 16-byte aligned, on the device. Launches only: fit for CUDA graphs.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

namespace dssim::cuda {

using bf16 = __nv_bfloat16;

// residual += x; out = residual / rms(residual) * weight. One row per token; width up to 32768.
void add_rmsnorm(bf16* residual, const bf16* x, const bf16* weight, bf16* out, int rows, int width,
                 cudaStream_t stream);

// out = silu(gate) * up, where each row of gate_up is [gate (width) | up (width)].
void silu_mul(const bf16* gate_up, bf16* out, int rows, int width, cudaStream_t stream);

// Rotates the query and key heads of each row of qkv = [heads | kv_heads | kv_heads] x head_dim by its position (pairs
// i, i + head_dim/2, base theta), writes queries to `queries`, keys and values to cache slots
// [slot][kv_head][head_dim].
struct RopeArgs {
  const bf16* qkv = nullptr;
  bf16* queries = nullptr;
  bf16* keys = nullptr;
  bf16* values = nullptr;
  const int* positions = nullptr;
  const int* slots = nullptr;  // page * kPageTokens + offset
  int rows = 0;
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 0;
  float theta = 500000.0f;
};
void rope_kv_write(const RopeArgs& args, cudaStream_t stream);

// out[row] = table[ids[row]].
void embedding(const int* ids, const bf16* table, bf16* out, int rows, int width, cudaStream_t stream);

// Draws one token per row from softmax(logits / temperature) in one pass over the logits (the Gumbel-max method);
// temperature 0 takes the greatest. `workspace` (sample_workspace_bytes) must be zeroed once before its first use.
void sample(const bf16* logits, int* tokens, int rows, int vocabulary, float temperature, uint32_t seed,
            void* workspace, cudaStream_t stream);
std::size_t sample_workspace_bytes(int rows);

}  // namespace dssim::cuda
