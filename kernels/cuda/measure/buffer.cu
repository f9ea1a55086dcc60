// SPDX-License-Identifier: Apache-2.0
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/measure/buffer.hpp"

namespace dssim::cuda {
namespace {

__device__ uint32_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return static_cast<uint32_t>(x ^ (x >> 33));
}

__device__ float normal(uint64_t index, uint32_t seed) {
  uint64_t key = (static_cast<uint64_t>(seed) << 40) + index * 2;
  float u = (mix(key) + 1.0f) * 2.3283063e-10f;
  float v = mix(key + 1) * 2.3283064e-10f;
  return sqrtf(-2.0f * __logf(u)) * __cosf(6.2831853f * v);
}

template <typename Write>
__global__ void fill_kernel(std::size_t count, Write write) {
  std::size_t stride = static_cast<std::size_t>(gridDim.x) * blockDim.x;
  for (std::size_t i = blockIdx.x * static_cast<std::size_t>(blockDim.x) + threadIdx.x; i < count; i += stride)
    write(i);
}

template <typename Write>
void fill(std::size_t count, Write write) {
  fill_kernel<<<2048, 256>>>(count, write);
  DSSIM_CUDA_LAUNCHED("fill");
  DSSIM_CUDA(cudaDeviceSynchronize());
}

__global__ void empty_kernel() {}

constexpr int kCopyVectors = 4;  // in flight per thread
constexpr int kCopyThreads = 512;

__global__ void copy_kernel(uint4* to, const uint4* from, std::size_t vectors) {
  std::size_t base = static_cast<std::size_t>(blockIdx.x) * kCopyThreads * kCopyVectors + threadIdx.x;
  uint4 held[kCopyVectors];
#pragma unroll
  for (int i = 0; i < kCopyVectors; ++i) {
    if (base + i * kCopyThreads < vectors) held[i] = from[base + i * kCopyThreads];
  }
#pragma unroll
  for (int i = 0; i < kCopyVectors; ++i) {
    if (base + i * kCopyThreads < vectors) to[base + i * kCopyThreads] = held[i];
  }
}

}  // namespace

void fill_bf16(void* data, std::size_t count, float scale, uint32_t seed) {
  auto* out = static_cast<__nv_bfloat16*>(data);
  fill(count, [=] __device__(std::size_t i) { out[i] = __float2bfloat16(scale * normal(i, seed)); });
}

void fill_fp16(void* data, std::size_t count, float scale, uint32_t seed) {
  auto* out = static_cast<__half*>(data);
  fill(count, [=] __device__(std::size_t i) { out[i] = __float2half(scale * normal(i, seed)); });
}

void fill_fp8(void* data, std::size_t count, float scale, uint32_t seed) {
  auto* out = static_cast<__nv_fp8_e4m3*>(data);
  fill(count, [=] __device__(std::size_t i) { out[i] = __nv_fp8_e4m3(scale * normal(i, seed)); });
}

void fill_int8(void* data, std::size_t count, uint32_t seed) {
  auto* out = static_cast<int8_t*>(data);
  fill(count, [=] __device__(std::size_t i) {
    out[i] = static_cast<int8_t>(mix((static_cast<uint64_t>(seed) << 40) + i) % 255u) - 127;
  });
}

void fill_ids(int* data, std::size_t count, int limit, uint32_t seed) {
  fill(count, [=] __device__(std::size_t i) {
    data[i] = static_cast<int>(mix((static_cast<uint64_t>(seed) << 40) + i) % static_cast<uint32_t>(limit));
  });
}

void launch_empty(cudaStream_t stream) {
  empty_kernel<<<1, 32, 0, stream>>>();
  DSSIM_CUDA_LAUNCHED("empty kernel");
}

void launch_copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  std::size_t vectors = bytes / 16;
  auto blocks = static_cast<unsigned>((vectors + kCopyThreads * kCopyVectors - 1) / (kCopyThreads * kCopyVectors));
  copy_kernel<<<blocks, kCopyThreads, 0, stream>>>(static_cast<uint4*>(to), static_cast<const uint4*>(from), vectors);
  DSSIM_CUDA_LAUNCHED("copy");
}

}  // namespace dssim::cuda
