// SPDX-License-Identifier: Apache-2.0
// Grouped matrix product with mma.sync, for every GPU from sm_80 on: tiles of 64 rows by 128 columns, four warps of
// 32 x 64, k in steps of 64 through a three-stage cp.async ring.
#include "kernels/cuda/ops/mma.cuh"
#include "kernels/cuda/ops/moe.hpp"
#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kRows = 64;
constexpr int kColumns = 128;
constexpr int kDepth = 64;
constexpr int kStages = 3;
constexpr int kThreads = 128;
constexpr int kStageBytes = (kRows + kColumns) * 128;

__device__ void load_rows(uint32_t shared, const __nv_bfloat16* from, int first, int last, int rows, int k,
                          int column) {
  for (int i = threadIdx.x; i < rows * 8; i += kThreads) {
    int row = i / 8;
    int chunk = i % 8;
    copy_async_16(shared + swizzled<128>(row, chunk),
                  from + static_cast<long>(min(first + row, last)) * k + column + chunk * 8);
  }
}

__global__ void __launch_bounds__(kThreads)
    grouped_gemm_kernel(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int n,
                        int k, GroupedTiles tiles) {
  extern __shared__ __align__(128) unsigned char raw[];
  int tile = blockIdx.x;
  if (tile >= *tiles.count) return;
  int first_row = tiles.row[tile];
  int end = tiles.end[tile];
  int first_column = blockIdx.y * kColumns;
  const __nv_bfloat16* expert = weights + static_cast<long>(tiles.expert[tile]) * n * k;
  uint32_t ring = shared_address(raw);
  int steps = k / kDepth;
  auto fetch = [&](int step) {
    if (step < steps) {
      uint32_t stage = ring + step % kStages * kStageBytes;
      load_rows(stage, activations, first_row, end - 1, kRows, k, step * kDepth);
      load_rows(stage + kRows * 128, expert, first_column, n - 1, kColumns, k, step * kDepth);
    }
    copy_async_commit();
  };

  int lane = threadIdx.x & 31;
  int warp_row = (threadIdx.x / 64) * 32;
  int warp_column = (threadIdx.x / 32 % 2) * 64;
  float sum[2][8][4] = {};
  for (int s = 0; s < kStages - 1; ++s) fetch(s);
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<kStages - 2>();
    __syncthreads();
    fetch(step + kStages - 1);
    uint32_t a_tile = ring + step % kStages * kStageBytes;
    uint32_t b_tile = a_tile + kRows * 128;
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) {
      uint32_t a[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        load_matrix_x4(a[half], a_tile + swizzled<128>(warp_row + half * 16 + (lane & 15), i * 2 + lane / 16));
      }
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) {
        uint32_t b[4];
        load_matrix_x4(b, b_tile + swizzled<128>(warp_column + pair * 16 + (lane & 7) + ((lane >> 4) << 3),
                                                 i * 2 + ((lane >> 3) & 1)));
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          mma_bf16(sum[half][2 * pair], a[half], b[0], b[1]);
          mma_bf16(sum[half][2 * pair + 1], a[half], b[2], b[3]);
        }
      }
    }
  }
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      int row = first_row + warp_row + half * 16 + lane / 4 + 8 * r;
      if (row >= end) continue;
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        int column = first_column + warp_column + 8 * j + (lane & 3) * 2;
        if (column < n) {
          *reinterpret_cast<uint32_t*>(output + static_cast<long>(row) * n + column) =
              pack_bf16(sum[half][j][2 * r], sum[half][j][2 * r + 1]);
        }
      }
    }
  }
}

}  // namespace

void grouped_gemm_mma(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int n,
                      int k, const GroupedTiles& tiles, cudaStream_t stream) {
  constexpr int shared_bytes = kStages * kStageBytes;
  DSSIM_CUDA(cudaFuncSetAttribute(grouped_gemm_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  dim3 grid(tiles.most, (n + kColumns - 1) / kColumns);
  grouped_gemm_kernel<<<grid, kThreads, shared_bytes, stream>>>(activations, weights, output, n, k, tiles);
  DSSIM_CUDA_LAUNCHED("grouped_gemm_mma");
}

}  // namespace dssim::cuda
