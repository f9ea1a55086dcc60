// SPDX-License-Identifier: Apache-2.0
#include "kernels/power_cap.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr double kShareWidth = 0.05;  // of the smoothing; kernels of one share differ by 2 %
constexpr size_t kShareSteps = 100;   // of the remembered curve

}  // namespace

PowerCap::PowerCap(std::span<const PowerCapSample> kernels, double burst_s) {
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
}

double PowerCap::slowdown(double share) const {
  if (slowdown_.empty()) return 1;
  const double at = std::clamp(share, 0.0, 1.0) * kShareSteps;
  const size_t i = std::min(static_cast<size_t>(at), kShareSteps - 1);
  const double w = at - static_cast<double>(i);
  return (1 - w) * slowdown_[i] + w * slowdown_[i + 1];
}

double GpuHeat::run(const PowerCap& cap, double burst_s, double capped_s, double compute_bound, double now_s) {
  if (!cap.acts() || burst_s <= 0) return 1;
  burst_s /= stages_, capped_s /= stages_;
  if (now_s > busy_until_s_) heat_ *= std::exp(-(now_s - busy_until_s_) / cap.burst_s());
  const double start_s = std::max(now_s, busy_until_s_);
  // Heat tends to w / (1 - w), at the rate (1 - w) / burst_s; it may be infinite, so both are kept apart.
  const double cooling = std::max(1e-9, 1 - compute_bound) / cap.burst_s();
  const double goal = compute_bound / (cooling * cap.burst_s());
  const double to_cap_s = goal > 1 ? std::log((goal - heat_) / (goal - 1)) / cooling : burst_s;
  const double share = std::clamp(to_cap_s / burst_s, 0.0, 1.0);
  heat_ = share < 1 ? 1 : std::min(1.0, goal + (heat_ - goal) * std::exp(-cooling * burst_s));
  busy_until_s_ = start_s + share * burst_s + (1 - share) * capped_s;
  return share;
}

}  // namespace dssim
