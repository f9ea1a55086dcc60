// SPDX-License-Identifier: Apache-2.0
// Small kernels that only the engine needs. Widths are multiples of 8; launches only.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

namespace dssim::cuda {

// out[row] = table[ids[row] - first] where this GPU holds that row of the embedding, else zero (a vocabulary cut over
// GPUs: the sum over them is the embedding).
void embedding_part(const int* ids, const __nv_bfloat16* table, int first, int count, __nv_bfloat16* out, int rows,
                    int width, cudaStream_t stream);

// out_a[i] = a[rows[i]], out_b[i] = b[rows[i]].
void gather_rows(const int* rows, const __nv_bfloat16* a, const __nv_bfloat16* b, __nv_bfloat16* out_a,
                 __nv_bfloat16* out_b, int count, int width, cudaStream_t stream);

}  // namespace dssim::cuda
