// SPDX-License-Identifier: Apache-2.0
// Prefill attention with mma.sync, for every GPU from sm_80 on. A block takes 128 queries of one head; its four warps
// take 32 queries each, so that a key fragment read from shared memory serves two products. KV tiles of 64 tokens are
// gathered by cp.async: values arrive while scores are multiplied, the next keys while values are.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/ops/prefill_kernels.hpp"
#include "kernels/cuda/ops/softmax.cuh"
#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kQueryTile = 128;
constexpr int kKvTile = 64;
constexpr int kThreads = 128;

template <int kHeadDim>
struct Tile {
  static constexpr int row_bytes = kHeadDim * 2;
  static constexpr int chunks = row_bytes / 16;
  static constexpr int query_bytes = kQueryTile * row_bytes;
  static constexpr int kv_bytes = kKvTile * row_bytes;
  static constexpr int shared_bytes = query_bytes + 2 * kv_bytes;
};

template <int kHeadDim>
__device__ void load_queries(uint32_t shared, const AttentionArgs& args, int head, int begin, int first, int length) {
  using T = Tile<kHeadDim>;
  for (int i = threadIdx.x; i < kQueryTile * T::chunks; i += kThreads) {
    int row = i / T::chunks;
    int chunk = i % T::chunks;
    long token = begin + min(first + row, length - 1);
    copy_async_16(shared + swizzled<T::row_bytes>(row, chunk),
                  args.queries + (token * args.heads + head) * kHeadDim + chunk * 8);
  }
}

template <int kHeadDim>
__device__ void load_kv(uint32_t shared, const __nv_bfloat16* cache, const int* pages, int kv_heads, int kv_head,
                        int tile, int last_page) {
  using T = Tile<kHeadDim>;
#pragma unroll
  for (int i = threadIdx.x; i < kKvTile * T::chunks; i += kThreads) {
    int row = i / T::chunks;
    int chunk = i % T::chunks;
    int token = tile * kKvTile + row;
    long slot = static_cast<long>(pages[min(token / kPageTokens, last_page)]) * kPageTokens + token % kPageTokens;
    copy_async_16(shared + swizzled<T::row_bytes>(row, chunk),
                  cache + (slot * kv_heads + kv_head) * kHeadDim + chunk * 8);
  }
}

template <int kHeadDim>
__device__ void multiply_scores(float (&s)[2][kKvTile / 2], uint32_t query, uint32_t key) {
  constexpr int row_bytes = Tile<kHeadDim>::row_bytes;
  int lane = threadIdx.x & 31;
  int warp = threadIdx.x / 32;
#pragma unroll
  for (int i = 0; i < kKvTile / 2; ++i) s[0][i] = s[1][i] = 0.0f;
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    uint32_t a[2][4];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      load_matrix_x4(a[half], query + swizzled<row_bytes>(warp * 32 + half * 16 + (lane & 15), step * 2 + lane / 16));
    }
#pragma unroll
    for (int pair = 0; pair < kKvTile / 16; ++pair) {
      uint32_t b[4];
      load_matrix_x4(
          b, key + swizzled<row_bytes>(pair * 16 + (lane & 7) + ((lane >> 4) << 3), step * 2 + ((lane >> 3) & 1)));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mma_bf16(*reinterpret_cast<float(*)[4]>(&s[half][8 * pair]), a[half], b[0], b[1]);
        mma_bf16(*reinterpret_cast<float(*)[4]>(&s[half][8 * pair + 4]), a[half], b[2], b[3]);
      }
    }
  }
}

template <int kHeadDim>
__device__ void multiply_values(float (&o)[2][kHeadDim / 2], const float (&s)[2][kKvTile / 2], uint32_t value) {
  constexpr int row_bytes = Tile<kHeadDim>::row_bytes;
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int step = 0; step < kKvTile / 16; ++step) {
    uint32_t a[2][4];
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      int half = i / 4;
      a[half][i % 4] = pack_bf16(s[half][8 * step + 2 * (i % 4)], s[half][8 * step + 2 * (i % 4) + 1]);
    }
#pragma unroll
    for (int pair = 0; pair < kHeadDim / 16; ++pair) {
      uint32_t b[4];
      load_matrix_x4_transposed(b, value + swizzled<row_bytes>(step * 16 + (lane & 15), pair * 2 + lane / 16));
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        mma_bf16(*reinterpret_cast<float(*)[4]>(&o[half][8 * pair]), a[half], b[0], b[1]);
        mma_bf16(*reinterpret_cast<float(*)[4]>(&o[half][8 * pair + 4]), a[half], b[2], b[3]);
      }
    }
  }
}

template <int kHeadDim>
__device__ void store_output(const AttentionArgs& args, const float (&o)[2][kHeadDim / 2], RunningSoftmax (&softmax)[2],
                             int head, int begin, int first_row, int length) {
  int lane = threadIdx.x & 31;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float inverse = 1.0f / quad_sum(softmax[half].sum[r]);
      int row = first_row + half * 16 + 8 * r;
      if (row >= length) continue;
      __nv_bfloat16* out =
          args.output + (static_cast<long>(begin + row) * args.heads + head) * kHeadDim + (lane & 3) * 2;
#pragma unroll
      for (int j = 0; j < kHeadDim / 8; ++j) {
        *reinterpret_cast<uint32_t*>(out + 8 * j) =
            pack_bf16(o[half][4 * j + 2 * r] * inverse, o[half][4 * j + 2 * r + 1] * inverse);
      }
    }
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads) prefill_mma(AttentionArgs args, float scale) {
  using T = Tile<kHeadDim>;
  extern __shared__ __align__(128) unsigned char raw[];
  uint32_t query = shared_address(raw);
  uint32_t key = query + T::query_bytes;
  uint32_t value = key + T::kv_bytes;

  int head = blockIdx.x % args.heads;
  int sequence = blockIdx.x / args.heads;
  int kv_head = head / (args.heads / args.kv_heads);
  // Late queries see the most KV: they start first, so that the short blocks fill the tail.
  int first = (gridDim.y - 1 - blockIdx.y) * kQueryTile;
  int begin = args.query_start[sequence];
  int length = args.query_start[sequence + 1] - begin;
  if (first >= length) return;
  int kv_length = args.kv_length[sequence];
  int past = kv_length - length;
  int tiles = (min(kv_length, past + first + kQueryTile) + kKvTile - 1) / kKvTile;
  int last_page = (kv_length - 1) / kPageTokens;
  const int* pages = args.page_table + static_cast<long>(sequence) * args.pages_per_sequence;

  int lane = threadIdx.x & 31;
  int first_row = first + (threadIdx.x / 32) * 32 + lane / 4;
  float o[2][kHeadDim / 2] = {};
  float s[2][kKvTile / 2];
  RunningSoftmax softmax[2];

  load_queries<kHeadDim>(query, args, head, begin, first, length);
  load_kv<kHeadDim>(key, args.keys, pages, args.kv_heads, kv_head, tiles - 1, last_page);
  copy_async_commit();
  for (int tile = tiles - 1; tile >= 0; --tile) {
    copy_async_wait<0>();
    __syncthreads();
    load_kv<kHeadDim>(value, args.values, pages, args.kv_heads, kv_head, tile, last_page);
    copy_async_commit();
    multiply_scores<kHeadDim>(s, query, key);
    copy_async_wait<0>();
    __syncthreads();
    if (tile > 0) load_kv<kHeadDim>(key, args.keys, pages, args.kv_heads, kv_head, tile - 1, last_page);
    copy_async_commit();
    bool on_diagonal = (tile + 1) * kKvTile - 1 > past + first;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (on_diagonal) {
        int limit = past + first_row + half * 16 - tile * kKvTile - (lane & 3) * 2;
#pragma unroll
        for (int i = 0; i < kKvTile / 2; ++i) {
          if ((i / 4) * 8 + (i & 1) > limit + ((i & 2) ? 8 : 0)) s[half][i] = -INFINITY;
        }
      }
      float rescale[2];
      softmax[half].update(s[half], scale, rescale);
#pragma unroll
      for (int i = 0; i < kHeadDim / 2; ++i) o[half][i] *= rescale[(i >> 1) & 1];
    }
    multiply_values<kHeadDim>(o, s, value);
  }
  store_output<kHeadDim>(args, o, softmax, head, begin, first_row, length);
}

template <int kHeadDim>
void launch(const AttentionArgs& args, cudaStream_t stream) {
  constexpr int shared_bytes = Tile<kHeadDim>::shared_bytes;
  DSSIM_CUDA(cudaFuncSetAttribute(prefill_mma<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  dim3 grid(args.heads * args.sequences, (args.longest_query + kQueryTile - 1) / kQueryTile);
  float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(kHeadDim)));
  prefill_mma<kHeadDim><<<grid, kThreads, shared_bytes, stream>>>(args, scale);
  DSSIM_CUDA_LAUNCHED("prefill_mma");
}

}  // namespace

void prefill_attention_mma(const AttentionArgs& args, cudaStream_t stream) {
  if (args.head_dim == 64) {
    launch<64>(args, stream);
  } else {
    launch<128>(args, stream);
  }
}

bool warpgroup_mma_available() {
  int device = 0;
  int major = 0;
  int minor = 0;
  DSSIM_CUDA(cudaGetDevice(&device));
  DSSIM_CUDA(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device));
  DSSIM_CUDA(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device));
  return major == 9 && minor == 0;
}

int prefill_blocks_per_processor() {
  if (warpgroup_mma_available()) return 1;  // one fills the shared memory
  constexpr int shared_bytes = Tile<128>::shared_bytes;
  DSSIM_CUDA(cudaFuncSetAttribute(prefill_mma<128>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  int blocks = 0;
  DSSIM_CUDA(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, prefill_mma<128>, kThreads, shared_bytes));
  return std::max(1, blocks);
}

void prefill_attention(const AttentionArgs& args, cudaStream_t stream, PrefillKernel kernel) {
  if (kernel == PrefillKernel::automatic) {
    kernel = args.head_dim == 128 && warpgroup_mma_available() ? PrefillKernel::warpgroup_mma : PrefillKernel::warp_mma;
  }
  if (kernel == PrefillKernel::warpgroup_mma) {
    prefill_attention_sm90(args, stream);
  } else {
    prefill_attention_mma(args, stream);
  }
}

}  // namespace dssim::cuda
