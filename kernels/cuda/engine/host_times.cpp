// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/host_times.hpp"

#include <algorithm>
#include <cstdio>
#include <map>

namespace dssim::cuda {
namespace {

double median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::nth_element(values.begin(), values.begin() + static_cast<long>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

std::string line(const char* key, double seconds) {
  char text[64];
  std::snprintf(text, sizeof text, "%s = \"%.3g us\"\n", key, seconds * 1e6);
  return text;
}

}  // namespace

std::string HostTimes::toml() const {
  return line("iteration_host", iteration_s) + line("sequence_host", sequence_s) + line("eager_host", eager_s) +
         line("eager_launch", eager_launch_s) + line("layer_gap", layer_gap_s) + line("eager_gap", eager_gap_s);
}

HostTimeRequests::HostTimeRequests(int64_t most, int64_t most_tokens) {
  for (int64_t batch = 1; batch <= most; batch *= 2) groups_.push_back({batch, 16, 24});
  for (int64_t tokens = 32; tokens <= most_tokens; tokens *= 2)
    for (int repeat = 0; repeat < 5; ++repeat) groups_.push_back({1, tokens, 2});
}

// The next group comes when the last one has ended.
bool HostTimeRequests::next(Request& request) {
  if (group_ < groups_.size() && ended_ == groups_[group_].requests) {
    ++group_;
    handed_out_ = ended_ = 0;
  }
  if (group_ >= groups_.size() || handed_out_ == groups_[group_].requests) return false;
  request = Request{};
  request.id = id_++;
  request.arrival_s = from_s_;
  request.input_tokens = groups_[group_].input;
  request.output_tokens = groups_[group_].output;
  ++handed_out_;
  return true;
}

void HostTimeRequests::completed(uint64_t, double time_s) {
  ++ended_;
  from_s_ = time_s;
}

HostTimes host_times(std::span<const Iteration> iterations, int layers) {
  std::map<int64_t, std::vector<double>> by_batch;
  for (const Iteration& i : iterations)
    if (i.chunks == 0) by_batch[i.decodes].push_back(i.seconds - i.gpu_s);
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const auto& [batch, seconds] : by_batch) {
    if (seconds.size() < 5) continue;
    auto b = static_cast<double>(batch);
    double s = median(seconds);
    ++n, x += b, y += s, xx += b * b, xy += b * s;
  }
  HostTimes times;
  if (n == 0) return times;
  times.sequence_s = n > 1 ? std::max(0.0, (n * xy - x * y) / (n * xx - x * x)) : 0.0;
  times.iteration_s = (y - times.sequence_s * x) / n;
  std::vector<double> eager, launch;
  for (const Iteration& i : iterations) {
    if (i.chunks == 0) continue;
    eager.push_back(i.seconds - i.gpu_s - times.iteration_s -
                    times.sequence_s * static_cast<double>(i.decodes + i.chunks));
    launch.push_back(i.launch_s / layers);
  }
  times.eager_s = std::max(0.0, median(eager));
  times.eager_launch_s = median(launch);
  return times;
}

}  // namespace dssim::cuda
