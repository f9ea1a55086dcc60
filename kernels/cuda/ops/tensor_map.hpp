// SPDX-License-Identifier: Apache-2.0
// Tensor maps for the bulk tensor copy (TMA) of bf16 arrays, 128-byte swizzle, out-of-range reads as zero.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <initializer_list>

namespace dssim::cuda {

// `sizes` innermost first, in elements; `strides` of all dimensions but the innermost, in elements; `box` in elements
// (innermost 64 = the 128-byte swizzle row).
CUtensorMap make_tensor_map(const void* base, std::initializer_list<uint64_t> sizes,
                            std::initializer_list<uint64_t> strides, std::initializer_list<uint32_t> box);

}  // namespace dssim::cuda
