// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/rows.hpp"

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kThreads = 256;

__global__ void embedding_part_kernel(const int* ids, const uint4* table, int first, int count, uint4* out,
                                      int vectors) {
  int id = ids[blockIdx.x] - first;
  bool here = id >= 0 && id < count;
  for (int c = threadIdx.x; c < vectors; c += kThreads)
    out[static_cast<long>(blockIdx.x) * vectors + c] =
        here ? table[static_cast<long>(id) * vectors + c] : make_uint4(0, 0, 0, 0);
}

__global__ void gather_rows_kernel(const int* rows, const uint4* a, const uint4* b, uint4* out_a, uint4* out_b,
                                   int vectors) {
  long from = static_cast<long>(rows[blockIdx.x]) * vectors;
  long to = static_cast<long>(blockIdx.x) * vectors;
  for (int c = threadIdx.x; c < vectors; c += kThreads) {
    out_a[to + c] = a[from + c];
    out_b[to + c] = b[from + c];
  }
}

}  // namespace

void embedding_part(const int* ids, const __nv_bfloat16* table, int first, int count, __nv_bfloat16* out, int rows,
                    int width, cudaStream_t stream) {
  embedding_part_kernel<<<rows, kThreads, 0, stream>>>(ids, reinterpret_cast<const uint4*>(table), first, count,
                                                       reinterpret_cast<uint4*>(out), width / 8);
  DSSIM_CUDA_LAUNCHED("embedding_part");
}

void gather_rows(const int* rows, const __nv_bfloat16* a, const __nv_bfloat16* b, __nv_bfloat16* out_a,
                 __nv_bfloat16* out_b, int count, int width, cudaStream_t stream) {
  gather_rows_kernel<<<count, kThreads, 0, stream>>>(rows, reinterpret_cast<const uint4*>(a),
                                                     reinterpret_cast<const uint4*>(b), reinterpret_cast<uint4*>(out_a),
                                                     reinterpret_cast<uint4*>(out_b), width / 8);
  DSSIM_CUDA_LAUNCHED("gather_rows");
}

}  // namespace dssim::cuda
