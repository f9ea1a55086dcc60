// SPDX-License-Identifier: Apache-2.0
#pragma once

// Kernels whose time is a matter of bytes: element-wise kernels, copies and collectives inside a node.
// Efficiency is measured seconds against ideal = floor + bytes moved / bandwidth. Tested by
// tests/unit/cost_model_test.cpp and tests/validation/kernels_test.cpp.

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/log_curve.hpp"
#include "kernels/machine.hpp"
#include "kernels/price.hpp"
#include "kernels/profile.hpp"

namespace dssim {

// By kernel name: efficiency in (log rows, log width), bilinear, since few wide rows leave multiprocessors idle that many
// narrow ones of as many bytes fill. A width between measured ones is priced as whole warps, whose spare lanes idle (up
// to the next 256 values); one beyond them is read at the nearest, at as many bytes.
class ElementwiseTable {
 public:
  ElementwiseTable(std::span<const ElementwiseSample> samples, const Machine& source);
  bool has(std::string_view kernel) const { return curves_.find(kernel) != curves_.end(); }
  Price price(const Machine& target, std::string_view kernel, double rows, double width) const;

  // Bytes a kernel moves per value of its `width`, 16-bit values.
  static double bytes_per_value(std::string_view kernel);

 private:
  struct Kernel {
    double floor_s = 1;
    std::vector<double> log_widths;  // ascending
    std::vector<LogCurve> by_rows;   // for each width: log efficiency
  };
  Machine source_;
  std::map<std::string, Kernel, std::less<>> curves_;
};

// By (collective or backend name, GPUs); group sizes between measured ones are interpolated in log GPUs.
class CollectiveTable {
 public:
  CollectiveTable(std::span<const CollectiveSample> samples, const Machine& source);
  bool has(std::string_view name) const { return curves_.find(name) != curves_.end(); }
  Price price(const Machine& target, std::string_view name, int gpus, double bytes) const;

 private:
  struct Group {
    double floor_s = 1;
    LogCurve efficiency;
  };
  // Bytes each GPU sends for `bytes` of buffer, over one direction of its links.
  static double wire_seconds(const Machine& machine, std::string_view name, double gpus, double bytes);
  Price one(const Machine& target, std::string_view name, const Group& group, int measured_gpus, int gpus,
            double bytes) const;

  Machine source_;
  std::map<std::string, std::map<int, Group>, std::less<>> curves_;
};

}  // namespace dssim
