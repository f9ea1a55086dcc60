// SPDX-License-Identifier: Apache-2.0
#include "sim/network/ring_all_reduce.hpp"

#include <algorithm>
#include <limits>
#include <map>
#include <vector>

namespace dssim {
namespace {

// NCCL's figures for its ring (src/graph/tuning.cc). LL sends a flag with every 4 bytes, LL128 8 bytes of flag in 128,
// which needs NVLink's ordering; Simple sends bare data and waits for whole chunks.
struct Protocol {
  double base_s;
  double nvlink_step_s, pcie_step_s;
  double network_step_s;
  double network_step_alone_s;  // one GPU a node: no step inside a node hides it
  double bandwidth_share;
  bool needs_nvlink;
};
constexpr Protocol kLL{6.6e-6, 0.6e-6, 1.0e-6, 2.7e-6, 5.0e-6, 0.5, false};
constexpr Protocol kLL128{14.0e-6, 1.9e-6, 2.5e-6, 4.0e-6, 8.5e-6, 0.92, true};
constexpr Protocol kSimple{8.4e-6, 3.4e-6, 5.7e-6, 14.0e-6, 14.0e-6, 1.0, false};

// How much of the ring's traffic each link carries; the busiest link sets the pace.
class Load {
 public:
  explicit Load(const ClusterNetwork& network) : network_(network) {}

  void add(const Route& route, double share) {
    for (const LinkId link : route.links) share_[link] += share;
  }
  double bytes_per_s() const {
    double least = std::numeric_limits<double>::infinity();
    for (const auto& [link, share] : share_) least = std::min(least, network_.link_bytes_per_s(link) / share);
    return least;
  }

 private:
  const ClusterNetwork& network_;
  std::map<LinkId, double> share_;
};

std::vector<std::vector<int>> by_node(const ClusterNetwork& network, std::span<const int> gpus) {
  std::map<int, std::vector<int>> members;
  for (const int gpu : gpus) members[network.node_of(gpu)].push_back(gpu);
  std::vector<std::vector<int>> nodes;
  for (auto& [node, in_node] : members) {
    std::sort(in_node.begin(), in_node.end());  // NCCL orders a ring by place, not by rank
    nodes.push_back(std::move(in_node));
  }
  return nodes;
}

}  // namespace

RingAllReduce::RingAllReduce(const ClusterNetwork& network, std::span<const int> gpus)
    : gpus_(static_cast<int>(gpus.size())), bytes_per_s_(std::numeric_limits<double>::infinity()) {
  const auto nodes = by_node(network, gpus);
  nodes_ = static_cast<int>(nodes.size());
  size_t channels = gpus.size();
  for (const auto& members : nodes) {
    take_paths_inside(network, members);
    channels = std::min(channels, members.size());
  }
  one_per_node_ = gpus_ == nodes_;
  if (nodes_ < 2) return;
  // One channel through each GPU of a node, so that every NIC the group has takes its share.
  Load load(network);
  Route route;
  for (size_t n = 0; n < nodes.size(); ++n) {
    for (size_t c = 0; c < channels; ++c) {
      const int from = nodes[n][c], to = nodes[(n + 1) % nodes.size()][c];
      const PathKind kind = network.walk(network.gpu(from), network.gpu(to), route);
      if (kind != PathKind::nvlink) network_latency_s_ = std::max(network_latency_s_, route.latency_s);
      load.add(route, 1.0 / static_cast<double>(channels));
    }
  }
  bytes_per_s_ = std::min(bytes_per_s_, load.bytes_per_s());
}

void RingAllReduce::take_paths_inside(const ClusterNetwork& network, std::span<const int> members) {
  if (members.size() < 2) return;
  Load load(network);
  Route route;
  bool nvlink = true;
  double mesh_bytes_per_s = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < members.size(); ++i) {
    const EndpointId from = network.gpu(members[i]);
    if (network.is_mesh()) {
      // Rings over a mesh use every link between the members at once.
      double links = 0;
      for (const int other : members) {
        if (other == members[i] || network.walk(from, network.gpu(other), route) != PathKind::nvlink) continue;
        links += network.link_bytes_per_s(route.links.front());
      }
      mesh_bytes_per_s = std::min(mesh_bytes_per_s, links);
    }
    const PathKind kind = network.walk(from, network.gpu(members[(i + 1) % members.size()]), route);
    nvlink = nvlink && kind == PathKind::nvlink;
    load.add(route, 1.0);
  }
  const bool over_mesh = network.is_mesh() && mesh_bytes_per_s > 0;
  inside_nvlink_ = inside_nvlink_ && (nvlink || over_mesh);
  bytes_per_s_ = std::min(bytes_per_s_, over_mesh ? mesh_bytes_per_s : load.bytes_per_s());
}

double RingAllReduce::time_s(double bytes) const {
  if (gpus_ < 2) return 0;
  const bool over_network = network_latency_s_ > 0;
  const int network_steps = over_network ? 2 * (nodes_ - 1) : 0;
  const int inside_steps = 2 * (gpus_ - 1) - network_steps;
  const double on_the_bus = 2.0 * (gpus_ - 1) / gpus_ * bytes;
  double best = std::numeric_limits<double>::infinity();
  for (const Protocol& protocol : {kLL, kLL128, kSimple}) {
    if (protocol.needs_nvlink && (!inside_nvlink_ || over_network)) continue;
    const double inside_s = inside_nvlink_ ? protocol.nvlink_step_s : protocol.pcie_step_s;
    const double step_s = one_per_node_ ? protocol.network_step_alone_s : protocol.network_step_s;
    const double latency_s =
        protocol.base_s + inside_steps * inside_s + network_steps * std::max(step_s, network_latency_s_);
    best = std::min(best, latency_s + on_the_bus / (bytes_per_s_ * protocol.bandwidth_share));
  }
  return best;
}

}  // namespace dssim
