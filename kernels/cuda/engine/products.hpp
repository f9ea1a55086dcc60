// SPDX-License-Identifier: Apache-2.0
// The matrix products of one linear layer shape at every number of rows the engine runs it with, each with the
// algorithm that was fastest here: cuBLASLt's guesses are timed over weights that are not in L2, and the first one stays
// unless another is clearly faster. As the benchmark of dssim-calibrate chooses.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/ops/gemm.hpp"

namespace dssim::cuda {

class Products {
 public:
  Products(const GemmContext& context, int n, int k) : context_(context), n_(n), k_(k) {}

  // `weights`: the layers' matrices. Waits for the stream.
  void choose(const std::vector<int>& rows, const std::vector<const void*>& weights, const void* activation,
              void* output, cudaStream_t stream);
  void run(int rows, const void* activation, const void* weight, void* output, cudaStream_t stream) const;

 private:
  struct Choice {
    std::unique_ptr<Gemm> gemm;
    int algorithm = 0;
  };
  const GemmContext& context_;
  int n_, k_;
  std::map<int, Choice> choices_;
};

}  // namespace dssim::cuda
