// SPDX-License-Identifier: Apache-2.0
#pragma once

// Named random substreams of one seed, so that drawing more of one thing (lengths, say) never shifts another
// (arrivals).
//
// Engine: std::mt19937_64. Every distribution is an inverse transform or a named algorithm written out here, because
// the standard library's distributions differ between implementations; equal seeds give equal runs everywhere.

#include <cstdint>
#include <random>
#include <string_view>

namespace dssim {

class RandomStream {
 public:
  RandomStream(uint64_t seed, std::string_view name);

  double uniform();                          // in (0, 1)
  uint64_t below(uint64_t n);                // uniform in {0, …, n−1}; n ≥ 1
  double exponential(double mean);           // by inversion
  double normal();                           // standard normal, Marsaglia's polar method
  double gamma(double shape, double scale);  // Marsaglia and Tsang 2000; mean shape × scale
  double lognormal(double median, double sigma);

 private:
  std::mt19937_64 engine_;
  double spare_normal_ = 0;
  bool has_spare_ = false;
};

}  // namespace dssim
