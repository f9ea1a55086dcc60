// SPDX-License-Identifier: Apache-2.0
// Status of CUDA, driver and cuBLAS calls: every call is wrapped in DSSIM_CUDA(...), and a failing one throws
// DeviceError naming the call, the file, the line and the library's own word for the fault.
// Missing hardware or software is Unavailable instead: one line a user can act on.
#pragma once

#include <cublasLt.h>
#include <cuda.h>
#include <cuda_runtime.h>

#include <stdexcept>
#include <string>

namespace dssim::cuda {

struct DeviceError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Unavailable : std::runtime_error {
  using std::runtime_error::runtime_error;
};

[[noreturn]] inline void throw_device_error(const char* call, const std::string& fault, const char* file, int line) {
  throw DeviceError(std::string(file) + ":" + std::to_string(line) + ": " + call + ": " + fault);
}

inline void check_status(cudaError_t status, const char* call, const char* file, int line) {
  if (status == cudaSuccess) return;
  throw_device_error(call, std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status), file, line);
}

inline void check_status(CUresult status, const char* call, const char* file, int line) {
  if (status != CUDA_SUCCESS) throw_device_error(call, "driver error " + std::to_string(status), file, line);
}

inline void check_status(cublasStatus_t status, const char* call, const char* file, int line) {
  if (status != CUBLAS_STATUS_SUCCESS) throw_device_error(call, cublasLtGetStatusString(status), file, line);
}

}  // namespace dssim::cuda

#define DSSIM_CUDA(call) ::dssim::cuda::check_status((call), #call, __FILE__, __LINE__)
// After a kernel launch: reports a bad launch configuration at its own line.
#define DSSIM_CUDA_LAUNCHED(kernel) \
  ::dssim::cuda::check_status(cudaGetLastError(), "launch of " kernel, __FILE__, __LINE__)
