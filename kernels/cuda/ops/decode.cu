// SPDX-License-Identifier: Apache-2.0
// Decode attention: one query token per sequence, so the KV cache is read once and memory bandwidth is the bound. A
// block takes up to 16 query heads that share a KV head, as the 16 rows of mma.m16n8k16, and one part of one sequence's
// KV. Its four warps work alone, each on every fourth page, with its own ring of pages fetched ahead by cp.async; they
// meet once, at the end. Parts of one sequence are merged by whichever block finishes last (a counter in the
// workspace).
#include <algorithm>
#include <cmath>

#include "kernels/attention_blocks.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/softmax.cuh"
#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kWarps = DecodeBlocks::kWarps;
constexpr int kThreads = kWarps * 32;
constexpr int kStages = 3;
constexpr int kHeadTile = DecodeBlocks::kHeadTile;
static_assert(kPageTokens == DecodeBlocks::kPageTokens);

template <int kHeadDim>
struct Decode {
  static constexpr int row_bytes = kHeadDim * 2;
  static constexpr int chunks = row_bytes / 16;
  static constexpr int page_bytes = kPageTokens * row_bytes;
  static constexpr int stage_bytes = 2 * page_bytes;
  static constexpr int shared_bytes = kWarps * kStages * stage_bytes;
  static constexpr int part_floats = kHeadTile * (kHeadDim + 2);  // output rows, then max and sum of each row
};

struct Split {
  int parts;
  int head_tiles;  // blocks per KV head
};

template <int kHeadDim>
__device__ void load_page(uint32_t stage, const AttentionArgs& args, int page, int kv_head) {
  using D = Decode<kHeadDim>;
  int lane = threadIdx.x & 31;
  long stride = static_cast<long>(args.kv_heads) * kHeadDim;
  long base = (static_cast<long>(page) * kPageTokens * args.kv_heads + kv_head) * kHeadDim;
#pragma unroll
  for (int i = 0; i < kPageTokens * D::chunks / 32; ++i) {
    int row = (i * 32 + lane) / D::chunks;
    int chunk = (i * 32 + lane) % D::chunks;
    long offset = base + row * stride + chunk * 8;
    uint32_t to = stage + swizzled<D::row_bytes>(row, chunk);
    copy_async_16(to, args.keys + offset);
    copy_async_16(to + D::page_bytes, args.values + offset);
  }
}

template <int kHeadDim>
__device__ void attend_page(uint32_t stage, const uint32_t (&query)[kHeadDim / 16][4], float (&o)[kHeadDim / 2],
                            RunningSoftmax& softmax, float scale, int visible) {
  using D = Decode<kHeadDim>;
  int lane = threadIdx.x & 31;
  float s[8] = {};
#pragma unroll
  for (int step = 0; step < kHeadDim / 16; ++step) {
    uint32_t b[4];
    load_matrix_x4(b, stage + swizzled<D::row_bytes>((lane & 7) + ((lane >> 4) << 3), step * 2 + ((lane >> 3) & 1)));
    mma_bf16(*reinterpret_cast<float(*)[4]>(&s[0]), query[step], b[0], b[1]);
    mma_bf16(*reinterpret_cast<float(*)[4]>(&s[4]), query[step], b[2], b[3]);
  }
  if (visible < kPageTokens) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      if ((i / 4) * 8 + (lane & 3) * 2 + (i & 1) >= visible) s[i] = -INFINITY;
    }
  }
  float rescale[2];
  softmax.update(s, scale, rescale);
#pragma unroll
  for (int i = 0; i < kHeadDim / 2; ++i) o[i] *= rescale[(i >> 1) & 1];
  uint32_t weights[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) weights[i] = pack_bf16(s[2 * i], s[2 * i + 1]);
#pragma unroll
  for (int pair = 0; pair < kHeadDim / 16; ++pair) {
    uint32_t b[4];
    load_matrix_x4_transposed(b, stage + D::page_bytes + swizzled<D::row_bytes>(lane & 15, pair * 2 + lane / 16));
    mma_bf16(*reinterpret_cast<float(*)[4]>(&o[8 * pair]), weights, b[0], b[1]);
    mma_bf16(*reinterpret_cast<float(*)[4]>(&o[8 * pair + 4]), weights, b[2], b[3]);
  }
}

// Merges the parts of a sequence: out = sum(w o) / sum(w l) with w = exp2(m - max). A warp per row turns the parts'
// maxima and sums into weights; then a warp per row reads the outputs, four columns a lane, several parts in flight.
template <int kHeadDim>
__device__ void merge_parts(const float* parts, int count, int rows, float* weights, __nv_bfloat16* out) {
  using D = Decode<kHeadDim>;
  int lane = threadIdx.x & 31;
  for (int row = threadIdx.x / 32; row < rows; row += kWarps) {
    float* weight = weights + row * count;
    float top = -INFINITY;
    for (int p = lane; p < count; p += 32) {
      weight[p] = __ldcg(&parts[p * D::part_floats + kHeadTile * kHeadDim + row]);
      top = fmaxf(top, weight[p]);
    }
    top = warp_max(top);
    float total = 0.0f;
    for (int p = lane; p < count; p += 32) {
      weight[p] = exp2_fast(weight[p] - top);
      total = fmaf(weight[p], __ldcg(&parts[p * D::part_floats + kHeadTile * (kHeadDim + 1) + row]), total);
    }
    total = warp_sum(total);
    __syncwarp();
    if (lane * 4 >= kHeadDim) continue;
    float4 sum = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
    const float* column = parts + row * kHeadDim + lane * 4;
#pragma unroll 16
    for (int p = 0; p < count; ++p) {
      float4 x = __ldcg(reinterpret_cast<const float4*>(column + p * D::part_floats));
      float w = weight[p];
      sum.x = fmaf(w, x.x, sum.x);
      sum.y = fmaf(w, x.y, sum.y);
      sum.z = fmaf(w, x.z, sum.z);
      sum.w = fmaf(w, x.w, sum.w);
    }
    float inverse = 1.0f / total;
    uint2 packed = make_uint2(pack_bf16(sum.x * inverse, sum.y * inverse), pack_bf16(sum.z * inverse, sum.w * inverse));
    *reinterpret_cast<uint2*>(out + row * kHeadDim + lane * 4) = packed;
  }
}

template <int kHeadDim>
__global__ void __launch_bounds__(kThreads)
    decode_kernel(AttentionArgs args, float scale, Split split, int* counters, float* workspace) {
  using D = Decode<kHeadDim>;
  extern __shared__ __align__(128) unsigned char raw[];
  __shared__ float row_max[kWarps][kHeadTile];
  __shared__ float row_sum[kWarps][kHeadTile];
  __shared__ bool is_last;

  int lane = threadIdx.x & 31;
  int warp = threadIdx.x / 32;
  int group = args.heads / args.kv_heads;
  int kv_head = blockIdx.x / split.head_tiles;
  int first_head = kv_head * group + (blockIdx.x % split.head_tiles) * kHeadTile;
  int rows = min(kHeadTile, (kv_head + 1) * group - first_head);
  int part = blockIdx.y;
  int sequence = blockIdx.z;
  int kv_length = args.kv_length[sequence];
  int pages = (kv_length + kPageTokens - 1) / kPageTokens;
  int pages_per_part = (pages + split.parts - 1) / split.parts;
  int first_page = part * pages_per_part + warp;
  int end_page = min(pages, (part + 1) * pages_per_part);
  const int* table = args.page_table + static_cast<long>(sequence) * args.pages_per_sequence;

  const __nv_bfloat16* query_rows = args.queries + (static_cast<long>(sequence) * args.heads + first_head) * kHeadDim;
  uint32_t query[kHeadDim / 16][4];
#pragma unroll
  for (int i = 0; i < kHeadDim / 4; ++i) {
    int row = lane / 4 + (i & 1) * 8;
    int column = (i / 4) * 16 + (lane & 3) * 2 + ((i >> 1) & 1) * 8;
    query[i / 4][i % 4] = row < rows ? *reinterpret_cast<const uint32_t*>(query_rows + row * kHeadDim + column) : 0u;
  }

  uint32_t ring = shared_address(raw) + warp * kStages * D::stage_bytes;
  float o[kHeadDim / 2] = {};
  RunningSoftmax softmax;
#pragma unroll
  for (int i = 0; i < kStages - 1; ++i) {
    int page = first_page + i * kWarps;
    if (page < end_page) load_page<kHeadDim>(ring + i * D::stage_bytes, args, table[page], kv_head);
    copy_async_commit();
  }
  int ahead = first_page + (kStages - 1) * kWarps;
  int next = ahead < end_page ? table[ahead] : 0;
  int stage = 0;
  for (int page = first_page; page < end_page; page += kWarps) {
    copy_async_wait<kStages - 2>();
    __syncwarp();  // every lane's share of the page has landed, and nobody still reads the stage refilled next
    if (ahead < end_page) {
      int refill = stage == 0 ? kStages - 1 : stage - 1;
      load_page<kHeadDim>(ring + refill * D::stage_bytes, args, next, kv_head);
    }
    copy_async_commit();
    ahead += kWarps;
    next = ahead < end_page ? table[ahead] : 0;
    attend_page<kHeadDim>(ring + stage * D::stage_bytes, query, o, softmax, scale, kv_length - page * kPageTokens);
    stage = stage == kStages - 1 ? 0 : stage + 1;
  }

  // The warps' results meet in shared memory, where the pages were.
  copy_async_wait<0>();
  __syncthreads();
  float* outputs = reinterpret_cast<float*>(raw);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    int row = lane / 4 + 8 * r;
    float sum = quad_sum(softmax.sum[r]);
    if ((lane & 3) == 0) {
      row_max[warp][row] = softmax.max[r] * scale;
      row_sum[warp][row] = sum;
    }
#pragma unroll
    for (int j = 0; j < kHeadDim / 8; ++j) {
      *reinterpret_cast<float2*>(&outputs[(warp * kHeadTile + row) * kHeadDim + 8 * j + (lane & 3) * 2]) =
          make_float2(o[4 * j + 2 * r], o[4 * j + 2 * r + 1]);
    }
  }
  __syncthreads();

  __nv_bfloat16* out = args.output + (static_cast<long>(sequence) * args.heads + first_head) * kHeadDim;
  int tile_index = sequence * gridDim.x + blockIdx.x;
  float* parts = workspace + static_cast<long>(tile_index) * split.parts * D::part_floats;
  for (int i = threadIdx.x; i < rows * kHeadDim; i += kThreads) {
    int row = i / kHeadDim;
    float top = -1e30f;  // finite, so that a part without pages gets weight 0 and not NaN
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, row_max[w][row]);
    float total = 0.0f;
    float value = 0.0f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      float weight = exp2_fast(row_max[w][row] - top);
      total = fmaf(weight, row_sum[w][row], total);
      value = fmaf(weight, outputs[w * kHeadTile * kHeadDim + i], value);
    }
    if (split.parts == 1) {
      out[i] = __float2bfloat16(value / total);
    } else {
      float* mine = parts + part * D::part_floats;
      mine[i] = value;
      if (i % kHeadDim == 0) {
        mine[kHeadTile * kHeadDim + row] = top;
        mine[kHeadTile * (kHeadDim + 1) + row] = total;
      }
    }
  }
  if (split.parts == 1) return;

  __threadfence();
  __syncthreads();
  if (threadIdx.x == 0) is_last = atomicAdd(&counters[tile_index], 1) == split.parts - 1;
  __syncthreads();
  if (!is_last) return;
  __threadfence();
  if (threadIdx.x == 0) counters[tile_index] = 0;  // ready for the next call
  merge_parts<kHeadDim>(parts, split.parts, rows, outputs, out);
}

template <int kHeadDim>
int blocks_per_processor() {
  constexpr int shared_bytes = Decode<kHeadDim>::shared_bytes;
  DSSIM_CUDA(cudaFuncSetAttribute(decode_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes));
  int blocks = 0;
  DSSIM_CUDA(
      cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, decode_kernel<kHeadDim>, kThreads, shared_bytes));
  return std::max(1, blocks);
}

template <int kHeadDim>
void launch(const AttentionArgs& args, int longest_kv, void* workspace, cudaStream_t stream) {
  using D = Decode<kHeadDim>;
  DSSIM_CUDA(
      cudaFuncSetAttribute(decode_kernel<kHeadDim>, cudaFuncAttributeMaxDynamicSharedMemorySize, D::shared_bytes));
  static const int resident_blocks = [] {
    int device = 0;
    int processors = 0;
    DSSIM_CUDA(cudaGetDevice(&device));
    DSSIM_CUDA(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device));
    return processors * blocks_per_processor<kHeadDim>();
  }();
  Split split;
  split.head_tiles = (args.heads / args.kv_heads + kHeadTile - 1) / kHeadTile;
  int tiles = args.kv_heads * split.head_tiles * args.sequences;
  split.parts = DecodeBlocks::choose(tiles, (longest_kv + kPageTokens - 1) / kPageTokens, resident_blocks).parts;
  int* counters = static_cast<int*>(workspace);
  float* partial = reinterpret_cast<float*>(counters + (static_cast<long>(args.sequences) * args.heads + 3) / 4 * 4);
  dim3 grid(args.kv_heads * split.head_tiles, split.parts, args.sequences);
  float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(kHeadDim)));
  decode_kernel<kHeadDim><<<grid, kThreads, D::shared_bytes, stream>>>(args, scale, split, counters, partial);
  DSSIM_CUDA_LAUNCHED("decode_kernel");
}

}  // namespace

void decode_attention(const AttentionArgs& args, int longest_kv, void* workspace, cudaStream_t stream) {
  if (args.head_dim == 64) {
    launch<64>(args, longest_kv, workspace, stream);
  } else {
    launch<128>(args, longest_kv, workspace, stream);
  }
}

int decode_blocks_per_processor() {
  return blocks_per_processor<128>();
}

std::size_t decode_workspace_bytes(int sequences, int heads, int head_dim) {
  return (static_cast<std::size_t>(sequences) * heads + 4) * sizeof(int) +
         static_cast<std::size_t>(DecodeBlocks::kMaxBlocks) * kHeadTile * (head_dim + 2) * sizeof(float);
}

}  // namespace dssim::cuda
