// SPDX-License-Identifier: Apache-2.0
#pragma once

// Matrix products of one weight format: out[m,n] = in[m,k] × weights[k,n].
//
//   ideal = floor + max(2 m n k / matrix rate, (weights + inputs + outputs) bytes / memory bandwidth)
//   seconds = ideal / efficiency(m, n, k); carried to another GPU no less than its sustained rates allow
// `floor` is the shortest time in the table: what a launch costs however small the product. The measured efficiency is
// interpolated in log m along the (n,k) that were measured; between them bilinearly in (log n, log k) where the table
// is a grid there, else by a plane through the nearest ten.
//
// Tensor cores work on whole tiles, so the time of a product rises in steps (tile quantisation: NVIDIA, Matrix
// Multiplication Background User's Guide). Sizes are measured where steps end; one inside a step of 64 rows, wgmma's
// tile on Hopper and the least of cuBLAS's large ones elsewhere, takes as long as the step's end, or as the next measured
// size where that comes first. Up to 64 rows cuBLASLt has narrower tiles, and the curve is taken as it is.
// Tested by tests/unit/cost_model_test.cpp and tests/validation/kernels_test.cpp.

#include <cstdint>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "kernels/log_curve.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

class GemmTable {
 public:
  // `format` is what the samples were measured in; source the machine they were measured on.
  GemmTable(std::span<const GemmSample> samples, Precision format, const Machine& source);

  // `asked` may be a format without a table of its own: the same efficiency against that format's ideal.
  Price price(const Machine& target, Precision asked, double m, double n, double k) const;

 private:
  struct Mix {
    std::vector<std::pair<size_t, double>> curves;  // index, weight (sums to 1)
    Coverage coverage = Coverage::inside;
  };
  Mix mix_for(double n, double k) const;
  Mix nearby(double n, double k) const;
  // log2 of the rows that this curve is read at for m of them.
  static double rows_log2(const LogCurve& curve, double m);
  static double roofline(const Machine& machine, Precision format, double m, double n, double k);

  Precision format_;
  Machine source_;
  double floor_s_;
  std::vector<double> ns_, ks_;                        // distinct, ascending
  std::map<std::pair<double, double>, size_t> index_;  // (n, k) → curve
  std::vector<LogCurve> curves_;                       // log efficiency against m
  std::vector<std::pair<double, double>> log_shapes_;  // (log2 n, log2 k) of each curve
  mutable std::map<std::pair<double, double>, Mix> mixes_;
};

}  // namespace dssim
