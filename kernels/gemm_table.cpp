// SPDX-License-Identifier: Apache-2.0
#include "kernels/gemm_table.hpp"

#include <Eigen/LU>
#include <algorithm>
#include <cmath>
#include <set>

namespace dssim {

GemmTable::GemmTable(std::span<const GemmSample> samples, Precision format, const Machine& source)
    : format_(format), source_(source), floor_s_(1) {
  for (const auto& s : samples) floor_s_ = std::min(floor_s_, s.seconds);
  std::set<double> ns, ks;
  for (const auto& s : samples) {
    const auto [at, is_new] = index_.try_emplace({s.n, s.k}, curves_.size());
    if (is_new) {
      curves_.emplace_back();
      log_shapes_.emplace_back(std::log2(s.n), std::log2(s.k));
      ns.insert(s.n);
      ks.insert(s.k);
    }
    const double ideal = floor_s_ + roofline(source_, format_, s.m, s.n, s.k);
    curves_[at->second].add(s.m, std::log(ideal / s.seconds));
  }
  ns_.assign(ns.begin(), ns.end());
  ks_.assign(ks.begin(), ks.end());
}

double GemmTable::roofline(const Machine& machine, Precision format, double m, double n, double k) {
  // Activations travel in 8 bits where the product computes in 8 bits, else in 16; results in 16.
  const double in_bytes = format == Precision::fp8 || format == Precision::int8 ? 1 : 2;
  const double bytes = bytes_of(format) * n * k + in_bytes * m * k + 2 * m * n;
  return std::max(2 * m * n * k / machine.flops_per_s(format), bytes / machine.memory_bytes_per_s);
}

GemmTable::Mix GemmTable::mix_for(double n, double k) const {
  if (const auto at = index_.find({n, k}); at != index_.end()) return {{{at->second, 1.0}}, Coverage::inside};

  // Corners of the grid cell around (n, k), where the table is a grid there.
  const auto above_n = std::lower_bound(ns_.begin(), ns_.end(), n),
             above_k = std::lower_bound(ks_.begin(), ks_.end(), k);
  const bool in_n = above_n != ns_.end() && (*above_n == n || above_n != ns_.begin());
  const bool in_k = above_k != ks_.end() && (*above_k == k || above_k != ks_.begin());
  if (in_n && in_k) {
    const double n1 = *above_n, n0 = n1 == n ? n1 : *(above_n - 1), k1 = *above_k, k0 = k1 == k ? k1 : *(above_k - 1);
    const double wn = n1 == n0 ? 0 : std::log(n / n0) / std::log(n1 / n0),
                 wk = k1 == k0 ? 0 : std::log(k / k0) / std::log(k1 / k0);
    Mix mix;
    for (const auto& [cn, cw] : {std::pair{n0, 1 - wn}, std::pair{n1, wn}})
      for (const auto& [ck, dw] : {std::pair{k0, 1 - wk}, std::pair{k1, wk}}) {
        if (cw * dw == 0) continue;
        const auto at = index_.find({cn, ck});
        if (at != index_.end())
          mix.curves.emplace_back(at->second, cw * dw);
        else
          mix.coverage = Coverage::outside;
      }
    if (mix.coverage == Coverage::inside) return mix;
  }

  return nearby(n, k);
}

// A plane in (log n, log k) through the nearest curves, each weighing by the inverse square of its distance: its height
// at (n, k) is a weighted sum of theirs. The plane's slopes are held back a little, so that curves in a line, which say
// nothing of the slope across it, still give an answer. Beyond the measured sizes the plane is level.
GemmTable::Mix GemmTable::nearby(double n, double k) const {
  constexpr size_t kNearest = 10;
  constexpr double kSoftening = 0.1, kHeldBack = 0.005;  // squared doublings
  const double ln = std::log2(std::clamp(n, ns_.front(), ns_.back())),
               lk = std::log2(std::clamp(k, ks_.front(), ks_.back()));
  const double beyond = std::abs(std::log2(n) - ln) + std::abs(std::log2(k) - lk);
  std::vector<std::pair<double, size_t>> near;
  for (size_t i = 0; i < log_shapes_.size(); ++i) {
    const double dn = log_shapes_[i].first - ln, dk = log_shapes_[i].second - lk;
    near.emplace_back(dn * dn + dk * dk, i);
  }
  const size_t count = std::min(kNearest, near.size());
  std::partial_sort(near.begin(), near.begin() + static_cast<std::ptrdiff_t>(count), near.end());
  near.resize(count);
  Eigen::Matrix3d normal = Eigen::Matrix3d::Zero();
  std::vector<Eigen::Vector3d> weighted;
  double total = 0;
  for (const auto& [d2, i] : near) {
    const double weight = 1 / (d2 + kSoftening);
    const Eigen::Vector3d x(1, log_shapes_[i].first - ln, log_shapes_[i].second - lk);
    normal += weight * x * x.transpose();
    weighted.push_back(weight * x);
    total += weight;
  }
  normal(1, 1) += kHeldBack * total;
  normal(2, 2) += kHeldBack * total;
  const Eigen::Vector3d height = normal.inverse().row(0);
  Mix mix;
  for (size_t i = 0; i < count; ++i) mix.curves.emplace_back(near[i].second, height.dot(weighted[i]));
  mix.coverage = std::sqrt(near.front().first) + beyond <= 1 ? Coverage::edge : Coverage::outside;
  return mix;
}

double GemmTable::rows_log2(const LogCurve& curve, double m) {
  constexpr double kTileRows = 64;
  const double lm = std::log2(m);
  return m <= kTileRows ? lm : std::min(curve.next_log2(lm), std::log2(std::ceil(m / kTileRows) * kTileRows));
}

Price GemmTable::price(const Machine& target, Precision asked, double m, double n, double k) const {
  auto at = mixes_.find({n, k});
  if (at == mixes_.end()) at = mixes_.emplace(std::pair{n, k}, mix_for(n, k)).first;
  const Mix& mix = at->second;
  const double lm = std::log2(m);
  double log_efficiency = 0;
  Coverage coverage =
      asked == format_ || (asked == Precision::fp16 && format_ == Precision::bf16) ? mix.coverage : Coverage::outside;
  const double ideal = floor_s_ + roofline(source_, asked, m, n, k);
  for (const auto& [curve, weight] : mix.curves) {
    const double rows = rows_log2(curves_[curve], m);
    const double filled = rows == lm ? ideal : floor_s_ + roofline(source_, asked, std::exp2(rows), n, k);
    log_efficiency += weight * (curves_[curve].at_log2(rows) + std::log(ideal / filled));
    coverage = worse(coverage, curves_[curve].coverage_log2(lm));
  }
  const double efficiency = std::exp(log_efficiency), weight_bytes = bytes_of(asked) * n * k;
  const double here = ideal / efficiency;
  const double seconds = (floor_s_ + roofline(target, asked, m, n, k)) / efficiency;
  // A measured product may beat the sustained rates (caches, clocks); the target is then allowed the same.
  const double beaten = std::max(1.0, source_.least_seconds(2 * m * n * k, weight_bytes, asked) / here);
  return {std::max(seconds, target.least_seconds(2 * m * n * k, weight_bytes, asked, beaten)), coverage};
}

}  // namespace dssim
