// SPDX-License-Identifier: Apache-2.0
// Which GPU is measured. Throws Unavailable with one line when there is none, when the driver is too old for this
// build, when the GPU is older than the kernels need, or when too little of its memory is free.
#pragma once

#include "kernels/cuda/measure/bench.hpp"

namespace dssim::cuda {

GpuInfo find_gpu(int device);

// 13000 -> "13.0"
std::string cuda_version_name(int number);

}  // namespace dssim::cuda
