// SPDX-License-Identifier: Apache-2.0
// The matrix products of one linear layer shape at every number of rows the engine runs it with, each with the
// algorithm that was fastest here, chosen as the benchmark of dssim-calibrate chooses (measure/meter.hpp): over weights
// that are not in L2, on a GPU that rests between.
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "kernels/cuda/measure/meter.hpp"
#include "kernels/cuda/ops/gemm.hpp"

namespace dssim::cuda {

class Products {
 public:
  Products(const GemmContext& context, int n, int k) : context_(context), n_(n), k_(k) {}

  // `weights`: the layers' matrices. Waits for the stream.
  void choose(const std::vector<int>& rows, const std::vector<const void*>& weights, const void* activation,
              void* output, cudaStream_t stream, RestKeeper& rest);
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
