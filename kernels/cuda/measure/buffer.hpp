// SPDX-License-Identifier: Apache-2.0
// Device memory with an owner, filled with random numbers: zeros draw less power and hide unwritten outputs.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {

class Buffer {
 public:
  explicit Buffer(std::size_t bytes) : bytes_(bytes) { DSSIM_CUDA(cudaMalloc(&data_, bytes)); }
  ~Buffer() { cudaFree(data_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  template <typename T = void>
  T* as(std::size_t byte_offset = 0) const {
    return reinterpret_cast<T*>(static_cast<char*>(data_) + byte_offset);
  }
  std::size_t bytes() const { return bytes_; }

  template <typename T>
  void upload(const std::vector<T>& host) {
    DSSIM_CUDA(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice));
  }
  template <typename T>
  std::vector<T> download(std::size_t count) const {
    std::vector<T> host(count);
    DSSIM_CUDA(cudaMemcpy(host.data(), data_, count * sizeof(T), cudaMemcpyDeviceToHost));
    return host;
  }

 private:
  void* data_ = nullptr;
  std::size_t bytes_ = 0;
};

// Normal deviates times `scale`, as bf16 or fp16; e4m3 deviates; int8 uniform in [-127, 127]; ids uniform in [0,
// limit).
void fill_bf16(void* data, std::size_t count, float scale, uint32_t seed);
void fill_fp16(void* data, std::size_t count, float scale, uint32_t seed);
void fill_fp8(void* data, std::size_t count, float scale, uint32_t seed);
void fill_int8(void* data, std::size_t count, uint32_t seed);
void fill_ids(int* data, std::size_t count, int limit, uint32_t seed);

// A kernel that does nothing, for launch overheads.
void launch_empty(cudaStream_t stream);

// A plain copy by a kernel, 16 bytes an access: what a memory-bound kernel can reach (a memcpy inside a graph is
// slower).
void launch_copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream);

}  // namespace dssim::cuda
