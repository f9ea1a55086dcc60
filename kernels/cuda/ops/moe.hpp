// SPDX-License-Identifier: Apache-2.0
// A mixture-of-experts feed-forward block on one GPU, bf16: top-k routing, rows gathered by expert, two grouped matrix
// products with SiLU * mul between, weighted sum per token. Holds experts [0, local_experts) of `experts`; assignments
// to others are skipped (expert parallelism without its all-to-all). Launches only: counts stay on the device.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>

namespace dssim::cuda {

struct MoeArgs {
  const __nv_bfloat16* hidden = nullptr;         // [tokens][width]
  const __nv_bfloat16* router_logits = nullptr;  // [tokens][experts]
  const __nv_bfloat16* gate_up = nullptr;        // [local_experts][2 * ffn][width]
  const __nv_bfloat16* down = nullptr;           // [local_experts][width][ffn]
  __nv_bfloat16* output = nullptr;               // [tokens][width]
  int tokens = 0;
  int width = 0;
  int ffn = 0;
  int experts = 0;  // up to 256
  int local_experts = 0;
  int top_k = 0;  // up to 8
};

void moe_forward(const MoeArgs& args, void* workspace, cudaStream_t stream);
std::size_t moe_workspace_bytes(const MoeArgs& args);

// Row tiles of a grouped product: tile i covers rows [row[i], end[i]) of the gathered activations, all of expert[i].
struct GroupedTiles {
  const int* count = nullptr;
  const int* expert = nullptr;
  const int* row = nullptr;
  const int* end = nullptr;
  int most = 0;  // upper bound of *count, known on the host
  int rows = 0;  // rows of the gathered activations' array
  int tile_rows = 64;
};

// output[row][n] = sum_k activations[row][k] * weights[expert][n][k]; n a multiple of 8, k of 64.
void grouped_gemm(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int experts,
                  int n, int k, const GroupedTiles& tiles, cudaStream_t stream);

// The two kernels behind it; the sm_90a one is compiled apart.
void grouped_gemm_sm90(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output,
                       int experts, int n, int k, const GroupedTiles& tiles, cudaStream_t stream);
void grouped_gemm_mma(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int n,
                      int k, const GroupedTiles& tiles, cudaStream_t stream);

}  // namespace dssim::cuda
