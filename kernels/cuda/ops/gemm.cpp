// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/ops/gemm.hpp"

#include <cstdint>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

struct Types {
  const char* name;
  cudaDataType_t input;
  cudaDataType_t output;
  cublasComputeType_t compute;
  cudaDataType_t scale;
  int input_bytes;
  int output_bytes;
};

const Types& types_of(DataType type) {
  static const Types table[] = {{"bf16", CUDA_R_16BF, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, 2, 2},
                                {"fp16", CUDA_R_16F, CUDA_R_16F, CUBLAS_COMPUTE_32F, CUDA_R_32F, 2, 2},
                                {"fp8", CUDA_R_8F_E4M3, CUDA_R_16BF, CUBLAS_COMPUTE_32F, CUDA_R_32F, 1, 2},
                                {"int8", CUDA_R_8I, CUDA_R_32I, CUBLAS_COMPUTE_32I, CUDA_R_32I, 1, 4}};
  return table[static_cast<int>(type)];
}

}  // namespace

const char* name_of(DataType type) {
  return types_of(type).name;
}
int input_bytes(DataType type) {
  return types_of(type).input_bytes;
}
int output_bytes(DataType type) {
  return types_of(type).output_bytes;
}

GemmContext::GemmContext() {
  DSSIM_CUDA(cublasLtCreate(&handle_));
  DSSIM_CUDA(cudaMalloc(&workspace_, kWorkspaceBytes));
  DSSIM_CUDA(cudaMalloc(&unit_scale_, sizeof(float)));
  const float one = 1.0f;
  DSSIM_CUDA(cudaMemcpy(unit_scale_, &one, sizeof one, cudaMemcpyHostToDevice));
}

GemmContext::~GemmContext() {
  cudaFree(unit_scale_);
  cudaFree(workspace_);
  cublasLtDestroy(handle_);
}

Gemm::Gemm(const GemmContext& context, DataType type, int m, int n, int k, int algorithms)
    : context_(context), integer_(type == DataType::int8) {
  const Types& t = types_of(type);
  // cuBLASLt thinks column-major: our row-major output[m][n] is its n x m matrix W^T x A.
  DSSIM_CUDA(cublasLtMatmulDescCreate(&operation_, t.compute, t.scale));
  cublasOperation_t transposed = CUBLAS_OP_T;
  DSSIM_CUDA(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_TRANSA, &transposed, sizeof transposed));
  if (type == DataType::fp8) {
    const float* scale = context.unit_scale();
    int8_t fast = 1;
    DSSIM_CUDA(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_A_SCALE_POINTER, &scale, sizeof scale));
    DSSIM_CUDA(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_B_SCALE_POINTER, &scale, sizeof scale));
    DSSIM_CUDA(cublasLtMatmulDescSetAttribute(operation_, CUBLASLT_MATMUL_DESC_FAST_ACCUM, &fast, sizeof fast));
  }
  DSSIM_CUDA(cublasLtMatrixLayoutCreate(&weight_, t.input, k, n, k));
  DSSIM_CUDA(cublasLtMatrixLayoutCreate(&activation_, t.input, k, m, k));
  DSSIM_CUDA(cublasLtMatrixLayoutCreate(&output_, t.output, n, m, n));

  cublasLtMatmulPreference_t preference = nullptr;
  std::size_t workspace = context.workspace_bytes();
  DSSIM_CUDA(cublasLtMatmulPreferenceCreate(&preference));
  DSSIM_CUDA(cublasLtMatmulPreferenceSetAttribute(preference, CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, &workspace,
                                                  sizeof workspace));
  found_.resize(algorithms);
  int count = 0;
  cublasStatus_t status = cublasLtMatmulAlgoGetHeuristic(context.handle(), operation_, weight_, activation_, output_,
                                                         output_, preference, algorithms, found_.data(), &count);
  DSSIM_CUDA(cublasLtMatmulPreferenceDestroy(preference));
  if (status == CUBLAS_STATUS_NOT_SUPPORTED) {
    count = 0;
  } else {
    DSSIM_CUDA(status);
  }
  found_.resize(count);
}

Gemm::~Gemm() {
  cublasLtMatrixLayoutDestroy(output_);
  cublasLtMatrixLayoutDestroy(activation_);
  cublasLtMatrixLayoutDestroy(weight_);
  cublasLtMatmulDescDestroy(operation_);
}

void Gemm::run(int algorithm, const void* activation, const void* weight, void* output, cudaStream_t stream) const {
  const float one = 1.0f;
  const float zero = 0.0f;
  const int32_t integer_one = 1;
  const int32_t integer_zero = 0;
  const void* alpha = integer_ ? static_cast<const void*>(&integer_one) : &one;
  const void* beta = integer_ ? static_cast<const void*>(&integer_zero) : &zero;
  DSSIM_CUDA(cublasLtMatmul(context_.handle(), operation_, alpha, weight, weight_, activation, activation_, beta,
                            output, output_, output, output_, &found_.at(algorithm).algo, context_.workspace(),
                            context_.workspace_bytes(), stream));
}

}  // namespace dssim::cuda
