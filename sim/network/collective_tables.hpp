// SPDX-License-Identifier: Apache-2.0
#pragma once

// Measured NCCL times inside one NVLink domain: kernels/profiles/<gpu>/<stack>/nccl.csv.gz.
//
// Between two measured sizes a time is linear in bytes (a latency and a rate of its own for each stretch), beyond the
// last it goes on at the rate of the last stretch, below the first it is constant. Sizes that a curve lacks between its
// first and its last are first filled in from other tables of the same GPU, then of GPUs of its architecture: their
// time × the ratio of both curves, interpolated in the logarithm of the size. NCCL changes protocol at the same sizes
// there, which no interpolation within one curve can know. Rows named <collective>_eager were
// timed with PyTorch's launch of every call; they are kept as a factor on the GPU's time.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "kernels/price.hpp"
#include "kernels/profile.hpp"
#include "sim/network/collective.hpp"

namespace dssim {

class CollectiveCurve {
 public:
  void add(double bytes, double seconds) { points_[bytes] = seconds; }
  bool empty() const { return points_.empty(); }
  double seconds(double bytes) const;
  double least_s() const;  // the time of the smallest message
  Coverage coverage(double bytes) const;
  const std::map<double, double>& points() const { return points_; }
  // Adds the sizes of `other` that this curve steps over, with other's time × the ratio of the two at its neighbours;
  // whether there were any.
  bool complete_from(const CollectiveCurve& other);

 private:
  std::map<double, double> points_;
};

class CollectiveTables {
 public:
  using ByGpus = std::map<int, CollectiveCurve>;

  // The tables of this GPU: those of `stack` first, what they lack from its other profiles, the fullest first, and from
  // GPUs of the same architecture. For a GPU without any those of the most similar one: the same architecture, then the
  // one before it. Nothing for a GPU without NVLink.
  static std::optional<CollectiveTables> find(const Gpu& gpu, const std::string& stack);

  explicit CollectiveTables(const Profile& profile, std::string gpu);

  const ByGpus& curves(CollectiveKind kind) const { return queued_[static_cast<size_t>(kind)]; }
  const ByGpus& eager_curves(CollectiveKind kind) const { return eager_[static_cast<size_t>(kind)]; }
  size_t curve_count() const;
  const std::string& gpu() const { return gpu_; }
  double nvlink_bytes_per_s() const { return nvlink_bytes_per_s_; }  // of the GPU they were measured on
  const std::string& source() const { return source_; }
  // Other tables that sizes within these curves were filled in from; empty: none.
  const std::string& completed_from() const { return completed_from_; }

 private:
  void fill_from(const CollectiveTables& other);      // curves
  void complete_from(const CollectiveTables& other);  // sizes within curves; eager ones stay their own host's

  std::string gpu_, source_, completed_from_;
  double nvlink_bytes_per_s_ = 0;
  std::vector<ByGpus> queued_, eager_;
};

}  // namespace dssim
