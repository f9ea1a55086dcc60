// SPDX-License-Identifier: Apache-2.0
// How long one call takes on the GPU, as it does inside an engine's CUDA graph: the call is captured several times into
// a graph, the graph is replayed, and a sample is the time between two events over the calls between them.
//   cold:      each captured call uses other weights, together more than twice the L2 cache, so none is found there
//   precision: samples are taken until the standard error of the median is below it, or a limit is reached
//   median and mad (median absolute deviation) are kept; samples taken while the GPU was throttled are dropped
//   bursts:    between samples the GPU rests, so that its average power stays below the cap and the clock is the highest;
//              what it loses under the cap is measured apart (power_cap.csv)
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <functional>
#include <optional>
#include <vector>

#include "kernels/cuda/measure/nvml.hpp"

namespace dssim::cuda {

inline constexpr int kMostCalls = 200;  // captured into one graph

struct Reading {
  double seconds = 0.0;
  double mad = 0.0;
};

// Median, and median absolute deviation from it.
Reading summarise(std::vector<double> samples);

struct MeterStatistics {
  long readings = 0;
  long dropped = 0;       // throttled on every attempt, no row written
  long retried = 0;       // throttled once, measured again
  long power_capped = 0;  // readings taken at the software power cap
  std::vector<unsigned> sm_clocks_mhz;
};

// How busy the GPU was lately, as a first-order average, and rests that keep it from its power cap. Large products lowered
// the clock of an H100 after 30 to 70 ms (two boards, 2026-11-21), never where they ran for 20 ms in 100.
class RestKeeper {
 public:
  // Sleeps until the GPU may work for `busy_s`.
  void before(double busy_s);
  // The GPU worked for `busy_s` of the time since the last call.
  void after(double busy_s) { pass(busy_s); }

 private:
  void pass(double busy_s);

  double average_ = 0.0;
  double at_s_ = 0.0;
};

// Which of `count` variants of a call is fastest on a GPU that rests between: each is launched a few times in two
// rounds, whose quicker one counts, so that a moment's lower clock does not decide. The first variant stays unless
// another is clearly faster. call(variant, i, stream) works on the i-th set of rotated inputs.
int fastest(int count, const std::function<void(int variant, int i, cudaStream_t)>& call, cudaStream_t stream,
            RestKeeper& rest);

class Meter {
 public:
  // call(i, stream) launches the call once, on the i-th set of its rotated inputs.
  using Call = std::function<void(int, cudaStream_t)>;

  Meter(const Nvml& nvml, double precision, double sample_seconds);
  ~Meter();
  Meter(const Meter&) = delete;
  Meter& operator=(const Meter&) = delete;

  // least_calls, up to kMostCalls: inputs rotate over so many calls, of which a graph holds a multiple; 1 measures hot.
  // Empty if the GPU was throttled throughout.
  std::optional<Reading> measure(const Call& call, int least_calls = 1);
  // The least calls whose rotated inputs, `bytes` a call, are twice the L2 cache together.
  int calls_past_l2(double bytes) const;

  int fastest(int count, const std::function<void(int variant, int i, cudaStream_t)>& call) {
    return cuda::fastest(count, call, stream_, rest_);
  }

  // The same statistics for something timed by the caller (seconds per call), until precise.
  std::optional<Reading> measure_host(const std::function<double()>& sample, int most);

  cudaStream_t stream() const { return stream_; }
  std::size_t l2_bytes() const { return l2_bytes_; }
  const MeterStatistics& statistics() const { return statistics_; }
  void reset_statistics() { statistics_ = {}; }

 private:
  Reading replay(cudaGraphExec_t graph, int calls, double estimate);
  bool precise(const std::vector<double>& samples) const;
  GpuState state();

  const Nvml& nvml_;
  RestKeeper rest_;
  double precision_;
  double sample_seconds_;
  std::size_t l2_bytes_ = 0;
  cudaStream_t stream_ = nullptr;
  std::vector<cudaEvent_t> events_;
  MeterStatistics statistics_;
  GpuState last_state_;
  double last_state_time_ = -1.0;
};

// Seconds on a steady clock.
double now_seconds();

}  // namespace dssim::cuda
