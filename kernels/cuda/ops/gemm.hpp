// SPDX-License-Identifier: Apache-2.0
// Matrix products through cuBLASLt as an inference engine calls them: output[m][n] = sum_k activation[m][k]
// weight[n][k], all row-major, so weights lie as a linear layer stores them.
//   bf16, fp16: fp32 sums, output as the inputs
//   fp8:        e4m3 inputs, one scale per tensor, fast accumulation (what engines use), bf16 output
//   int8:       int32 sums and output
#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <string>
#include <vector>

namespace dssim::cuda {

enum class DataType { bf16, fp16, fp8, int8 };

const char* name_of(DataType type);
int input_bytes(DataType type);
int output_bytes(DataType type);

// A cuBLASLt handle with its workspace and, for fp8, the two scales (1.0 until set). One per device and stream.
class GemmContext {
 public:
  GemmContext();
  ~GemmContext();
  GemmContext(const GemmContext&) = delete;
  GemmContext& operator=(const GemmContext&) = delete;

  cublasLtHandle_t handle() const { return handle_; }
  void* workspace() const { return workspace_; }
  std::size_t workspace_bytes() const { return kWorkspaceBytes; }
  const float* unit_scale() const { return unit_scale_; }

 private:
  static constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;  // what cuBLAS asks for on Hopper
  cublasLtHandle_t handle_ = nullptr;
  void* workspace_ = nullptr;
  float* unit_scale_ = nullptr;
};

// One product shape with the algorithms that cuBLASLt's heuristic offers for it, best guess first.
class Gemm {
 public:
  Gemm(const GemmContext& context, DataType type, int m, int n, int k, int algorithms);
  ~Gemm();
  Gemm(const Gemm&) = delete;
  Gemm& operator=(const Gemm&) = delete;

  // 0: cuBLASLt does not support this shape and type on this GPU.
  int algorithms() const { return static_cast<int>(found_.size()); }
  void run(int algorithm, const void* activation, const void* weight, void* output, cudaStream_t stream) const;

 private:
  const GemmContext& context_;
  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t weight_ = nullptr;
  cublasLtMatrixLayout_t activation_ = nullptr;
  cublasLtMatrixLayout_t output_ = nullptr;
  bool integer_ = false;
  std::vector<cublasLtMatmulHeuristicResult_t> found_;
};

}  // namespace dssim::cuda
