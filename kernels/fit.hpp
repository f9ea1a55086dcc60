// SPDX-License-Identifier: Apache-2.0
#pragma once

// Least squares with physical terms: seconds ≈ Σ c_i × term_i, every c_i ≥ 0.
//
// Minimises the sum of squared relative errors, so that a 5 us row counts as much as a 5 ms one. A coefficient that
// would come out negative is dropped and the rest solved again: no kernel is quicker for doing more. Tested by
// tests/unit/calibration_fit_test.cpp.

#include <span>
#include <vector>

namespace dssim {

struct Fit {
  size_t rows = 0;
  std::vector<double> coefficients;              // one for each term; empty where there are fewer rows than terms
  double median_error = 0, p90_error = 0;        // of the relative errors over the rows fitted
};

// `terms` holds the rows one after another, `width` of them each; seconds > 0.
Fit fit_seconds(std::span<const double> terms, size_t width, std::span<const double> seconds);

}  // namespace dssim
