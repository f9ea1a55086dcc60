// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/products.hpp"

#include <string>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kAlgorithms = 5;

}  // namespace

void Products::choose(const std::vector<int>& rows, const std::vector<const void*>& weights, const void* activation,
                      void* output, cudaStream_t stream, RestKeeper& rest) {
  for (int m : rows) {
    if (choices_.count(m) > 0) continue;
    Choice choice{std::make_unique<Gemm>(context_, DataType::bf16, m, n_, k_, kAlgorithms), 0};
    if (choice.gemm->algorithms() == 0) {
      throw Unavailable("cuBLASLt has no bf16 product of " + std::to_string(m) + " x " + std::to_string(n_) + " x " +
                        std::to_string(k_) + " on this GPU");
    }
    choice.algorithm = fastest(
        choice.gemm->algorithms(),
        [&](int algorithm, int i, cudaStream_t on) {
          choice.gemm->run(algorithm, activation, weights[static_cast<std::size_t>(i) % weights.size()], output, on);
        },
        stream, rest);
    choices_.emplace(m, std::move(choice));
  }
}

void Products::run(int rows, const void* activation, const void* weight, void* output, cudaStream_t stream) const {
  const Choice& choice = choices_.at(rows);
  choice.gemm->run(choice.algorithm, activation, weight, output, stream);
}

}  // namespace dssim::cuda
