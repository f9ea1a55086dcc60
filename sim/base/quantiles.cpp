// SPDX-License-Identifier: Apache-2.0
#include "sim/base/quantiles.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr double kLeast = 1e-9;      // smaller values count as zero
constexpr double kLogWidth = 0.001;  // natural log of the ratio of a bucket's edges
constexpr size_t kBuckets = 55300;   // up to 1e-9 × e^55.3 ≈ 1e15

size_t bucket_of(double value) {
  return std::min(kBuckets - 1, static_cast<size_t>(std::log(value / kLeast) / kLogWidth));
}

}  // namespace

void Quantiles::add(double value) {
  ++count_;
  sum_ += value;
  max_ = std::max(max_, value);
  if (!buckets_.empty()) return add_to_bucket(value);
  samples_.push_back(value);
  sorted_ = false;
  if (samples_.size() <= kExactSamples) return;
  buckets_.assign(kBuckets, 0);
  for (const double sample : samples_) add_to_bucket(sample);
  std::vector<double>().swap(samples_);
}

void Quantiles::add_to_bucket(double value) {
  if (value <= kLeast)
    ++zeros_;
  else
    ++buckets_[bucket_of(value)];
}

double Quantiles::quantile(double q) const {
  if (count_ == 0) return 0;
  const double rank = q * static_cast<double>(count_ - 1);
  if (buckets_.empty()) {
    if (!sorted_) std::sort(samples_.begin(), samples_.end());
    sorted_ = true;
    const auto below = static_cast<size_t>(rank);
    const size_t above = std::min(below + 1, samples_.size() - 1);
    return samples_[below] + (rank - static_cast<double>(below)) * (samples_[above] - samples_[below]);
  }
  double seen = static_cast<double>(zeros_);
  if (rank < seen) return 0;
  for (size_t i = 0; i < buckets_.size(); ++i) {
    seen += static_cast<double>(buckets_[i]);
    if (rank < seen) return std::min(max_, kLeast * std::exp(kLogWidth * (static_cast<double>(i) + 0.5)));
  }
  return max_;
}

}  // namespace dssim
