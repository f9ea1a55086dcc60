// SPDX-License-Identifier: Apache-2.0
// One GPU's end of the tensor-parallel group: NCCL collectives on that GPU's stream, fit for capture into a graph (call
// each kind once before, since NCCL connects the ranks in its first call). A group of one does nothing.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <memory>
#include <vector>

namespace dssim::cuda {

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual void all_reduce(__nv_bfloat16* data, std::size_t count, cudaStream_t stream) = 0;
  // out = every GPU's `count` values, one GPU after another.
  virtual void all_gather(const __nv_bfloat16* part, __nv_bfloat16* out, std::size_t count, cudaStream_t stream) = 0;
};

// One for each of the GPUs 0 to gpus - 1. Throws Unavailable where this build has no NCCL and gpus > 1.
std::vector<std::unique_ptr<Communicator>> make_communicators(int gpus);

}  // namespace dssim::cuda
