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
//   recovery_s       how long the clock takes to come back afterwards: the area of what decode-like work loses over its
//                    first loss (power_recovery.csv)
//
// Between the two stands one number for each GPU, its heat x, 0 after long memory-bound work or idling, 1 at the cap. Of
// a stretch of work a share w draws more than the cap allows, w being (slowdown - 1) / (the largest - 1) on average over
// it; a share a waits for links; the rest is taken to draw as much less than the cap as products draw more, 160 W (860 W on
// an H100 before its clock falls, NVML's power of the moment, 2026-11-21; measured are 85 and 206 W for an H100's decode-like
// and memory-bound work, 3 and 93 W for an H200's). An H200's all-reduce of 32 MiB on four GPUs draws 265 W of 700
// (power.csv, 2026-11-22), so it makes up for (700 - 265) / 160 = 2.7 of products, and so is every all-reduce taken:
//   cooling = 1 - w - a + 2.7 a
//   w > cooling   dx/dt = 1 / burst_s, until the cap: the power management looks at its own times, not the sooner the
//                 hotter the work (15 bursts on one H100 lasted 64 ms in the median, half of them 45 to 83 ms)
//   otherwise     x tends to w / cooling with that time constant
// Measured with bursts of 10 to 200 ms at duty cycles of 20 to 50 % (2026-11-21, one H100): those of 20 % never slowed, of
// 50 % slowed after 20 to 50 ms. Boards differ: burst_s was 64 ms on an H100 and 146 and 173 ms on two H200s (medians of
// 15), and a third H200's clock held for more than half a second; docs/calibration.md says whose the profiles hold.
//
// From the moment that the cap is reached the clock is lowered, and what comes next runs on it: a step that reads weights
// loses little, its short kernels lose what the clock does. The clock comes back as exp(-t / recovery_s); not all the way
// where decode-like work is at the cap by itself, as on an H200 that runs it at 1.88 GHz of 1.98 and products at 1.50:
//   held         what long decode-like work keeps of the lowered clock, (highest - its clock) / (highest - products')
// An H200's clock lowered by 5 % saves 35 W of 697 at least; so does waiting for links, 432 W less, for 8 % of the time: from
// there on decodes are below the cap, and hold nothing. While work heats the clock does not come back.
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
  PowerCap(std::span<const PowerCapSample> kernels, double burst_s, double recovery_s, double held = 0);

  bool acts() const { return burst_s_ > 0; }
  double burst_s() const { return burst_s_; }
  double recovery_s() const { return recovery_s_; }
  double held() const { return held_; }
  double most_slowdown() const { return most_slowdown_; }  // what the clock itself loses
  double slowdown(double share) const;                     // ≥ 1
  double compute_bound(double slowdown) const {            // w above
    return most_slowdown_ > 1 ? (slowdown - 1) / (most_slowdown_ - 1) : 0;
  }

 private:
  double burst_s_ = 0, recovery_s_ = 0, held_ = 0, most_slowdown_ = 1;
  std::vector<double> slowdown_;  // at equal steps of share from 0 to 1
};

// Work of a GPU: its seconds in a burst, and those under the cap: of the kernels that draw the power, the others as in a
// burst, which says how compute-bound it is; and of all, on the lowered clock. links_s of burst_s wait for links.
struct GpuWork {
  double burst_s = 0, drawing_s = 0, capped_s = 0, links_s = 0;

  GpuWork& operator+=(const GpuWork& other) {
    burst_s += other.burst_s;
    drawing_s += other.drawing_s;
    capped_s += other.capped_s;
    links_s += other.links_s;
    return *this;
  }
};

// One GPU's heat and clock as time passes; of a pipeline's GPUs, each of which does one of `stages` equal parts of all
// work.
class GpuHeat {
 public:
  explicit GpuHeat(int stages = 1) : stages_(stages) {}
  // The seconds that work takes which starts at now_s; the GPU idled since the work before.
  double run(const PowerCap& cap, const GpuWork& work, double now_s);

 private:
  double stages_;
  double heat_ = 0, busy_until_s_ = 0;
  double lowered_ = 0;  // of the clock: 1 at the cap, 0 when it is the highest again
};

}  // namespace dssim
