// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/ops/tensor_map.hpp"

#include <algorithm>
#include <array>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

using Encode = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*, const cuuint64_t*,
                            const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave, CUtensorMapSwizzle,
                            CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

// Looked up at run time, so that the program does not link the driver library and starts without one.
Encode find_encode() {
  void* entry = nullptr;
  cudaDriverEntryPointQueryResult result{};
#if CUDART_VERSION >= 12050
  DSSIM_CUDA(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &entry, 12000, cudaEnableDefault, &result));
#else
  DSSIM_CUDA(cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &entry, cudaEnableDefault, &result));
#endif
  if (result != cudaDriverEntryPointSuccess) throw Unavailable("the driver has no cuTensorMapEncodeTiled: too old");
  return reinterpret_cast<Encode>(entry);
}

}  // namespace

CUtensorMap make_tensor_map(const void* base, std::initializer_list<uint64_t> sizes,
                            std::initializer_list<uint64_t> strides, std::initializer_list<uint32_t> box) {
  static const Encode encode = find_encode();
  std::array<cuuint64_t, 5> size{};
  std::array<cuuint64_t, 5> stride_bytes{};
  std::array<cuuint32_t, 5> box_size{};
  std::array<cuuint32_t, 5> step{1, 1, 1, 1, 1};
  std::copy(sizes.begin(), sizes.end(), size.begin());
  std::transform(strides.begin(), strides.end(), stride_bytes.begin(), [](uint64_t s) { return s * 2; });
  std::copy(box.begin(), box.end(), box_size.begin());
  CUtensorMap map{};
  DSSIM_CUDA(encode(&map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, static_cast<cuuint32_t>(sizes.size()),
                    const_cast<void*>(base), size.data(), stride_bytes.data(), box_size.data(), step.data(),
                    CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                    CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
  return map;
}

}  // namespace dssim::cuda
