// SPDX-License-Identifier: Apache-2.0
#pragma once

// A measured function of one size: y against log2 x, linear between the points, constant beyond them.

#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels/price.hpp"

namespace dssim {

class LogCurve {
 public:
  // Points may come in any order; of two with the same x the last counts.
  void add(double x, double y) {
    const double lx = std::log2(x);
    const auto at = std::lower_bound(x_.begin(), x_.end(), lx);
    const auto i = at - x_.begin();
    if (at != x_.end() && *at == lx) {
      y_[static_cast<size_t>(i)] = y;
      return;
    }
    x_.insert(at, lx);
    y_.insert(y_.begin() + i, y);
  }
  bool empty() const { return x_.empty(); }
  double first() const { return x_.front(); }  // log2
  double last() const { return x_.back(); }
  // The first point at lx or beyond it, or lx where there is none.
  double next_log2(double lx) const {
    const auto at = std::lower_bound(x_.begin(), x_.end(), lx);
    return at == x_.end() ? lx : *at;
  }

  double at_log2(double lx) const {
    if (lx <= x_.front()) return y_.front();
    if (lx >= x_.back()) return y_.back();
    const auto i = static_cast<size_t>(std::upper_bound(x_.begin(), x_.end(), lx) - x_.begin());
    const double w = (lx - x_[i - 1]) / (x_[i] - x_[i - 1]);
    return y_[i - 1] + w * (y_[i] - y_[i - 1]);
  }
  double at(double x) const { return at_log2(std::log2(x)); }

  // Within the points, within a factor of two beyond them, or further.
  Coverage coverage_log2(double lx) const {
    if (lx >= x_.front() - 1e-9 && lx <= x_.back() + 1e-9) return Coverage::inside;
    return lx >= x_.front() - 1.001 && lx <= x_.back() + 1.001 ? Coverage::edge : Coverage::outside;
  }

 private:
  std::vector<double> x_, y_;
};

}  // namespace dssim
