// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <map>
#include <unordered_map>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"
#include "sim/network/collective.hpp"
#include "sim/network/collective_algorithm.hpp"
#include "sim/network/collective_loads.hpp"
#include "sim/network/collective_tables.hpp"

namespace dssim {
namespace {

// One algorithm with one protocol for a group: seconds = latency + bytes × seconds_per_byte / share at this size.
struct Candidate {
  const CollectiveAlgorithm* algorithm = nullptr;
  nccl::Protocol protocol = nccl::Protocol::simple;
  double latency_s = 0, seconds_per_byte = 0;
  const std::array<double, nccl::kTreeSizes>* share_by_size = nullptr;

  double seconds(double bytes) const { return latency_s + bytes * seconds_per_byte / share(bytes); }

 private:
  double share(double bytes) const {
    if (share_by_size == nullptr) return 1;
    const double at = std::clamp(std::log2(bytes / nccl::kTreeFirst_bytes), 0.0, double{nccl::kTreeSizes - 1});
    const auto i = std::min(static_cast<size_t>(at), nccl::kTreeSizes - 2);
    const double w = at - static_cast<double>(i);
    return (1 - w) * (*share_by_size)[i] + w * (*share_by_size)[i + 1];
  }
};

using Candidates = std::vector<Candidate>;

const Candidate& quickest(const Candidates& candidates, double bytes) {
  assert(!candidates.empty());
  const Candidate* best = &candidates.front();
  for (const auto& c : candidates)
    if (c.seconds(bytes) < best->seconds(bytes)) best = &c;
  return *best;
}

std::vector<CollectiveEdge> edges_of(const CollectiveAlgorithm& algorithm, CollectiveKind kind,
                                     const CollectiveGroup& group, const CollectiveMachine& machine) {
  std::vector<CollectiveEdge> edges;
  algorithm.edges(kind, group, machine, [&](int source, int destination, double share) {
    if (share > 0 && source != destination) edges.push_back({source, destination, share});
  });
  return edges;
}

CollectiveMachine machine_of(const std::string& architecture, const CollectiveOptions& options,
                             const Cluster& cluster) {
  const bool blackwell = architecture == "blackwell", hopper = architecture == "hopper";
  CollectiveMachine machine;
  const double of_rated = blackwell ? nccl::kNvlsShareBlackwell : hopper ? nccl::kNvlsShareHopper : 0;
  machine.nvls_share = options.nvls ? of_rated / cluster.node.link_efficiency : 0;
  machine.ll_most_bytes_per_s = blackwell ? nccl::kLlMostBlackwell_bytes_per_s
                                : hopper  ? nccl::kLlMostHopper_bytes_per_s
                                          : nccl::kLlMostAmpere_bytes_per_s;
  machine.ll128 = blackwell || hopper || architecture == "ampere" || architecture == "volta";
  machine.sharp = options.sharp && cluster.fabric && cluster.fabric->protocol == "infiniband";
  return machine;
}

// Every algorithm and protocol that may be used, with `load` giving an algorithm's seconds per byte and route latency.
template <typename Load>
Candidates candidates_of(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine,
                         const std::string& forced, const Load& load) {
  Candidates all;
  for (const CollectiveAlgorithm* algorithm : collective_algorithms()) {
    if (!algorithm->applies(kind, group, machine)) continue;
    if (forced.empty() ? !algorithm->automatic() : algorithm->name() != forced) continue;
    const LinkLoads links = load(*algorithm);
    for (const ProtocolCost& cost : algorithm->costs(kind, group, machine)) {
      double per_byte = links.seconds_per_byte / cost.share;
      if (cost.most_bytes_per_s > 0)
        per_byte = std::max(per_byte, bus_bandwidth_factor(kind, group.gpus) / cost.most_bytes_per_s);
      all.push_back(
          {algorithm, cost.protocol, std::max(cost.latency_s, links.latency_s), per_byte, cost.share_by_size});
    }
  }
  if (all.empty() && !forced.empty()) return candidates_of(kind, group, machine, "", load);
  return all;
}

CollectiveGroup switched_group(int gpus) {
  CollectiveGroup group;
  group.gpus = group.largest_domain = gpus;
  group.nvlink = group.switched = true;
  for (int i = 0; i < gpus; ++i) group.order.push_back(i);
  group.domains.push_back(group.order);
  return group;
}

struct Key {
  CollectiveKind kind;
  std::vector<int> gpus;
  bool operator==(const Key&) const = default;
};
struct KeyHash {
  size_t operator()(const Key& key) const {
    uint64_t hash = static_cast<uint64_t>(key.kind) + 0x9e3779b97f4a7c15U;
    for (const int gpu : key.gpus) hash = (hash ^ static_cast<uint64_t>(gpu)) * 0x100000001b3U + (hash >> 29);
    return static_cast<size_t>(hash);
  }
};

}  // namespace

class CollectiveModel::Impl {
 public:
  // One kind of collective of one group.
  struct Plan {
    CollectiveGroup group;
    Candidates candidates;
    bool measurable = false;  // a table may say more than the formulas
    // Flow sizes by algorithm: seconds of the bandwidth term × this × … = bytes (flows() explains).
    std::unordered_map<const CollectiveAlgorithm*, std::vector<CollectiveEdge>> flow_edges;
    size_t flow_limit = 0;
  };

  Impl(const Cluster& cluster, const ClusterNetwork& network, const CollectiveOptions& options)
      : cluster_(cluster), network_(network), options_(options) {
    machine_ = machine_of(cluster.gpu.architecture, options, cluster);
    if (options.tables && options.algorithm.empty()) tables_ = CollectiveTables::find(cluster.gpu, options.stack);
    if (tables_) {
      CollectiveOptions measured = options;
      measured.nvls = true;
      measured_machine_ = machine_of(load_gpu(tables_->gpu()).architecture, measured, cluster);
    }
  }

  Plan& plan(CollectiveKind kind, std::span<const int> gpus) {
    scratch_.kind = kind;
    scratch_.gpus.assign(gpus.begin(), gpus.end());
    if (const auto found = plans_.find(scratch_); found != plans_.end()) return found->second;
    Plan plan;
    plan.group = make_group(cluster_, network_, gpus);
    plan.candidates = candidates_of(kind, plan.group, machine_, options_.algorithm, [&](const CollectiveAlgorithm& a) {
      return link_loads(network_, edges_of(a, kind, plan.group, machine_));
    });
    plan.measurable = tables_ && plan.group.domain_count() == 1 && plan.group.switched;
    return plans_.emplace(scratch_, std::move(plan)).first->second;
  }

  CollectiveTime time(const CollectiveCall& call) {
    CollectiveTime time;
    if (call.gpus.size() < 2 || call.bytes <= 0) return {0, 0, "none", "", false, Coverage::inside};
    const Plan& p = plan(call.kind, call.gpus);
    const Candidate& best = quickest(p.candidates, call.bytes);
    time.algorithm = best.algorithm->name();
    time.protocol = nccl::kProtocolNames[static_cast<size_t>(best.protocol)];
    time.seconds = best.seconds(call.bytes);
    time.latency_s = best.latency_s;
    time.coverage = Coverage::outside;
    if (p.measurable) correct_by_tables(call, p, time);
    return time;
  }

  std::vector<Flow> flows(const CollectiveCall& call, size_t most) {
    std::vector<Flow> flows;
    const CollectiveTime t = time(call);
    if (t.bandwidth_s() <= 0) return flows;
    Plan& p = plan(call.kind, call.gpus);
    if (p.flow_limit != most) {
      p.flow_edges.clear();
      p.flow_limit = most;
    }
    const CollectiveAlgorithm* algorithm = quickest(p.candidates, call.bytes).algorithm;
    auto& edges = p.flow_edges[algorithm];
    if (edges.empty()) edges = representative_edges(*algorithm, call.kind, p.group, most);
    for (const auto& edge : edges) flows.push_back({edge.source, edge.destination, edge.share * t.bandwidth_s()});
    return flows;
  }

  const ClusterNetwork& network() const { return network_; }

  std::vector<std::string> sources() const {
    std::vector<std::string> lines{"NCCL's tuning constants (NVIDIA/nccl src/graph/tuning.cc)"};
    if (!tables_) return lines;
    lines.push_back(fmt::format("NCCL times of {}", tables_->source()));
    if (!tables_->completed_from().empty())
      lines.push_back(fmt::format("NCCL times of {}: sizes that the others step over", tables_->completed_from()));
    return lines;
  }

 private:
  // Edges whose share is bytes per second of the bandwidth term, so that the busiest link, alone, needs exactly that.
  std::vector<CollectiveEdge> representative_edges(const CollectiveAlgorithm& algorithm, CollectiveKind kind,
                                                   const CollectiveGroup& group, size_t most) const {
    std::vector<CollectiveEdge> edges = edges_of(algorithm, kind, group, machine_);
    if (edges.size() > most) {
      const size_t domains = std::max<size_t>(1, most * group.domains.size() / edges.size());
      const int last = group.domains[std::min(domains, group.domains.size()) - 1].back();
      std::erase_if(edges, [&](const CollectiveEdge& e) { return e.source > last; });
    }
    const double per_byte = link_loads(network_, edges).seconds_per_byte;
    for (auto& edge : edges) edge.share /= per_byte;
    return edges;
  }

  // Formula for a group on the switch that the tables were measured on.
  const Candidates& measured_formula(CollectiveKind kind, int gpus) {
    auto& candidates = measured_formulas_[{static_cast<int>(kind), gpus}];
    if (candidates.empty()) {
      const CollectiveGroup group = switched_group(gpus);
      const double port = tables_->nvlink_bytes_per_s() * cluster_.node.link_efficiency;
      candidates = candidates_of(kind, group, measured_machine_, "", [&](const CollectiveAlgorithm& a) {
        return LinkLoads{switch_load(gpus, port, edges_of(a, kind, group, measured_machine_)), 0};
      });
    }
    return candidates;
  }

  // The measured curves on either side of a group of n (the same one where n was measured), and the weight of the upper
  // one in the logarithm of the group's size.
  struct Neighbours {
    const CollectiveTables::ByGpus::value_type *below = nullptr, *above = nullptr;
    double weight = 0;
    bool beyond = false;

    double mean(double of_below, double of_above) const { return (1 - weight) * of_below + weight * of_above; }
  };
  std::optional<Neighbours> neighbours(CollectiveKind kind, int n) const {
    const auto& curves = tables_->curves(kind);
    // A group more than twice as large as any measured is another matter than the largest one measured.
    if (curves.empty() || n > 2 * curves.rbegin()->first) return std::nullopt;
    auto above = curves.lower_bound(n);
    Neighbours at;
    at.beyond = above == curves.end();
    if (at.beyond) above = std::prev(curves.end());
    const auto below = above->first > n && above != curves.begin() ? std::prev(above) : above;
    at.below = &*below;
    at.above = &*above;
    if (below != above)
      at.weight =
          std::log(static_cast<double>(n) / below->first) / std::log(static_cast<double>(above->first) / below->first);
    return at;
  }

  // Logarithm of measured over formula, on the GPU that was measured.
  double log_correction(CollectiveKind kind, const Neighbours& at, double bytes) {
    const auto one = [&](const CollectiveTables::ByGpus::value_type& curve) {
      return std::log(curve.second.seconds(bytes) /
                      quickest(measured_formula(kind, curve.first), bytes).seconds(bytes));
    };
    return at.mean(one(*at.below), one(*at.above));
  }

  // seconds = formula here × (measured / formula there).
  void correct_by_tables(const CollectiveCall& call, const Plan& plan, CollectiveTime& time) {
    const int n = plan.group.gpus;
    if (const auto at = neighbours(call.kind, n)) {
      time.seconds *= std::exp(log_correction(call.kind, *at, call.bytes));
      const double least =
          std::exp(at->mean(std::log(at->below->second.least_s()), std::log(at->above->second.least_s())));
      time.latency_s = std::min({time.latency_s, least, time.seconds});
      time.measured = true;
      time.coverage = worse(at->below->second.coverage(call.bytes), at->above->second.coverage(call.bytes));
      if (at->below->first != n) time.coverage = worse(time.coverage, at->beyond ? Coverage::outside : Coverage::edge);
      if (tables_->gpu() != cluster_.gpu.name) time.coverage = Coverage::outside;
    }
    if (options_.eager) add_launch(call, n, time);
  }

  // Small messages wait for the host: the measured eager time itself, interpolated in log bytes. Large ones do not:
  // there the measured eager time over the GPU's time, interpolated likewise, corrects the latter. The longer of the
  // two counts.
  void add_launch(const CollectiveCall& call, int n, CollectiveTime& time) {
    const auto& curves = tables_->eager_curves(call.kind);
    const auto curve = curves.find(n);
    if (curve == curves.end() || tables_->gpu() != cluster_.gpu.name) return;
    constexpr double kLaunchBound = 1.25;  // eager over GPU time from which the host is what takes the time
    std::map<double, double> launch, log_ratio;
    for (const auto& [bytes, seconds] : curve->second.points()) {
      const double ratio = seconds / measured_gpu_time(call.kind, n, bytes);
      if (ratio > kLaunchBound && log_ratio.empty())
        launch[bytes] = seconds;
      else
        log_ratio[bytes] = std::log(ratio);
    }
    const double launched_s = launch.empty() ? 0 : at_log(launch, call.bytes);
    const double queued_s = time.seconds * (log_ratio.empty() ? 1 : std::exp(at_log(log_ratio, call.bytes)));
    time.latency_s += std::max(0.0, launched_s - queued_s);
    time.seconds = std::max(launched_s, queued_s);
    time.latency_s = std::min(time.latency_s, time.seconds);
    time.measured = true;
    time.coverage = curve->second.coverage(call.bytes);
  }

  double measured_gpu_time(CollectiveKind kind, int n, double bytes) {
    const auto at = neighbours(kind, n);
    return quickest(measured_formula(kind, n), bytes).seconds(bytes) *
           (at ? std::exp(log_correction(kind, *at, bytes)) : 1);
  }

  // Linear in log bytes between the points, constant beyond them.
  static double at_log(const std::map<double, double>& points, double bytes) {
    auto above = points.lower_bound(bytes);
    if (above == points.end()) return points.rbegin()->second;
    if (above == points.begin()) return above->second;
    const auto below = std::prev(above);
    const double w = std::log(bytes / below->first) / std::log(above->first / below->first);
    return (1 - w) * below->second + w * above->second;
  }

  const Cluster& cluster_;
  const ClusterNetwork& network_;
  CollectiveOptions options_;
  CollectiveMachine machine_, measured_machine_;
  std::optional<CollectiveTables> tables_;
  std::unordered_map<Key, Plan, KeyHash> plans_;
  std::map<std::pair<int, int>, Candidates> measured_formulas_;
  Key scratch_{};
};

CollectiveModel::CollectiveModel(const Cluster& cluster, const ClusterNetwork& network,
                                 const CollectiveOptions& options)
    : impl_(std::make_unique<Impl>(cluster, network, options)) {}
CollectiveModel::~CollectiveModel() = default;

CollectiveTime CollectiveModel::time(const CollectiveCall& call) const {
  return impl_->time(call);
}
std::vector<CollectiveModel::Flow> CollectiveModel::flows(const CollectiveCall& call, size_t most) const {
  return impl_->flows(call, most);
}
const ClusterNetwork& CollectiveModel::network() const {
  return impl_->network();
}
std::vector<std::string> CollectiveModel::sources() const {
  return impl_->sources();
}

}  // namespace dssim
