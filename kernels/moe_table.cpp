// SPDX-License-Identifier: Apache-2.0
#include "kernels/moe_table.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

namespace dssim {

MoeTable::MoeTable(std::span<const MoeSample> samples, Precision format, const Machine& source)
    : format_(format), source_(source) {
  for (const auto& s : samples) floor_s_ = std::min(floor_s_, s.seconds);
  for (const auto& s : samples) {
    auto at = std::find_if(layers_.rbegin(), layers_.rend(), [&](const Layer& l) { return distance(l.shape, s) == 0; });
    if (at == layers_.rend()) {
      layers_.push_back({s, {}});
      at = layers_.rbegin();
    }
    at->efficiency.add(s.tokens, std::log((floor_s_ + roofline(source_, format_, s)) / s.seconds));
  }
}

double MoeTable::roofline(const Machine& machine, Precision format, const MoeSample& s) {
  const double share = 1 / (s.tp * s.ep);
  const double random = s.experts * (1 - std::pow(1 - std::min(1.0, s.top_k / s.experts), s.tokens));
  const double hit = (s.balanced ? std::min(s.experts, s.tokens * s.top_k) : random) / s.ep;
  const double flops = 6 * s.tokens * s.top_k * s.hidden * s.ffn * share;
  const double bytes = 3 * hit * s.hidden * s.ffn / s.tp * bytes_of(format) + 4 * s.tokens * s.hidden;
  return std::max(flops / machine.flops_per_s(format), bytes / machine.memory_bytes_per_s);
}

double MoeTable::distance(const MoeSample& a, const MoeSample& b) {
  const auto log_ratio = [](double x, double y) { return std::abs(std::log2(x / y)); };
  return log_ratio(a.ffn / a.tp, b.ffn / b.tp) + log_ratio(a.hidden, b.hidden) +
         log_ratio(a.experts / a.ep, b.experts / b.ep) + log_ratio(a.top_k, b.top_k) + 0.1 * log_ratio(a.tp, b.tp) +
         0.1 * log_ratio(a.ep, b.ep);
}

Price MoeTable::price(const Machine& target, Precision asked, const MoeSample& shape) const {
  const Layer* nearest = &layers_.front();
  double least = std::numeric_limits<double>::max();
  for (const auto& layer : layers_) {
    const double d = distance(layer.shape, shape);
    if (d < least) least = d, nearest = &layer;
  }
  const double lt = std::log2(shape.tokens);
  Coverage coverage = asked == format_ || (asked == Precision::fp16 && format_ == Precision::bf16) ? Coverage::inside
                                                                                                   : Coverage::outside;
  if (least > 0) coverage = worse(coverage, least <= 1 ? Coverage::edge : Coverage::outside);
  coverage = worse(coverage, nearest->efficiency.coverage_log2(lt));
  return {(floor_s_ + roofline(target, asked, shape)) / std::exp(nearest->efficiency.at_log2(lt)), coverage};
}

}  // namespace dssim
