// SPDX-License-Identifier: Apache-2.0
// The two prefill kernels behind prefill_attention; each in its own file, since sm_90a code is compiled apart.
#pragma once

#include "kernels/cuda/ops/attention.hpp"

namespace dssim::cuda {

void prefill_attention_sm90(const AttentionArgs& args, cudaStream_t stream);
void prefill_attention_mma(const AttentionArgs& args, cudaStream_t stream);

}  // namespace dssim::cuda
