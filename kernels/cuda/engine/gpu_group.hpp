// SPDX-License-Identifier: Apache-2.0
// The GPUs of one replica, each with its Transformer and, where there are several, a thread of its own that waits for
// work without sleeping. A thread that fails ends the process with a line on stderr: the others would wait for it in a
// collective for ever.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "kernels/cuda/engine/transformer.hpp"

namespace dssim::cuda {

class GpuGroup {
 public:
  // `shape` is any one GPU's; rank and device number are filled in. Weights are made and algorithms chosen here.
  GpuGroup(const ModelShape& shape, const EngineLimits& limits, const GraphSizes& graphs);
  ~GpuGroup();
  GpuGroup(const GpuGroup&) = delete;
  GpuGroup& operator=(const GpuGroup&) = delete;

  struct Step {
    const int* tokens = nullptr;  // one for each row of the output head, until the next step
    double gpu_seconds = 0.0;     // between the copies in and out
    double launch_seconds = 0.0;  // host time of launching it
  };
  // Runs one step on every GPU and waits for its end.
  Step run(const Batch& batch);
  Transformer::LayerGaps layer_gaps();  // of GPU 0

  int gpus() const { return static_cast<int>(models_.size()); }
  const Transformer& model(int gpu) const { return *models_[static_cast<std::size_t>(gpu)]; }

 private:
  void on_every_gpu(const std::function<void(int)>& work);
  void serve(int gpu);

  GraphSizes graphs_;
  std::vector<std::unique_ptr<Communicator>> communicators_;
  std::vector<std::unique_ptr<Transformer>> models_;
  int* input_ = nullptr;   // pinned
  int* tokens_ = nullptr;  // pinned
  std::vector<std::thread> threads_;
  std::function<void(int)> work_;
  std::atomic<unsigned> wanted_{0};
  std::atomic<int> running_{0};
  std::atomic<bool> ending_{false};
};

}  // namespace dssim::cuda
