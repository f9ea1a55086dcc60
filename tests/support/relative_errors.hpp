// SPDX-License-Identifier: Apache-2.0
#pragma once

// Relative errors of many predictions against measurements, and the line that the validation tests print of them.

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

namespace dssim::test {

struct RelativeErrors {
  std::vector<double> relative;

  void add(double predicted, double measured) { relative.push_back(predicted / measured - 1); }
  double quantile(double q) const {  // of the absolute errors
    std::vector<double> e;
    for (const double r : relative) e.push_back(std::abs(r));
    std::sort(e.begin(), e.end());
    return e[static_cast<size_t>(q * static_cast<double>(e.size() - 1))];
  }
  double bias() const {  // median of the signed errors
    auto e = relative;
    std::nth_element(e.begin(), e.begin() + static_cast<std::ptrdiff_t>(e.size() / 2), e.end());
    return e[e.size() / 2];
  }
  void print(const std::string& what) const {
    std::printf("%-58s n %6zu  median %5.1f %%  p90 %5.1f %%  worst %5.1f %%  bias %+5.1f %%\n", what.c_str(),
                relative.size(), 100 * quantile(0.5), 100 * quantile(0.9), 100 * quantile(1), 100 * bias());
  }
};

}  // namespace dssim::test
