// SPDX-License-Identifier: Apache-2.0
// What the engine adds to its kernels, measured on a run of its own before the replay: batches of short requests, all
// there at once. Host time of a step = its seconds less the GPU's work in it.
//   decode steps    iteration_host + sequence_host x batch, least squares over the medians of each batch size
//   other steps     eager_host more (median), and eager_launch for each layer launched (median)
//   layer_gap, eager_gap   Transformer::layer_gaps()
// They are the keys of a stack's [engine] table.
#pragma once

#include <span>
#include <string>

#include "kernels/cuda/engine/server.hpp"

namespace dssim::cuda {

struct HostTimes {
  double iteration_s = 0, sequence_s = 0, eager_s = 0, eager_launch_s = 0, layer_gap_s = 0, eager_gap_s = 0;
  std::string toml() const;
};

// The requests of that run; `most` sequences at once, in prompts of up to `most_tokens`.
class HostTimeRequests final : public RequestStream {
 public:
  HostTimeRequests(int64_t most, int64_t most_tokens);
  bool next(Request& request) override;
  bool exhausted() const override { return group_ >= groups_.size(); }
  void completed(uint64_t id, double time_s) override;

 private:
  struct Group {
    int64_t requests, input, output;
  };
  std::vector<Group> groups_;
  std::size_t group_ = 0;
  int64_t handed_out_ = 0, ended_ = 0;
  uint64_t id_ = 0;
  double from_s_ = 0;
};

HostTimes host_times(std::span<const Iteration> iterations, int layers);

}  // namespace dssim::cuda
