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
  std::map<std::string, std::map<double, Width>, std::less<>> kernels;
  for (const auto& s : samples) {
    auto& width = kernels[s.kernel].try_emplace(s.width, Width{std::log2(s.width), s.seconds, {}}).first->second;
    width.floor_s = std::min(width.floor_s, s.seconds);
  }
  for (const auto& s : samples) {
    auto& width = kernels[s.kernel].find(s.width)->second;
    const double ideal = width.floor_s + s.rows * s.width * bytes_per_value(s.kernel) / source_.memory_bytes_per_s;
    width.by_rows.add(s.rows, std::log(ideal / s.seconds));
  }
  for (auto& [name, widths] : kernels)
    for (auto& [size, width] : widths) kernels_[name].push_back(std::move(width));
}

Price ElementwiseTable::price(const Machine& target, std::string_view name, double rows, double width) const {
  const auto& widths = kernels_.find(name)->second;
  const double log_rows = std::log2(rows), log_width = std::log2(width), per_value = bytes_per_value(name);
  const auto price = [&](double floor_s, double values, double log_efficiency, Coverage coverage) {
    return Price{(floor_s + values * per_value / target.memory_bytes_per_s) / std::exp(log_efficiency), coverage};
  };
  const auto above =
      std::find_if(widths.begin(), widths.end(), [&](const Width& w) { return w.log_width > log_width - 1e-9; });
  const bool measured = above != widths.end() && above->log_width < log_width + 1e-9;
  if (!measured && (above == widths.end() || above == widths.begin())) {
    const Width& nearest = above == widths.end() ? widths.back() : widths.front();
    const double same_bytes = log_rows + log_width - nearest.log_width;
    return price(nearest.floor_s, rows * width, nearest.by_rows.at_log2(same_bytes),
                 worse(Coverage::edge, nearest.by_rows.coverage_log2(same_bytes)));
  }
  if (measured)
    return price(above->floor_s, rows * width, above->by_rows.at_log2(log_rows),
                 above->by_rows.coverage_log2(log_rows));
  const Width& below = *std::prev(above);
  const double whole = std::min(std::ceil(width / kWarpValues) * kWarpValues, std::exp2(above->log_width));
  const double w = (std::log2(whole) - below.log_width) / (above->log_width - below.log_width);
  return price((1 - w) * below.floor_s + w * above->floor_s, rows * whole,
               (1 - w) * below.by_rows.at_log2(log_rows) + w * above->by_rows.at_log2(log_rows),
               worse(below.by_rows.coverage_log2(log_rows), above->by_rows.coverage_log2(log_rows)));
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
