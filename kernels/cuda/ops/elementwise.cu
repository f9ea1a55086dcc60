// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <type_traits>

#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

// Eight bf16, moved as one 16-byte access.
struct alignas(16) Vector {
  __nv_bfloat162 pair[4];
};

__device__ inline void unpack(const Vector& v, float (&x)[8]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    float2 f = __bfloat1622float2(v.pair[i]);
    x[2 * i] = f.x;
    x[2 * i + 1] = f.y;
  }
}
__device__ inline Vector pack(const float (&x)[8]) {
  Vector v;
#pragma unroll
  for (int i = 0; i < 4; ++i) v.pair[i] = __floats2bfloat162_rn(x[2 * i], x[2 * i + 1]);
  return v;
}

__device__ inline float block_sum(float x) {
  __shared__ float partial[32];
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  if ((threadIdx.x & 31) == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  int warps = blockDim.x / 32;
  x = threadIdx.x % 32 < warps ? partial[threadIdx.x % 32] : 0.0f;
#pragma unroll
  for (int d = 16; d > 0; d /= 2) x += __shfl_xor_sync(0xffffffffu, x, d);
  return x;
}

// One block per row, the row kept in registers between the two passes; all loads are issued before the first is used.
template <int kVectors>
__global__ void add_rmsnorm_kernel(Vector* __restrict__ residual, const Vector* __restrict__ x,
                                   const Vector* __restrict__ weight, Vector* __restrict__ out, int vectors) {
  long base = static_cast<long>(blockIdx.x) * vectors;
  Vector held[kVectors] = {};
  Vector added[kVectors] = {};
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    int c = i * blockDim.x + threadIdx.x;
    if (c < vectors) {
      held[i] = residual[base + c];
      added[i] = x[base + c];
    }
  }
  float squares = 0.0f;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    int c = i * blockDim.x + threadIdx.x;
    float a[8];
    float b[8];
    unpack(held[i], a);
    unpack(added[i], b);
#pragma unroll
    for (int j = 0; j < 8; ++j) a[j] += b[j];
    held[i] = pack(a);
    if (c < vectors) residual[base + c] = held[i];
    unpack(held[i], a);  // normalise what was stored
#pragma unroll
    for (int j = 0; j < 8; ++j) squares = fmaf(a[j], a[j], squares);
  }
  float scale = rsqrtf(block_sum(squares) / (8.0f * vectors) + 1e-5f);
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    int c = i * blockDim.x + threadIdx.x;
    if (c >= vectors) break;
    float a[8];
    float w[8];
    unpack(held[i], a);
    unpack(weight[c], w);
#pragma unroll
    for (int j = 0; j < 8; ++j) w[j] *= a[j] * scale;
    out[base + c] = pack(w);
  }
}

// `parts` blocks share a row.
__global__ void silu_mul_kernel(const Vector* gate_up, Vector* out, int vectors, int parts) {
  int c = blockIdx.x % parts * blockDim.x + threadIdx.x;
  if (c >= vectors) return;
  long row = blockIdx.x / parts;
  float gate[8];
  float up[8];
  unpack(gate_up[row * 2 * vectors + c], gate);
  unpack(gate_up[row * 2 * vectors + vectors + c], up);
#pragma unroll
  for (int j = 0; j < 8; ++j) up[j] *= gate[j] / (1.0f + __expf(-gate[j]));
  out[row * vectors + c] = pack(up);
}

// One block per token. A query or key item is the eight pairs (i, i + head_dim/2); a value item one vector.
__global__ void rope_kernel(RopeArgs args) {
  int row = blockIdx.x;
  int half_vectors = args.head_dim / 16;
  int rotated = (args.heads + args.kv_heads) * half_vectors;
  int copied = args.kv_heads * args.head_dim / 8;
  const bf16* in = args.qkv + static_cast<long>(row) * (args.heads + 2 * args.kv_heads) * args.head_dim;
  long slot = static_cast<long>(args.slots[row]) * args.kv_heads * args.head_dim;
  float position = static_cast<float>(args.positions[row]);
  for (int i = threadIdx.x; i < rotated + copied; i += blockDim.x) {
    if (i >= rotated) {
      int c = (i - rotated) * 8;
      *reinterpret_cast<Vector*>(args.values + slot + c) =
          *reinterpret_cast<const Vector*>(in + (args.heads + args.kv_heads) * args.head_dim + c);
      continue;
    }
    int head = i / half_vectors;
    int pair = i % half_vectors * 8;
    float low[8];
    float high[8];
    unpack(*reinterpret_cast<const Vector*>(in + head * args.head_dim + pair), low);
    unpack(*reinterpret_cast<const Vector*>(in + head * args.head_dim + pair + args.head_dim / 2), high);
    float step = -2.0f * __log2f(args.theta) / args.head_dim;
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float sine;
      float cosine;
      sincosf(position * exp2f(step * (pair + j)), &sine, &cosine);
      float a = low[j];
      low[j] = a * cosine - high[j] * sine;
      high[j] = high[j] * cosine + a * sine;
    }
    bf16* out = head < args.heads ? args.queries + (static_cast<long>(row) * args.heads + head) * args.head_dim
                                  : args.keys + slot + static_cast<long>(head - args.heads) * args.head_dim;
    *reinterpret_cast<Vector*>(out + pair) = pack(low);
    *reinterpret_cast<Vector*>(out + pair + args.head_dim / 2) = pack(high);
  }
}

__global__ void embedding_kernel(const int* ids, const Vector* table, Vector* out, int vectors, int parts) {
  int c = blockIdx.x % parts * blockDim.x + threadIdx.x;
  if (c >= vectors) return;
  long row = blockIdx.x / parts;
  out[row * vectors + c] = table[static_cast<long>(ids[row]) * vectors + c];
}

__device__ inline uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

struct SampleSlot {
  unsigned long long best;  // order-preserving score in the high word, token in the low word
  unsigned int arrived;
  unsigned int unused;
};

// Several blocks share a row; the last to arrive writes the token and clears the slot for the next call.
__global__ void sample_kernel(const Vector* logits, int* tokens, int vectors, float inverse_temperature, uint32_t seed,
                              SampleSlot* slots) {
  long row = blockIdx.y;
  uint32_t row_seed = hash(seed ^ hash(static_cast<uint32_t>(row)));
  float best = -INFINITY;
  int token = 0;
  for (int c = blockIdx.x * blockDim.x + threadIdx.x; c < vectors; c += gridDim.x * blockDim.x) {
    float x[8];
    unpack(logits[row * vectors + c], x);
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      float score = x[j];
      if (inverse_temperature > 0.0f) {
        float u = (hash(row_seed + c * 8 + j) + 0.5f) * 2.3283064e-10f;
        score = score * inverse_temperature - __logf(-__logf(fminf(u, 0.9999999f)));
      }
      if (score > best) {
        best = score;
        token = c * 8 + j;
      }
    }
  }
  uint32_t bits = __float_as_uint(best);
  bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  unsigned long long key = (static_cast<unsigned long long>(bits) << 32) | static_cast<uint32_t>(token);
#pragma unroll
  for (int d = 16; d > 0; d /= 2) {
    unsigned long long other = __shfl_xor_sync(0xffffffffu, key, d);
    key = other > key ? other : key;
  }
  __shared__ unsigned long long block_best;
  if (threadIdx.x == 0) block_best = 0;
  __syncthreads();
  if ((threadIdx.x & 31) == 0) atomicMax(&block_best, key);
  __syncthreads();
  if (threadIdx.x != 0) return;
  atomicMax(&slots[row].best, block_best);
  __threadfence();
  if (atomicAdd(&slots[row].arrived, 1) == gridDim.x - 1) {
    tokens[row] = static_cast<int>(atomicExch(&slots[row].best, 0ull) & 0xffffffffu);
    slots[row].arrived = 0;
  }
}

int threads_for(int vectors, int most) {
  return std::min(most, std::max(32, (vectors + 31) / 32 * 32));
}

}  // namespace

void add_rmsnorm(bf16* residual, const bf16* x, const bf16* weight, bf16* out, int rows, int width,
                 cudaStream_t stream) {
  int vectors = width / 8;
  auto* r = reinterpret_cast<Vector*>(residual);
  auto* in = reinterpret_cast<const Vector*>(x);
  auto* w = reinterpret_cast<const Vector*>(weight);
  auto* o = reinterpret_cast<Vector*>(out);
  // About 256 threads a row whatever its width, so that the rate does not jump from width to width.
  auto launch = [&](auto count) {
    constexpr int kVectors = decltype(count)::value;
    add_rmsnorm_kernel<kVectors>
        <<<rows, threads_for((vectors + kVectors - 1) / kVectors, 1024), 0, stream>>>(r, in, w, o, vectors);
  };
  switch ((vectors + 255) / 256) {
    case 1:
      launch(std::integral_constant<int, 1>{});
      break;
    case 2:
      launch(std::integral_constant<int, 2>{});
      break;
    case 3:
      launch(std::integral_constant<int, 3>{});
      break;
    case 4:
      launch(std::integral_constant<int, 4>{});
      break;
    case 5:
      launch(std::integral_constant<int, 5>{});
      break;
    case 6:
      launch(std::integral_constant<int, 6>{});
      break;
    case 7:
      launch(std::integral_constant<int, 7>{});
      break;
    default:
      launch(std::integral_constant<int, 8>{});
  }
  DSSIM_CUDA_LAUNCHED("add_rmsnorm");
}

void silu_mul(const bf16* gate_up, bf16* out, int rows, int width, cudaStream_t stream) {
  int vectors = width / 8;
  int threads = threads_for(vectors, 256);
  int parts = (vectors + threads - 1) / threads;
  silu_mul_kernel<<<rows * parts, threads, 0, stream>>>(reinterpret_cast<const Vector*>(gate_up),
                                                        reinterpret_cast<Vector*>(out), vectors, parts);
  DSSIM_CUDA_LAUNCHED("silu_mul");
}

void rope_kv_write(const RopeArgs& args, cudaStream_t stream) {
  int items = (args.heads + args.kv_heads) * args.head_dim / 16 + args.kv_heads * args.head_dim / 8;
  rope_kernel<<<args.rows, threads_for(items, 256), 0, stream>>>(args);
  DSSIM_CUDA_LAUNCHED("rope_kv_write");
}

void embedding(const int* ids, const bf16* table, bf16* out, int rows, int width, cudaStream_t stream) {
  int vectors = width / 8;
  int threads = threads_for(vectors, 256);
  int parts = (vectors + threads - 1) / threads;
  embedding_kernel<<<rows * parts, threads, 0, stream>>>(ids, reinterpret_cast<const Vector*>(table),
                                                         reinterpret_cast<Vector*>(out), vectors, parts);
  DSSIM_CUDA_LAUNCHED("embedding");
}

void sample(const bf16* logits, int* tokens, int rows, int vocabulary, float temperature, uint32_t seed,
            void* workspace, cudaStream_t stream) {
  int vectors = vocabulary / 8;
  int parts = std::clamp(264 / rows, 1, (vectors + 511) / 512);
  float inverse_temperature = temperature > 0.0f ? 1.0f / temperature : 0.0f;
  sample_kernel<<<dim3(parts, rows), 512, 0, stream>>>(reinterpret_cast<const Vector*>(logits), tokens, vectors,
                                                       inverse_temperature, seed, static_cast<SampleSlot*>(workspace));
  DSSIM_CUDA_LAUNCHED("sample");
}

std::size_t sample_workspace_bytes(int rows) {
  return static_cast<std::size_t>(rows) * sizeof(SampleSlot);
}

}  // namespace dssim::cuda
