// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the cost model answers: seconds, and how far the figure can be trusted.

#include <algorithm>
#include <cstdint>

namespace dssim {

// Where the asked shape lies against the measured table.
//   inside   between measured points
//   edge     just beyond the measured hull (within one grid step), or read from a neighbouring width or head count
//   outside  extrapolated further, carried over from another GPU, or from the roofline alone
enum class Coverage : uint8_t { inside, edge, outside };

inline Coverage worse(Coverage a, Coverage b) {
  return std::max(a, b);
}

// Relative error of predicted against measured seconds, on shapes that are in no table.
struct Uncertainty {
  double median = 0, p90 = 0;
};

struct Price {
  double seconds = 0;
  Coverage coverage = Coverage::outside;
};

}  // namespace dssim
