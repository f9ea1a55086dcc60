// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fused mixture-of-experts layers (both expert products and the weighted sum) of one weight format.
//
//   ideal = floor + max(6 T k h f / (tp ep) / matrix rate, (weights of the experts hit + tokens) bytes / memory
//   bandwidth) experts hit on a GPU = E/ep (1 − (1 − k/E)^T)      for T tokens choosing k of E experts at random;
//                          min(E, k T)/ep              in a table measured with tokens spread evenly
// Efficiency is interpolated in log tokens along the measured layer; one that was not measured reads the nearest by
// width of an expert's slice, experts on the GPU and experts per token. `tokens` counts every token of the step, not a
// GPU's share. Tested by tests/unit/cost_model_test.cpp and tests/validation/kernels_test.cpp.

#include <span>
#include <vector>

#include "kernels/log_curve.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

class MoeTable {
 public:
  MoeTable(std::span<const MoeSample> samples, Precision format, const Machine& source);
  bool empty() const { return layers_.empty(); }
  Price price(const Machine& target, Precision asked, const MoeSample& shape) const;

 private:
  struct Layer {
    MoeSample shape;
    LogCurve efficiency;
  };
  static double roofline(const Machine& machine, Precision format, const MoeSample& shape);
  static double distance(const MoeSample& a, const MoeSample& b);

  Precision format_;
  Machine source_;
  double floor_s_ = 1;
  std::vector<Layer> layers_;
};

}  // namespace dssim
