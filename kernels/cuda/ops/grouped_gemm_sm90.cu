// SPDX-License-Identifier: Apache-2.0
// Grouped matrix product for sm_90a: one warp brings tiles of activations and weights in by TMA through a ring of
// stages; one or two warpgroups of 64 rows multiply with wgmma. Rows that a tile reads past its expert's end are not
// stored.
#include "kernels/cuda/ops/hopper.cuh"
#include "kernels/cuda/ops/moe.hpp"
#include "kernels/cuda/ops/status.hpp"
#include "kernels/cuda/ops/tensor_map.hpp"

namespace dssim::cuda {
namespace {

constexpr int kDepth = 64;  // k per stage: one 128-byte swizzle row
constexpr int kStages = 4;
constexpr int kRasterRows = 16;  // row tiles walked together, so that their activations stay in L2

template <int kRows, int kColumns>
struct Shared {
  alignas(1024) unsigned char activations[kStages][kRows * 128];
  alignas(1024) unsigned char weights[kStages][kColumns * 128];
  uint64_t full[kStages], empty[kStages];
};

struct Position {
  int tile, column;
};

__device__ Position position_of(int block, int tiles, int columns) {
  int per_band = kRasterRows * columns;
  int band = block / per_band;
  int height = min(kRasterRows, tiles - band * kRasterRows);
  int in_band = block - band * per_band;
  return {band * kRasterRows + in_band % height, in_band / height};
}

template <int kRows, int kColumns>
__global__ void __launch_bounds__(128 + kRows * 2, kRows == 64 ? 2 : 1)
    grouped_gemm_kernel(const __grid_constant__ CUtensorMap activation_map,
                        const __grid_constant__ CUtensorMap weight_map, __nv_bfloat16* output, int n, int k,
                        GroupedTiles tiles) {
  extern __shared__ unsigned char raw[];
  using S = Shared<kRows, kColumns>;
  S& shared = *reinterpret_cast<S*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});
  int columns = (n + kColumns - 1) / kColumns;
  int count = *tiles.count;
  if (static_cast<int>(blockIdx.x) >= count * columns) return;
  Position at = position_of(blockIdx.x, count, columns);
  int first_row = tiles.row[at.tile];
  int first_column = at.column * kColumns;
  int steps = k / kDepth;

  if (threadIdx.x == 0) {
    for (int s = 0; s < kStages; ++s) {
      barrier_init(&shared.full[s], 1);
      barrier_init(&shared.empty[s], kRows / 16);
    }
    barrier_fence_init();
  }
  __syncthreads();

  if (threadIdx.x < 128) {
    if constexpr (kRows == 128) registers_shrink<24>();
    if (threadIdx.x == 0) {
      int weight_row = tiles.expert[at.tile] * n + first_column;
      Ring<kStages> ring;
      for (int step = 0; step < steps; ++step) {
        barrier_wait(&shared.empty[ring.stage], ring.parity ^ 1);
        uint64_t* full = &shared.full[ring.stage];
        barrier_expect(full, (kRows + kColumns) * 128);
        tensor_load_2d(shared.activations[ring.stage], &activation_map, full, step * kDepth, first_row);
        tensor_load_2d(shared.weights[ring.stage], &weight_map, full, step * kDepth, weight_row);
        ring.next();
      }
    }
    return;
  }
  if constexpr (kRows == 128) registers_grow<240>();
  int group = threadIdx.x / 128 - 1;
  int lane = threadIdx.x & 31;
  float sum[kColumns / 2] = {};
  Ring<kStages> ring;
  int previous = 0;
  for (int step = 0; step < steps; ++step) {
    barrier_wait(&shared.full[ring.stage], ring.parity);
    uint64_t a = tile_descriptor(shared.activations[ring.stage] + group * 64 * 128, 16, 1024);
    uint64_t b = tile_descriptor(shared.weights[ring.stage], 16, 1024);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kDepth / 16; ++i) wgmma_ss(sum, a + i * 2, b + i * 2, 1);
    wgmma_commit();
    // One stage stays in flight; the one before it is done and free.
    wgmma_wait<1>();
    if (step > 0 && lane == 0) barrier_arrive(&shared.empty[previous]);
    previous = ring.stage;
    ring.next();
  }
  wgmma_wait<0>();
  pin(sum);

  int end = tiles.end[at.tile];
  int row = first_row + group * 64 + ((threadIdx.x / 32) & 3) * 16 + lane / 4;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (row + 8 * r >= end) continue;
    __nv_bfloat16* out = output + static_cast<long>(row + 8 * r) * n;
#pragma unroll
    for (int j = 0; j < kColumns / 8; ++j) {
      int column = first_column + 8 * j + (lane & 3) * 2;
      if (column < n)
        *reinterpret_cast<uint32_t*>(out + column) = pack_bf16(sum[4 * j + 2 * r], sum[4 * j + 2 * r + 1]);
    }
  }
}

template <int kRows, int kColumns>
void launch(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int experts, int n,
            int k, const GroupedTiles& tiles, cudaStream_t stream) {
  uint64_t depth = static_cast<uint64_t>(k);
  CUtensorMap activation_map =
      make_tensor_map(activations, {depth, static_cast<uint64_t>(tiles.rows)}, {depth}, {kDepth, kRows});
  CUtensorMap weight_map =
      make_tensor_map(weights, {depth, static_cast<uint64_t>(experts) * n}, {depth}, {kDepth, kColumns});
  constexpr int shared_bytes = sizeof(Shared<kRows, kColumns>) + 1024;
  auto kernel = grouped_gemm_kernel<kRows, kColumns>;
  DSSIM_CUDA(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  int blocks = tiles.most * ((n + kColumns - 1) / kColumns);
  kernel<<<blocks, 128 + kRows * 2, shared_bytes, stream>>>(activation_map, weight_map, output, n, k, tiles);
  DSSIM_CUDA_LAUNCHED("grouped_gemm_sm90");
}

}  // namespace

void grouped_gemm_sm90(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output,
                       int experts, int n, int k, const GroupedTiles& tiles, cudaStream_t stream) {
  if (tiles.tile_rows == 128) {
    launch<128, 256>(activations, weights, output, experts, n, k, tiles, stream);
  } else {
    launch<64, 128>(activations, weights, output, experts, n, k, tiles, stream);
  }
}

}  // namespace dssim::cuda
