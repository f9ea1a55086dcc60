// SPDX-License-Identifier: Apache-2.0
// Prefill attention for sm_90a, head_dim 128. A block takes 128 queries of one head: one warp brings KV tiles of 128
// tokens in by TMA, page by page and two tiles ahead, and two warpgroups of 64 queries each multiply with wgmma. The
// scores of the next tile are multiplied while the softmax of this one runs, so that the tensor cores stay busy.
#include <cmath>

#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/hopper.cuh"
#include "kernels/cuda/ops/prefill_kernels.hpp"
#include "kernels/cuda/ops/softmax.cuh"
#include "kernels/cuda/ops/status.hpp"
#include "kernels/cuda/ops/tensor_map.hpp"

namespace dssim::cuda {
namespace {

constexpr int kHeadDim = 128;
constexpr int kQueryTile = 128;
constexpr int kKvTile = 128;
constexpr int kStages = 2;
constexpr int kThreads = 384;
constexpr int kConsumerWarps = 8;
constexpr int kHalfBytes = kKvTile * 128;  // 64 of the 128 columns of a tile
constexpr int kTileBytes = 2 * kHalfBytes;
constexpr int kPageBytes = kPageTokens * 128;  // 64 columns of a page
constexpr int kPagesPerTile = kKvTile / kPageTokens;

struct Shared {
  alignas(1024) unsigned char query[kTileBytes];
  alignas(1024) unsigned char key[kStages][kTileBytes];
  alignas(1024) unsigned char value[kStages][kTileBytes];
  uint64_t query_full;
  uint64_t key_full[kStages], key_empty[kStages], value_full[kStages], value_empty[kStages];
};

struct Work {
  int head, kv_head, sequence, query_begin, query_first, query_length, past, tiles;
};

__device__ void load_page_tile(unsigned char* tile, const CUtensorMap* map, uint64_t* full, int page, int kv_head,
                               int lane) {
  if (lane == 0) barrier_expect(full, kTileBytes);
  __syncwarp();
  if (lane < 2 * kPagesPerTile) {
    int half = lane & 1;
    tensor_load_3d(tile + half * kHalfBytes + (lane >> 1) * kPageBytes, map, full, half * 64, kv_head,
                   page * kPageTokens);
  }
}

__device__ void produce(Shared& shared, const CUtensorMap* query_map, const CUtensorMap* key_map,
                        const CUtensorMap* value_map, const AttentionArgs& args, const Work& work) {
  int lane = threadIdx.x & 31;
  if (lane == 0) {
    barrier_expect(&shared.query_full, kTileBytes);
    for (int half = 0; half < 2; ++half) {
      tensor_load_3d(shared.query + half * kHalfBytes, query_map, &shared.query_full, half * 64, work.head,
                     work.query_begin + work.query_first);
    }
  }
  const int* pages = args.page_table + static_cast<long>(work.sequence) * args.pages_per_sequence;
  int last_page = (args.kv_length[work.sequence] - 1) / kPageTokens;
  // Pages past the end repeat the last one: their columns are masked, they only have to be finite.
  auto page_of = [&](int tile) { return pages[min(tile * kPagesPerTile + ((lane >> 1) & 7), last_page)]; };
  Ring<kStages> key_ring;
  Ring<kStages> value_ring;
  int page = page_of(work.tiles - 1);
  load_page_tile(shared.key[0], key_map, &shared.key_full[0], page, work.kv_head, lane);
  key_ring.next();
  for (int tile = work.tiles - 1; tile >= 0; --tile) {
    int next_page = tile > 0 ? page_of(tile - 1) : 0;
    if (tile > 0) {
      int s = key_ring.stage;
      barrier_wait(&shared.key_empty[s], key_ring.parity ^ 1);
      load_page_tile(shared.key[s], key_map, &shared.key_full[s], next_page, work.kv_head, lane);
      key_ring.next();
    }
    int s = value_ring.stage;
    barrier_wait(&shared.value_empty[s], value_ring.parity ^ 1);
    load_page_tile(shared.value[s], value_map, &shared.value_full[s], page, work.kv_head, lane);
    value_ring.next();
    page = next_page;
  }
}

__device__ void multiply_scores(float (&s)[64], const unsigned char* query, const unsigned char* key) {
  uint64_t a = tile_descriptor(query, 16, 1024);
  uint64_t b = tile_descriptor(key, 16, 1024);
  pin(s);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    uint64_t offset = (step / 4) * (kHalfBytes >> 4) + (step % 4) * 2;  // 16 columns = 32 bytes
    wgmma_ss(s, a + offset, b + offset, step > 0);
  }
  wgmma_commit();
}

__device__ void multiply_values(float (&o)[64], const uint32_t (&weights)[8][4], const unsigned char* value) {
  uint64_t b = tile_descriptor(value, kHalfBytes, 1024);
  pin(o);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kKvTile / 16; ++step) {
    wgmma_rs(o, weights[step], b + step * (2048 >> 4), 1);  // 16 tokens = 2048 bytes
  }
  wgmma_commit();
}

__device__ void mask_scores(float (&s)[64], int tile, int row_position) {
  int first = tile * kKvTile + (threadIdx.x & 3) * 2;
#pragma unroll
  for (int i = 0; i < 64; ++i) {
    int column = first + (i / 4) * 8 + (i & 1);
    if (column > row_position + ((i & 2) ? 8 : 0)) s[i] = -INFINITY;
  }
}

__device__ void pack_weights(uint32_t (&weights)[8][4], const float (&s)[64]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) weights[i / 4][i % 4] = pack_bf16(s[2 * i], s[2 * i + 1]);
}

__device__ void consume(Shared& shared, const AttentionArgs& args, const Work& work, float scale) {
  int group = threadIdx.x / 128 - 1;
  int lane = threadIdx.x & 31;
  int row = group * 64 + ((threadIdx.x / 32) & 3) * 16 + lane / 4;
  int row_position = work.past + work.query_first + row;
  int group_position = work.past + work.query_first + group * 64;
  const unsigned char* query = shared.query + group * 64 * 128;
  auto release = [&](uint64_t* empty) {
    if (lane == 0) barrier_arrive(empty);
  };

  float o[64] = {};
  float s[64] = {};
  uint32_t weights[8][4];
  float rescale[2];
  RunningSoftmax softmax;
  Ring<kStages> key_ring;
  Ring<kStages> value_ring;

  barrier_wait(&shared.query_full, 0);
  barrier_wait(&shared.key_full[0], 0);
  multiply_scores(s, query, shared.key[0]);
  wgmma_wait<0>();
  pin(s);
  release(&shared.key_empty[0]);
  key_ring.next();
  mask_scores(s, work.tiles - 1, row_position);
  softmax.update(s, scale, rescale);
  pack_weights(weights, s);

  for (int tile = work.tiles - 2; tile >= 0; --tile) {
    int k = key_ring.stage;
    int v = value_ring.stage;
    barrier_wait(&shared.key_full[k], key_ring.parity);
    multiply_scores(s, query, shared.key[k]);
    barrier_wait(&shared.value_full[v], value_ring.parity);
    multiply_values(o, weights, shared.value[v]);
    wgmma_wait<1>();
    pin(s);
    release(&shared.key_empty[k]);
    if ((tile + 1) * kKvTile - 1 > group_position) mask_scores(s, tile, row_position);
    softmax.update(s, scale, rescale);
    wgmma_wait<0>();
    pin(o);
    release(&shared.value_empty[v]);
#pragma unroll
    for (int i = 0; i < 64; ++i) o[i] *= rescale[(i >> 1) & 1];
    pack_weights(weights, s);
    key_ring.next();
    value_ring.next();
  }
  barrier_wait(&shared.value_full[value_ring.stage], value_ring.parity);
  multiply_values(o, weights, shared.value[value_ring.stage]);
  wgmma_wait<0>();
  pin(o);

#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int query_row = work.query_first + row + 8 * r;
    float inverse = 1.0f / quad_sum(softmax.sum[r]);
    if (query_row >= work.query_length) continue;
    long token = work.query_begin + query_row;
    __nv_bfloat16* out = args.output + (token * args.heads + work.head) * kHeadDim + (lane & 3) * 2;
#pragma unroll
    for (int j = 0; j < 16; ++j) {
      *reinterpret_cast<uint32_t*>(out + 8 * j) = pack_bf16(o[4 * j + 2 * r] * inverse, o[4 * j + 2 * r + 1] * inverse);
    }
  }
}

__global__ void __launch_bounds__(kThreads, 1)
    prefill_sm90(const __grid_constant__ CUtensorMap query_map, const __grid_constant__ CUtensorMap key_map,
                 const __grid_constant__ CUtensorMap value_map, AttentionArgs args, float scale) {
  extern __shared__ unsigned char raw[];
  Shared& shared = *reinterpret_cast<Shared*>((reinterpret_cast<uintptr_t>(raw) + 1023) & ~uintptr_t{1023});

  Work work;
  work.head = blockIdx.x % args.heads;
  work.sequence = blockIdx.x / args.heads;
  work.kv_head = work.head / (args.heads / args.kv_heads);
  // Late queries see the most KV: they start first, so that the short blocks fill the tail.
  work.query_first = (gridDim.y - 1 - blockIdx.y) * kQueryTile;
  work.query_begin = args.query_start[work.sequence];
  work.query_length = args.query_start[work.sequence + 1] - work.query_begin;
  if (work.query_first >= work.query_length) return;
  int kv_length = args.kv_length[work.sequence];
  work.past = kv_length - work.query_length;
  int visible = min(kv_length, work.past + work.query_first + kQueryTile);
  work.tiles = (visible + kKvTile - 1) / kKvTile;

  if (threadIdx.x == 0) {
    barrier_init(&shared.query_full, 1);
    for (int s = 0; s < kStages; ++s) {
      barrier_init(&shared.key_full[s], 1);
      barrier_init(&shared.value_full[s], 1);
      barrier_init(&shared.key_empty[s], kConsumerWarps);
      barrier_init(&shared.value_empty[s], kConsumerWarps);
    }
    barrier_fence_init();
  }
  __syncthreads();

  if (threadIdx.x < 128) {
    registers_shrink<24>();
    if (threadIdx.x < 32) produce(shared, &query_map, &key_map, &value_map, args, work);
  } else {
    registers_grow<240>();
    consume(shared, args, work, scale);
  }
}

}  // namespace

void prefill_attention_sm90(const AttentionArgs& args, cudaStream_t stream) {
  uint64_t row = static_cast<uint64_t>(args.heads) * kHeadDim;
  uint64_t kv_row = static_cast<uint64_t>(args.kv_heads) * kHeadDim;
  uint64_t kv_tokens = static_cast<uint64_t>(args.pages) * kPageTokens;
  CUtensorMap query_map = make_tensor_map(
      args.queries, {kHeadDim, static_cast<uint64_t>(args.heads), static_cast<uint64_t>(args.query_tokens)},
      {kHeadDim, row}, {64, 1, kQueryTile});
  CUtensorMap key_map = make_tensor_map(args.keys, {kHeadDim, static_cast<uint64_t>(args.kv_heads), kv_tokens},
                                        {kHeadDim, kv_row}, {64, 1, kPageTokens});
  CUtensorMap value_map = make_tensor_map(args.values, {kHeadDim, static_cast<uint64_t>(args.kv_heads), kv_tokens},
                                          {kHeadDim, kv_row}, {64, 1, kPageTokens});
  constexpr int shared_bytes = sizeof(Shared) + 1024;
  DSSIM_CUDA(cudaFuncSetAttribute(prefill_sm90, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  dim3 grid(args.heads * args.sequences, (args.longest_query + kQueryTile - 1) / kQueryTile);
  float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(kHeadDim)));
  prefill_sm90<<<grid, kThreads, shared_bytes, stream>>>(query_map, key_map, value_map, args, scale);
  DSSIM_CUDA_LAUNCHED("prefill_sm90");
}

}  // namespace dssim::cuda
