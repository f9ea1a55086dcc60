// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/gpu_group.hpp"

#include <cstdio>
#include <cstdlib>

#include "kernels/cuda/ops/attention.hpp"

namespace dssim::cuda {
namespace {

void work_or_exit(const std::function<void(int)>& work, int gpu) {
  try {
    work(gpu);
  } catch (const Unavailable& e) {
    std::fprintf(stderr, "dssim-calibrate: GPU %d: %s\n", gpu, e.what());
    std::_Exit(3);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "dssim-calibrate: GPU %d: %s\n", gpu, e.what());
    std::_Exit(1);
  }
}

}  // namespace

GpuGroup::GpuGroup(const ModelShape& shape, const EngineLimits& limits, const GraphSizes& graphs) : graphs_(graphs) {
  auto gpus = static_cast<std::size_t>(shape.gpus);
  communicators_ = make_communicators(shape.gpus);
  models_.resize(gpus);
  std::size_t ints =
      static_cast<std::size_t>(limits.tokens + limits.sequences + 512) * 8 +
      static_cast<std::size_t>(limits.sequences + 512) * static_cast<std::size_t>(limits.context / kPageTokens + 2);
  DSSIM_CUDA(cudaHostAlloc(&input_, ints * sizeof(int), cudaHostAllocPortable));
  DSSIM_CUDA(
      cudaHostAlloc(&tokens_, static_cast<std::size_t>(limits.sequences + 512) * sizeof(int), cudaHostAllocPortable));
  for (int g = 1; g < shape.gpus; ++g) threads_.emplace_back([this, g] { serve(g); });
  on_every_gpu([&](int g) {
    DSSIM_CUDA(cudaSetDevice(g));
    ModelShape mine = shape;
    mine.rank = g;
    auto& model = models_[static_cast<std::size_t>(g)];
    model = std::make_unique<Transformer>(mine, limits, graphs_, *communicators_[static_cast<std::size_t>(g)], 1);
    model->choose_algorithms();
  });
  // Not before every GPU is through with its choice: that loads kernels, which may wait for kernels that run (CUDA's lazy
  // loading), and a collective runs until all have joined it.
  on_every_gpu([&](int g) { models_[static_cast<std::size_t>(g)]->prepare(); });
}

GpuGroup::~GpuGroup() {
  ending_ = true;
  for (std::thread& t : threads_) t.join();
  models_.clear();
  cudaFreeHost(input_);
  cudaFreeHost(tokens_);
}

void GpuGroup::serve(int gpu) {
  unsigned seen = 0;
  while (true) {
    while (wanted_.load(std::memory_order_acquire) == seen) {
      if (ending_) return;
    }
    ++seen;
    work_or_exit(work_, gpu);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

// The caller's thread works for GPU 0.
void GpuGroup::on_every_gpu(const std::function<void(int)>& work) {
  if (threads_.empty()) {
    work(0);
    return;
  }
  work_ = work;
  running_ = static_cast<int>(threads_.size());
  wanted_.fetch_add(1, std::memory_order_release);
  work_or_exit(work, 0);
  while (running_.load(std::memory_order_acquire) > 0) {
  }
}

GpuGroup::Step GpuGroup::run(const Batch& batch) {
  BatchLayout layout = lay_out(batch.shape(), graphs_);
  batch.write(layout, input_);
  on_every_gpu([&](int g) {
    Transformer& model = *models_[static_cast<std::size_t>(g)];
    model.start(layout, input_, g == 0 ? tokens_ : nullptr);
    model.finish();
  });
  return {tokens_, models_[0]->gpu_seconds(), models_[0]->launch_seconds()};
}

Transformer::LayerGaps GpuGroup::layer_gaps() {
  std::vector<Transformer::LayerGaps> gaps(models_.size());
  on_every_gpu([&](int g) {
    auto gpu = static_cast<std::size_t>(g);
    gaps[gpu] = models_[gpu]->layer_gaps();
  });
  return gaps[0];
}

}  // namespace dssim::cuda
