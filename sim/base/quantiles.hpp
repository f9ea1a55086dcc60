// SPDX-License-Identifier: Apache-2.0
#pragma once

// Mean, maximum and quantiles of a stream in bounded memory.
//
// Up to kExactSamples values are kept and the quantile is the order statistic with linear interpolation (NumPy's
// default, Hyndman and Fan type 7). Beyond that, values fall into logarithmic buckets 0.1 % wide, so a quantile is
// within 0.05 % of the exact one (idea: Masson et al., DDSketch, VLDB 2019); mean and maximum stay exact. Values must
// be ≥ 0.

#include <cstddef>
#include <cstdint>
#include <vector>

namespace dssim {

class Quantiles {
 public:
  static constexpr size_t kExactSamples = 65536;

  void add(double value);
  uint64_t count() const { return count_; }
  double sum() const { return sum_; }
  double mean() const { return count_ == 0 ? 0 : sum_ / static_cast<double>(count_); }
  double max() const { return max_; }
  double quantile(double q) const;  // q in [0, 1]; 0 where empty

 private:
  void add_to_bucket(double value);

  uint64_t count_ = 0;
  double sum_ = 0, max_ = 0;
  mutable std::vector<double> samples_;
  mutable bool sorted_ = false;
  std::vector<uint64_t> buckets_;  // empty while exact
  uint64_t zeros_ = 0;
};

}  // namespace dssim
