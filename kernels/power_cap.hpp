// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a GPU loses under its power cap, and when.
//
// Compute-bound kernels draw more than the board may: an H100 runs a large bf16 product at 790 TFLOP/s and 860 W until
// its power management lowers the clock; from then on the product takes a tenth to a sixth longer. So a prompt of 20 ms
// between decode steps runs at the highest clock, and a stream of prompts does not. A profile's tables hold short
// bursts; power_cap.csv and power_burst.csv (docs/profiles.md), where it has them, say the rest:
//
//   slowdown(share)  time under the cap / time in a burst of a kernel that reaches `share` of the GPU's matrix rate in a
//                    burst: the mean of the measured kernels, weighted by a Gaussian of width 0.05 in share
//   burst_s          how long a large product runs at the highest clock after long decode-like work
//
// Between the two stands one number for each GPU, its heat x, 0 after long memory-bound work or idling, 1 at the cap:
//   dx/dt = (w - (1 - w) x) / burst_s     w: how compute-bound the work is, (slowdown - 1) / (the largest - 1)
// so pure products reach the cap in burst_s, other work cools with the same time constant, and a mixture that is less
// than half compute-bound never gets there. Measured with bursts of 10 to 200 ms at duty cycles of 20 to 50 %
// (2026-11-21, one H100): those of 20 % never slowed, of 50 % slowed after 20 to 50 ms. Boards differ: 27 to 72 ms for
// burst_s on two H100s and one H200.
//
// Tested by tests/unit/power_cap_test.cpp.

#include <span>
#include <vector>

namespace dssim {

// One kernel in a burst and sustained; `share` of the rated matrix rate in the burst.
struct PowerCapSample {
  double share = 0, burst_s = 0, capped_s = 0;
};

class PowerCap {
 public:
  PowerCap() = default;  // no cap known: everything runs as in a burst
  PowerCap(std::span<const PowerCapSample> kernels, double burst_s);

  bool acts() const { return burst_s_ > 0; }
  double burst_s() const { return burst_s_; }
  double slowdown(double share) const;           // ≥ 1
  double compute_bound(double slowdown) const {  // w above
    return most_slowdown_ > 1 ? (slowdown - 1) / (most_slowdown_ - 1) : 0;
  }

 private:
  double burst_s_ = 0, most_slowdown_ = 1;
  std::vector<double> slowdown_;  // at equal steps of share from 0 to 1
};

// One GPU's heat as time passes; of a pipeline's GPUs, each of which does one of `stages` equal parts of all work.
class GpuHeat {
 public:
  explicit GpuHeat(int stages = 1) : stages_(stages) {}
  // Work that takes burst_s in a burst and capped_s under the cap, starting at now_s; the GPU idled since the work
  // before. Returns the share of the work done as in a burst: it takes share × burst_s + (1 - share) × capped_s.
  double run(const PowerCap& cap, double burst_s, double capped_s, double compute_bound, double now_s);

 private:
  double stages_;
  double heat_ = 0, busy_until_s_ = 0;
};

}  // namespace dssim
