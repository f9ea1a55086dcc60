// SPDX-License-Identifier: Apache-2.0
#include "kernels/power_cap.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr double kShareWidth = 0.05;  // of the smoothing; kernels of one share differ by 2 %
constexpr size_t kShareSteps = 100;   // of the remembered curve
// Of one H200 and one H100, as the header says.
constexpr double kLinkCooling = 2.7;   // of a second that waits for links, in seconds of products over the cap
constexpr double kNoHoldLinks = 0.08;  // share of such seconds from which decodes are below the cap

}  // namespace

PowerCap::PowerCap(std::span<const PowerCapSample> kernels, double burst_s, double recovery_s, double held) {
  if (kernels.empty()) return;
  for (size_t i = 0; i <= kShareSteps; ++i) {
    double sum = 0, weights = 0;
    for (const auto& k : kernels) {
      const double d = (static_cast<double>(i) / kShareSteps - k.share) / kShareWidth;
      const double weight = std::exp(-d * d / 2) + 1e-12;  // the sum is never 0
      sum += weight * std::max(1.0, k.capped_s / k.burst_s);
      weights += weight;
    }
    slowdown_.push_back(sum / weights);
  }
  most_slowdown_ = *std::max_element(slowdown_.begin(), slowdown_.end());
  burst_s_ = burst_s;
  recovery_s_ = recovery_s;
  held_ = held;
}

double PowerCap::slowdown(double share) const {
  if (slowdown_.empty()) return 1;
  const double at = std::clamp(share, 0.0, 1.0) * kShareSteps;
  const size_t i = std::min(static_cast<size_t>(at), kShareSteps - 1);
  const double w = at - static_cast<double>(i);
  return (1 - w) * slowdown_[i] + w * slowdown_[i + 1];
}

double GpuHeat::run(const PowerCap& cap, const GpuWork& work, double now_s) {
  if (!cap.acts() || work.burst_s <= 0) return work.burst_s;
  const double burst_s = work.burst_s / stages_, lost_s = (work.capped_s - work.burst_s) / stages_;
  if (const double idle_s = now_s - busy_until_s_; idle_s > 0) {
    heat_ *= std::exp(-idle_s / cap.burst_s());
    lowered_ *= std::exp(-idle_s / cap.recovery_s());
  }
  const double compute_bound = cap.compute_bound(work.drawing_s / work.burst_s);
  const double links = work.links_s / work.burst_s;
  const double cooling = std::max(0.0, 1 - compute_bound) + (kLinkCooling - 1) * links;
  const bool heats = compute_bound > cooling;
  const double to_cap_s = heats ? (1 - heat_) * cap.burst_s() : burst_s;
  const double share = std::clamp(to_cap_s / burst_s, 0.0, 1.0);  // of the work done before the cap
  // Of the lowered clock, on average before the cap and at the end.
  double before = lowered_, after = share < 1 ? 1 : lowered_;
  if (heats) {
    heat_ = std::min(1.0, heat_ + burst_s / cap.burst_s());
  } else {
    const double goal = compute_bound / cooling;
    heat_ = goal + (heat_ - goal) * std::exp(-burst_s / cap.burst_s());
    const double held = cap.held() * std::max(0.0, 1 - links / kNoHoldLinks), time = burst_s / cap.recovery_s();
    before = held + (lowered_ - held) * (time > 0 ? -std::expm1(-time) / time : 1);
    after = held + (lowered_ - held) * std::exp(-time);
  }
  lowered_ = after;
  const double seconds = burst_s + (share * before + 1 - share) * lost_s;
  busy_until_s_ = std::max(now_s, busy_until_s_) + seconds;
  return seconds * stages_;
}

}  // namespace dssim
