// SPDX-License-Identifier: Apache-2.0
#include "kernels/bandwidth_tables.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr double kWarpValues = 256;  // 32 lanes of eight 16-bit values

}  // namespace

double ElementwiseTable::bytes_per_value(std::string_view kernel) {
  if (kernel == "add_rmsnorm") return 8;  // reads x and the residual, writes both
  if (kernel == "silu_mul") return 6;     // reads gate and up, writes their product
  if (kernel == "copy_d2d") return 2;     // a value is a byte, read and written
  if (kernel == "sampler") return 2;      // reads
  return 4;                               // reads and writes
}

ElementwiseTable::ElementwiseTable(std::span<const ElementwiseSample> samples, const Machine& source)
    : source_(source) {
  for (const auto& s : samples) {
    auto& kernel = curves_[s.kernel];
    kernel.floor_s = std::min(kernel.floor_s, s.seconds);
  }
  std::map<std::string, std::map<double, LogCurve>> by_width;
  for (const auto& s : samples) {
    const double ideal =
        curves_[s.kernel].floor_s + s.rows * s.width * bytes_per_value(s.kernel) / source_.memory_bytes_per_s;
    by_width[s.kernel][s.width].add(s.rows, std::log(ideal / s.seconds));
  }
  for (auto& [name, widths] : by_width) {
    auto& kernel = curves_[name];
    for (auto& [width, curve] : widths) {
      kernel.log_widths.push_back(std::log2(width));
      kernel.by_rows.push_back(std::move(curve));
    }
  }
}

Price ElementwiseTable::price(const Machine& target, std::string_view name, double rows, double width) const {
  const auto& kernel = curves_.find(name)->second;
  const double ideal = kernel.floor_s + rows * width * bytes_per_value(name) / target.memory_bytes_per_s;
  const double log_rows = std::log2(rows), log_width = std::log2(width);
  const auto& widths = kernel.log_widths;
  const auto above = std::lower_bound(widths.begin(), widths.end(), log_width - 1e-9);
  const auto i = static_cast<size_t>(above - widths.begin());
  if (above == widths.end() || (above == widths.begin() && *above > log_width + 1e-9)) {
    const size_t nearest = above == widths.end() ? widths.size() - 1 : 0;
    const auto& curve = kernel.by_rows[nearest];
    const double same_bytes = log_rows + log_width - widths[nearest];
    return {ideal / std::exp(curve.at_log2(same_bytes)), worse(Coverage::edge, curve.coverage_log2(same_bytes))};
  }
  const auto& upper = kernel.by_rows[i];
  if (*above <= log_width + 1e-9) return {ideal / std::exp(upper.at_log2(log_rows)), upper.coverage_log2(log_rows)};
  const auto& lower = kernel.by_rows[i - 1];
  const double whole = std::min(std::ceil(width / kWarpValues) * kWarpValues, std::exp2(widths[i]));
  const double whole_ideal = kernel.floor_s + rows * whole * bytes_per_value(name) / target.memory_bytes_per_s;
  const double w = (std::log2(whole) - widths[i - 1]) / (widths[i] - widths[i - 1]);
  return {whole_ideal / std::exp((1 - w) * lower.at_log2(log_rows) + w * upper.at_log2(log_rows)),
          worse(lower.coverage_log2(log_rows), upper.coverage_log2(log_rows))};
}

CollectiveTable::CollectiveTable(std::span<const CollectiveSample> samples, const Machine& source) : source_(source) {
  for (const auto& s : samples) {
    auto& group = curves_[s.collective][s.gpus];
    group.floor_s = std::min(group.floor_s, s.seconds);
  }
  for (const auto& s : samples) {
    auto& group = curves_[s.collective][s.gpus];
    group.efficiency.add(s.bytes,
                         std::log((group.floor_s + wire_seconds(source_, s.collective, s.gpus, s.bytes)) / s.seconds));
  }
}

double CollectiveTable::wire_seconds(const Machine& machine, std::string_view name, double gpus, double bytes) {
  const double factor =
      name.find("reduce_scatter") == std::string_view::npos && name.find("gather") == std::string_view::npos &&
              name.find("all_to_all") == std::string_view::npos && name.find("alltoall") == std::string_view::npos
          ? 2
          : 1;
  const double link = machine.nvlink_bytes_per_s > 0 ? machine.nvlink_bytes_per_s : machine.pcie_bytes_per_s;
  return factor * (gpus - 1) / gpus * bytes / std::max(link, 1e9);
}

Price CollectiveTable::one(const Machine& target, std::string_view name, const Group& group, int measured_gpus,
                           int gpus, double bytes) const {
  const double size = std::log2(bytes);
  const double ideal = group.floor_s + wire_seconds(target, name, gpus, bytes);
  const Coverage coverage = group.efficiency.coverage_log2(size);
  return {ideal / std::exp(group.efficiency.at_log2(size)),
          measured_gpus == gpus ? coverage : worse(coverage, Coverage::edge)};
}

Price CollectiveTable::price(const Machine& target, std::string_view name, int gpus, double bytes) const {
  const auto& groups = curves_.find(name)->second;
  const auto above = groups.lower_bound(gpus);
  if (above == groups.end()) {
    Price price = one(target, name, groups.rbegin()->second, groups.rbegin()->first, gpus, bytes);
    price.coverage = Coverage::outside;
    return price;
  }
  const Price high = one(target, name, above->second, above->first, gpus, bytes);
  if (above->first == gpus || above == groups.begin()) return high;
  const auto below = std::prev(above);
  const Price low = one(target, name, below->second, below->first, gpus, bytes);
  const double w =
      std::log(static_cast<double>(gpus) / below->first) / std::log(static_cast<double>(above->first) / below->first);
  return {std::exp((1 - w) * std::log(low.seconds) + w * std::log(high.seconds)), worse(low.coverage, high.coverage)};
}

}  // namespace dssim
