// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/ops/moe.hpp"

#include <algorithm>

#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kMaxExperts = 256;
constexpr int kMaxTopK = 8;

// Where each assignment (token, choice) went: expert, place among the expert's rows, weight.
struct Assignment {
  int expert;  // -1: not on this GPU
  int place;
  float weight;
};

struct Layout {
  Assignment* assignments;
  int* counts;  // [experts]
  int* starts;  // [experts], first gathered row
  int* tile_count;
  int* tile_expert;
  int* tile_row;
  int* tile_end;
  __nv_bfloat16* gathered;  // [rows][width], later the second product's output
  __nv_bfloat16* gate_up;   // [rows][2 * ffn]
  __nv_bfloat16* activated;
  int rows;
  int most_tiles;
  int tile_rows;
  std::size_t bytes;
};

Layout lay_out(const MoeArgs& args, void* workspace) {
  Layout l{};
  l.rows = args.tokens * args.top_k;
  // Few rows per expert: the weights' traffic decides, and smaller tiles waste less.
  l.tile_rows = warpgroup_mma_available() && l.rows > 64 * args.experts ? 128 : 64;
  l.most_tiles = l.rows / l.tile_rows + std::min(args.local_experts, l.rows);
  std::size_t at = 0;
  auto take = [&](auto*& pointer, std::size_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(static_cast<char*>(workspace) + at);
    at += (count * sizeof(*pointer) + 1023) / 1024 * 1024;
  };
  take(l.assignments, l.rows);
  take(l.counts, kMaxExperts);
  take(l.starts, kMaxExperts);
  take(l.tile_count, 1);
  take(l.tile_expert, l.most_tiles);
  take(l.tile_row, l.most_tiles);
  take(l.tile_end, l.most_tiles);
  take(l.gathered, static_cast<std::size_t>(l.rows) * args.width);
  take(l.gate_up, static_cast<std::size_t>(l.rows) * args.ffn * 2);
  take(l.activated, static_cast<std::size_t>(l.rows) * args.ffn);
  l.bytes = at;
  return l;
}

// One warp per token: k times the greatest of the remaining logits, weights = softmax over the chosen.
__global__ void route_kernel(const __nv_bfloat16* logits, Assignment* assignments, int* counts, int tokens, int experts,
                             int local_experts, int top_k) {
  int token = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  int lane = threadIdx.x & 31;
  if (token >= tokens) return;
  float mine[kMaxExperts / 32];
#pragma unroll
  for (int i = 0; i < kMaxExperts / 32; ++i) {
    int e = i * 32 + lane;
    mine[i] = e < experts ? __bfloat162float(logits[static_cast<long>(token) * experts + e]) : -INFINITY;
  }
  float chosen[kMaxTopK];
  int expert[kMaxTopK];
#pragma unroll
  for (int k = 0; k < kMaxTopK; ++k) {
    if (k >= top_k) break;
    float best = -INFINITY;
    int index = lane;
#pragma unroll
    for (int i = 0; i < kMaxExperts / 32; ++i) {
      if (mine[i] > best) {
        best = mine[i];
        index = i * 32 + lane;
      }
    }
#pragma unroll
    for (int d = 16; d > 0; d /= 2) {
      float other = __shfl_xor_sync(0xffffffffu, best, d);
      int other_index = __shfl_xor_sync(0xffffffffu, index, d);
      if (other > best || (other == best && other_index < index)) {
        best = other;
        index = other_index;
      }
    }
    chosen[k] = best;
    expert[k] = index;
#pragma unroll
    for (int i = 0; i < kMaxExperts / 32; ++i) {
      if (i * 32 + lane == index) mine[i] = -INFINITY;
    }
  }
  if (lane != 0) return;
  float total = 0.0f;
#pragma unroll
  for (int k = 0; k < kMaxTopK; ++k) {
    if (k < top_k) total += __expf(chosen[k] - chosen[0]);
  }
#pragma unroll
  for (int k = 0; k < kMaxTopK; ++k) {
    if (k >= top_k) break;
    bool local = expert[k] < local_experts;
    int place = local ? atomicAdd(&counts[expert[k]], 1) : 0;
    assignments[token * top_k + k] = {local ? expert[k] : -1, place, __expf(chosen[k] - chosen[0]) / total};
  }
}

// One block, one thread per expert: first rows, and the list of row tiles.
__global__ void plan_kernel(Layout l, int experts) {
  __shared__ int rows[kMaxExperts];
  __shared__ int tiles[kMaxExperts];
  int e = threadIdx.x;
  int count = e < experts ? l.counts[e] : 0;
  rows[e] = count;
  tiles[e] = (count + l.tile_rows - 1) / l.tile_rows;
  for (int d = 1; d < kMaxExperts; d *= 2) {
    __syncthreads();
    int row_before = e >= d ? rows[e - d] : 0;
    int tile_before = e >= d ? tiles[e - d] : 0;
    __syncthreads();
    rows[e] += row_before;
    tiles[e] += tile_before;
  }
  __syncthreads();
  int start = rows[e] - count;
  l.starts[e] = start;
  int tile = e == 0 ? 0 : tiles[e - 1];
  for (int at = 0; at < count; at += l.tile_rows, ++tile) {
    l.tile_expert[tile] = e;
    l.tile_row[tile] = start + at;
    l.tile_end[tile] = start + min(count, at + l.tile_rows);
  }
  if (e == kMaxExperts - 1) *l.tile_count = tiles[e];
}

__global__ void gather_kernel(const uint4* hidden, uint4* gathered, const Assignment* assignments, const int* starts,
                              int top_k, int vectors) {
  Assignment a = assignments[blockIdx.x];
  if (a.expert < 0) return;
  const uint4* from = hidden + static_cast<long>(blockIdx.x / top_k) * vectors;
  uint4* to = gathered + static_cast<long>(starts[a.expert] + a.place) * vectors;
  for (int c = threadIdx.x; c < vectors; c += blockDim.x) to[c] = from[c];
}

__global__ void combine_kernel(const __nv_bfloat162* rows, __nv_bfloat162* output, const Assignment* assignments,
                               const int* starts, int top_k, int pairs) {
  int c = blockIdx.y * blockDim.x + threadIdx.x;
  if (c >= pairs) return;
  float2 sum = make_float2(0.0f, 0.0f);
  for (int k = 0; k < top_k; ++k) {
    Assignment a = assignments[blockIdx.x * top_k + k];
    if (a.expert < 0) continue;
    float2 x = __bfloat1622float2(rows[static_cast<long>(starts[a.expert] + a.place) * pairs + c]);
    sum.x = fmaf(a.weight, x.x, sum.x);
    sum.y = fmaf(a.weight, x.y, sum.y);
  }
  output[static_cast<long>(blockIdx.x) * pairs + c] = __floats2bfloat162_rn(sum.x, sum.y);
}

}  // namespace

std::size_t moe_workspace_bytes(const MoeArgs& args) {
  return lay_out(args, nullptr).bytes;
}

void moe_forward(const MoeArgs& args, void* workspace, cudaStream_t stream) {
  Layout l = lay_out(args, workspace);
  DSSIM_CUDA(cudaMemsetAsync(l.counts, 0, kMaxExperts * sizeof(int), stream));
  route_kernel<<<(args.tokens + 3) / 4, 128, 0, stream>>>(args.router_logits, l.assignments, l.counts, args.tokens,
                                                          args.experts, args.local_experts, args.top_k);
  DSSIM_CUDA_LAUNCHED("moe route");
  plan_kernel<<<1, kMaxExperts, 0, stream>>>(l, args.local_experts);
  DSSIM_CUDA_LAUNCHED("moe plan");
  gather_kernel<<<l.rows, 256, 0, stream>>>(reinterpret_cast<const uint4*>(args.hidden),
                                            reinterpret_cast<uint4*>(l.gathered), l.assignments, l.starts, args.top_k,
                                            args.width / 8);
  DSSIM_CUDA_LAUNCHED("moe gather");
  GroupedTiles tiles{l.tile_count, l.tile_expert, l.tile_row, l.tile_end, l.most_tiles, l.rows, l.tile_rows};
  grouped_gemm(l.gathered, args.gate_up, l.gate_up, args.local_experts, 2 * args.ffn, args.width, tiles, stream);
  silu_mul(l.gate_up, l.activated, l.rows, args.ffn, stream);
  grouped_gemm(l.activated, args.down, l.gathered, args.local_experts, args.width, args.ffn, tiles, stream);
  combine_kernel<<<dim3(args.tokens, (args.width / 2 + 255) / 256), 256, 0, stream>>>(
      reinterpret_cast<const __nv_bfloat162*>(l.gathered), reinterpret_cast<__nv_bfloat162*>(args.output),
      l.assignments, l.starts, args.top_k, args.width / 2);
  DSSIM_CUDA_LAUNCHED("moe combine");
}

void grouped_gemm(const __nv_bfloat16* activations, const __nv_bfloat16* weights, __nv_bfloat16* output, int experts,
                  int n, int k, const GroupedTiles& tiles, cudaStream_t stream) {
  if (warpgroup_mma_available()) {
    grouped_gemm_sm90(activations, weights, output, experts, n, k, tiles, stream);
  } else {
    grouped_gemm_mma(activations, weights, output, n, k, tiles, stream);
  }
}

}  // namespace dssim::cuda
