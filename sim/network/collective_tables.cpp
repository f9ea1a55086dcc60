// SPDX-License-Identifier: Apache-2.0
#include "sim/network/collective_tables.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <tuple>

#include "kernels/cost_model.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"

namespace dssim {
namespace {

constexpr std::array<std::string_view, 3> kGenerations{"blackwell", "hopper", "ampere"};

// 0 where the profile is of this architecture, then one for each generation it is older; −1: no relation.
int distance(const std::string& architecture, const std::string& profiled) {
  if (architecture == profiled) return 0;
  const auto a = std::find(kGenerations.begin(), kGenerations.end(), architecture);
  const auto b = std::find(kGenerations.begin(), kGenerations.end(), profiled);
  if (a == kGenerations.end() || b == kGenerations.end() || b < a) return -1;
  return static_cast<int>(b - a);
}

std::optional<CollectiveKind> kind_of(std::string_view name) {
  if (name == "alltoall") return CollectiveKind::all_to_all;
  for (size_t i = 0; i < collective_names().size(); ++i)
    if (collective_names()[i] == name) return static_cast<CollectiveKind>(i);
  return std::nullopt;
}

}  // namespace

double CollectiveCurve::least_s() const {
  return points_.begin()->second;
}

double CollectiveCurve::seconds(double bytes) const {
  auto above = points_.lower_bound(bytes);
  if (above == points_.begin()) return above->second;
  if (above == points_.end()) {
    if (points_.size() == 1) return points_.begin()->second;
    --above;
  }
  const auto [b1, t1] = *above;
  const auto [b0, t0] = *std::prev(above);
  return t0 + (t1 - t0) * (bytes - b0) / (b1 - b0);
}

bool CollectiveCurve::complete_from(const CollectiveCurve& other) {
  if (points_.size() < 2 || other.empty()) return false;
  std::map<double, double> missing;
  for (const auto& [bytes, seconds] : other.points_) {
    const auto above = points_.lower_bound(bytes);
    if (above == points_.begin() || above == points_.end() || above->first == bytes) continue;
    const auto below = std::prev(above);
    const auto log_ratio = [&](const auto& point) { return std::log(point.second / other.seconds(point.first)); };
    const double w = std::log(bytes / below->first) / std::log(above->first / below->first);
    missing[bytes] = seconds * std::exp((1 - w) * log_ratio(*below) + w * log_ratio(*above));
  }
  const bool any = !missing.empty();
  points_.merge(missing);
  return any;
}

Coverage CollectiveCurve::coverage(double bytes) const {
  const double first = points_.begin()->first, last = points_.rbegin()->first;
  if (bytes >= first && bytes <= last) return Coverage::inside;
  return bytes >= first / 2 && bytes <= last * 2 ? Coverage::edge : Coverage::outside;
}

CollectiveTables::CollectiveTables(const Profile& profile, std::string gpu)
    : gpu_(std::move(gpu)),
      source_("kernels/profiles/" + gpu_ + "/" + profile.stack().name + "/nccl.csv.gz"),
      nvlink_bytes_per_s_(profile.measured_on().nvlink_bytes_per_s),
      queued_(collective_names().size()),
      eager_(collective_names().size()) {
  constexpr std::string_view kEager = "_eager";
  for (const auto& sample : profile.collectives("nccl")) {
    std::string_view name = sample.collective;
    const bool eager = name.ends_with(kEager);
    if (eager) name.remove_suffix(kEager.size());
    if (const auto kind = kind_of(name))
      (eager ? eager_ : queued_)[static_cast<size_t>(*kind)][sample.gpus].add(sample.bytes, sample.seconds);
  }
}

size_t CollectiveTables::curve_count() const {
  size_t count = 0;
  for (const auto* all : {&queued_, &eager_})
    for (const ByGpus& curves : *all) count += curves.size();
  return count;
}

void CollectiveTables::fill_from(const CollectiveTables& other) {
  for (size_t kind = 0; kind < queued_.size(); ++kind) {
    queued_[kind].insert(other.queued_[kind].begin(), other.queued_[kind].end());
    eager_[kind].insert(other.eager_[kind].begin(), other.eager_[kind].end());
  }
  source_ += ", " + other.source_;
}

void CollectiveTables::complete_from(const CollectiveTables& other) {
  bool any = false;
  for (size_t kind = 0; kind < queued_.size(); ++kind)
    for (auto& [gpus, curve] : queued_[kind])
      if (const auto at = other.queued_[kind].find(gpus); at != other.queued_[kind].end())
        any = curve.complete_from(at->second) || any;
  // Tables of the same GPU are named as a source already: they gave curves.
  if (any && other.gpu_ != gpu_) completed_from_ += (completed_from_.empty() ? "" : ", ") + other.source_;
}

std::optional<CollectiveTables> CollectiveTables::find(const Gpu& gpu, const std::string& stack) {
  if (gpu.nvlink_bytes_per_s <= 0) return std::nullopt;
  const auto root = data_root() / "kernels" / "profiles";
  struct Candidate {
    std::string architecture;
    int distance;
    double memory_ratio;  // how far apart the memories' bandwidths are: tells H200 from H100 for a B200
    bool other_stack;
    CollectiveTables tables;
  };
  std::vector<Candidate> candidates;
  for (const auto& name : profiles()) {
    const bool same = name.gpu == gpu.name;
    try {
      const Profile profile(root, name.gpu, name.stack);
      const MeasuredGpu& measured = profile.measured_on();
      const int apart = same ? 0 : distance(gpu.architecture, measured.architecture);
      if (apart < 0) continue;
      CollectiveTables tables(profile, name.gpu);
      if (tables.curve_count() == 0 || tables.nvlink_bytes_per_s() <= 0) continue;
      // Another GPU of the same generation comes after this very GPU, before the older generation.
      const double memory = same ? 0 : std::abs(std::log(measured.memory_bytes_per_s / gpu.memory_bytes_per_s));
      candidates.push_back(
          {measured.architecture, same ? 0 : apart + 1, memory, name.stack != stack, std::move(tables)});
    } catch (const Error&) {
      if (same && name.stack == stack) throw;  // a damaged profile that nobody asked for is passed over
    }
  }
  if (candidates.empty()) return std::nullopt;
  std::stable_sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tuple(a.distance, a.memory_ratio, a.other_stack, b.tables.curve_count()) <
           std::tuple(b.distance, b.memory_ratio, b.other_stack, a.tables.curve_count());
  });
  CollectiveTables best = candidates.front().tables;
  for (size_t i = 1; i < candidates.size(); ++i)
    if (candidates[i].tables.gpu() == best.gpu()) best.fill_from(candidates[i].tables);
  for (const bool own : {true, false})
    for (const auto& c : candidates)
      if (c.architecture == candidates.front().architecture && (c.tables.gpu() == best.gpu()) == own)
        best.complete_from(c.tables);
  return best;
}

}  // namespace dssim
