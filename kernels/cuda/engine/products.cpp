// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/products.hpp"

#include <string>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kAlgorithms = 5;
constexpr double kClearlyFaster = 0.98;

struct Stopwatch {
  Stopwatch() {
    DSSIM_CUDA(cudaEventCreate(&start));
    DSSIM_CUDA(cudaEventCreate(&stop));
  }
  ~Stopwatch() {
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
  }
  cudaEvent_t start = nullptr, stop = nullptr;
};

}  // namespace

void Products::choose(const std::vector<int>& rows, const std::vector<const void*>& weights, const void* activation,
                      void* output, cudaStream_t stream) {
  Stopwatch watch;
  for (int m : rows) {
    if (choices_.count(m) > 0) continue;
    Choice choice{std::make_unique<Gemm>(context_, DataType::bf16, m, n_, k_, kAlgorithms), 0};
    if (choice.gemm->algorithms() == 0) {
      throw Unavailable("cuBLASLt has no bf16 product of " + std::to_string(m) + " x " + std::to_string(n_) + " x " +
                        std::to_string(k_) + " on this GPU");
    }
    // Short products are timed more often: an event's resolution is half a microsecond.
    int runs = m <= 256 ? 8 : 3;
    double best = 0.0;
    for (int a = 0; a < choice.gemm->algorithms(); ++a) {
      std::size_t next = 0;
      auto run = [&] {
        choice.gemm->run(a, activation, weights[next], output, stream);
        next = (next + 1) % weights.size();
      };
      run();
      DSSIM_CUDA(cudaEventRecord(watch.start, stream));
      for (int i = 0; i < runs; ++i) run();
      DSSIM_CUDA(cudaEventRecord(watch.stop, stream));
      DSSIM_CUDA(cudaStreamSynchronize(stream));
      float milliseconds = 0.0f;
      DSSIM_CUDA(cudaEventElapsedTime(&milliseconds, watch.start, watch.stop));
      if (a == 0 || milliseconds < best * kClearlyFaster) {
        best = milliseconds;
        choice.algorithm = a;
      }
    }
    choices_.emplace(m, std::move(choice));
  }
}

void Products::run(int rows, const void* activation, const void* weight, void* output, cudaStream_t stream) const {
  const Choice& choice = choices_.at(rows);
  choice.gemm->run(choice.algorithm, activation, weight, output, stream);
}

}  // namespace dssim::cuda
