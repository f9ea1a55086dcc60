// SPDX-License-Identifier: Apache-2.0
#include "sim/network/collective_group.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/base/error.hpp"

namespace dssim {
namespace {

// InfiniBand, two GPUs on one leaf, 64 bytes: DeepSeek-V3 hardware paper (ISCA 2025, arXiv 2505.09343), table 5.
constexpr double kInfinibandLatency_s = 2.8e-6;

int nic_of(const Cluster& cluster, int gpu) {
  return cluster.slot_of(gpu) * cluster.nics_per_node() / cluster.node.gpus;
}

// The first member on each (node, NIC) of a domain.
std::vector<int> heads_of(const Cluster& cluster, const std::vector<int>& members) {
  std::vector<int> heads;
  int last_node = -1, last_nic = -1;
  for (const int gpu : members) {
    const int node = cluster.node_of(gpu), nic = nic_of(cluster, gpu);
    if (node == last_node && nic == last_nic) continue;
    heads.push_back(gpu);
    last_node = node;
    last_nic = nic;
  }
  return heads;
}

// Empty where some member has no link to another one of its domain.
std::vector<CollectiveGroup::MeshLink> mesh_links(const ClusterNetwork& network, const CollectiveGroup& group) {
  std::vector<CollectiveGroup::MeshLink> links;
  Route route;
  for (const auto& members : group.domains) {
    for (const int from : members) {
      const size_t first = links.size();
      double all = 0;
      for (const int to : members) {
        if (to == from || network.walk(network.gpu(from), network.gpu(to), route) != PathKind::nvlink) continue;
        links.push_back({from, to, network.link_bytes_per_s(route.links.front())});
        all += links.back().share;
      }
      if (all == 0) return {};
      for (size_t i = first; i < links.size(); ++i) links[i].share /= all;
    }
  }
  return links;
}

void find_links(const Cluster& cluster, const ClusterNetwork& network, CollectiveGroup& group) {
  const auto& members = *std::max_element(group.domains.begin(), group.domains.end(),
                                          [](auto& a, auto& b) { return a.size() < b.size(); });
  group.largest_domain = static_cast<int>(members.size());
  group.nvlink = members.size() > 1;
  for (size_t i = 0; i < members.size() && group.nvlink; ++i) {
    const int next = members[(i + 1) % members.size()];
    group.nvlink = network.path(network.gpu(members[i]), network.gpu(next)).kind == PathKind::nvlink;
  }
  const Interconnect kind = cluster.node.interconnect;
  if (members.size() > 1 && network.is_mesh()) group.mesh_links = mesh_links(network, group);
  group.mesh = !group.mesh_links.empty();
  group.nvlink = group.nvlink || group.mesh;
  group.switched = group.nvlink && !group.mesh && kind != Interconnect::nvlink_pairs;
}

}  // namespace

CollectiveGroup make_group(const Cluster& cluster, const ClusterNetwork& network, std::span<const int> gpus) {
  CollectiveGroup group;
  if (gpus.empty()) throw failure("a collective of no GPU");
  group.order.assign(gpus.begin(), gpus.end());
  group.gpus = static_cast<int>(gpus.size());
  std::vector<int> sorted = group.order;
  std::sort(sorted.begin(), sorted.end());
  if (sorted.front() < 0 || sorted.back() >= cluster.gpus)
    throw failure(fmt::format("a collective names GPU {} of {}", sorted.front() < 0 ? sorted.front() : sorted.back(),
                              cluster.gpus));
  if (const auto twice = std::adjacent_find(sorted.begin(), sorted.end()); twice != sorted.end())
    throw failure(fmt::format("a collective names GPU {} twice", *twice));

  const int nodes_per_domain = cluster.fabric ? std::max(1, cluster.fabric->nvlink_domain_nodes) : 1;
  int last = -1;
  for (const int gpu : sorted) {
    const int domain = cluster.node_of(gpu) / nodes_per_domain;
    if (domain != last) group.domains.emplace_back();
    last = domain;
    group.domains.back().push_back(gpu);
    if (cluster.node_of(gpu) != cluster.node_of(group.domains.back().front())) group.domain_spans_nodes = true;
  }
  find_links(cluster, network, group);
  if (group.domain_count() == 1) return group;

  if (network.torus() != nullptr && group.domain_count() == cluster.nodes) group.torus = *network.torus();
  size_t rails = group.domains.front().size();
  for (const auto& members : group.domains) {
    group.heads.push_back(heads_of(cluster, members));
    rails = std::min(rails, group.heads.back().size());
  }
  group.rails = static_cast<int>(rails);
  group.gpu_direct = cluster.fabric->gpu_direct;
  group.extra_network_s = std::max(0.0, cluster.fabric->cross_leaf_latency_s - kInfinibandLatency_s);
  return group;
}

}  // namespace dssim
