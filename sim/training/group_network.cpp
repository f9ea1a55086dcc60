// SPDX-License-Identifier: Apache-2.0
#include "sim/training/group_network.hpp"

#include <algorithm>
#include <cassert>
#include <set>

namespace dssim {
namespace {

// Large enough that every collective runs at its bandwidth: how links are shared does not depend on it.
constexpr double kReferenceBytes = 1e9;

bool is_fabric_link(const std::string& name) {
  return name.find("nic") != std::string::npos || name.find("leaf") != std::string::npos ||
         name.find("spine") != std::string::npos;
}

double busiest_seconds(const ClusterNetwork& network, const std::map<LinkId, double>& loads,
                       const std::map<LinkId, double>& of) {
  double worst = 0;
  for (const auto& [link, bytes] : of)
    if (const auto at = loads.find(link); at != loads.end())
      worst = std::max(worst, at->second / network.link_bytes_per_s(link));
  return worst;
}

}  // namespace

GroupNetwork::GroupNetwork(const Cluster& cluster, const ClusterNetwork& network, const CollectiveModel& collectives,
                           int gpus)
    : cluster_(cluster), network_(network), collectives_(collectives), gpus_(gpus) {
  if (cluster.gpus_per_node() > 1) node_link_bytes_per_s_ = network.path(network.gpu(0), network.gpu(1)).bytes_per_s;
  if (cluster.fabric && cluster.nodes > 1)
    fabric_bytes_per_s_ = network.path(network.gpu(0), network.gpu(cluster.gpus_per_node())).bytes_per_s;
}

bool GroupNetwork::spans_nodes(Group group) const {
  return (group.size - 1) * group.stride >= cluster_.gpus_per_node();
}

std::vector<int> GroupNetwork::members(Group group, int first) const {
  std::vector<int> gpus(static_cast<size_t>(group.size));
  for (int i = 0; i < group.size; ++i) gpus[static_cast<size_t>(i)] = first + i * group.stride;
  return gpus;
}

std::map<LinkId, double> GroupNetwork::loads(const std::vector<Flow>& flows) {
  std::map<LinkId, double> bytes;
  Route route;
  for (const auto& flow : flows) {
    network_.route(network_.gpu(flow.source), network_.gpu(flow.destination), route);
    for (const LinkId link : route.links) bytes[link] += flow.bytes;
  }
  flows_ += flows.size();
  return bytes;
}

LinkLoad GroupNetwork::busiest(const std::map<LinkId, double>& loads) const {
  LinkLoad load;
  for (const auto& [link, bytes] : loads) {
    // Leaf and spine links gather the traffic of many NICs and are as much faster: what counts is the time.
    if (is_fabric_link(network_.link_name(link)))
      load.fabric_bytes = std::max(load.fabric_bytes, bytes * (fabric_bytes_per_s_ / network_.link_bytes_per_s(link)));
    else
      load.node_link_bytes = std::max(load.node_link_bytes, bytes);
  }
  return load;
}

const GroupNetwork::Shared& GroupNetwork::shared(CollectiveKind kind, Group group) {
  const auto [at, is_new] = shared_.try_emplace({kind, group.stride, group.size});
  if (!is_new) return at->second;
  const auto flows_of = [&](int first) {
    const auto gpus = members(group, first);
    std::vector<Flow> flows;
    for (const auto& f : collectives_.flows({kind, kReferenceBytes, gpus}))
      flows.push_back({f.source, f.destination, f.bytes});
    return flows;
  };
  const auto alone_flows = flows_of(0);
  const auto alone = loads(alone_flows);
  auto together = alone;
  std::set<int> firsts;
  for (int gpu = 0; gpu < std::min(cluster_.gpus_per_node(), gpus_); ++gpu)
    firsts.insert(gpu / group.block() * group.block() + gpu % group.block() % group.stride);
  firsts.erase(0);
  for (const int first : firsts)
    if (first + group.stride * (group.size - 1) < gpus_)
      for (const auto& [link, bytes] : loads(flows_of(first))) together[link] += bytes;
  const double before = busiest_seconds(network_, alone, alone), after = busiest_seconds(network_, together, alone);
  at->second.factor = before > 0 ? after / before : 1;
  at->second.per_byte = busiest(together);
  at->second.per_byte.node_link_bytes /= kReferenceBytes;
  at->second.per_byte.fabric_bytes /= kReferenceBytes;
  return at->second;
}

double GroupNetwork::seconds(CollectiveKind kind, Group group, double bytes) {
  if (group.size <= 1 || bytes <= 0) return 0;
  const auto [at, is_new] = times_.try_emplace({kind, group.stride, group.size, bytes});
  if (is_new) {
    const auto gpus = members(group, 0);
    at->second = collectives_.time({kind, bytes, gpus});
  }
  return at->second.latency_s + at->second.bandwidth_s() * shared(kind, group).factor;
}

double GroupNetwork::latency_s(CollectiveKind kind, Group group, double bytes) {
  if (group.size <= 1 || bytes <= 0) return 0;
  seconds(kind, group, bytes);
  return times_.at({kind, group.stride, group.size, bytes}).latency_s;
}

double GroupNetwork::wire_seconds(CollectiveKind kind, Group group, double bytes) const {
  if (group.size <= 1 || node_link_bytes_per_s_ <= 0) return 0;
  return bytes * bus_bandwidth_factor(kind, group.size) / node_link_bytes_per_s_;
}

double GroupNetwork::send_seconds(int stride, double bytes, bool both) {
  if (bytes <= 0) return 0;
  const auto [at, is_new] = sends_.try_emplace({stride, both});
  const Path path = network_.path(network_.gpu(0), network_.gpu(stride));
  if (is_new) {
    std::vector<Flow> flows;
    for (int gpu = 0; gpu < std::min(cluster_.gpus_per_node(), gpus_ - stride); ++gpu) {
      flows.push_back({gpu, gpu + stride, 1.0});
      if (both) flows.push_back({gpu + stride, gpu, 1.0});
    }
    const auto all = loads(flows), own = loads({{0, stride, 1.0}});
    at->second = {busiest_seconds(network_, all, own), busiest(all)};
  }
  return path.latency_s + bytes * at->second.first;
}

LinkLoad GroupNetwork::load(CollectiveKind kind, Group group, double bytes) {
  if (group.size <= 1 || bytes <= 0) return {};
  const LinkLoad per_byte = shared(kind, group).per_byte;
  return {per_byte.node_link_bytes * bytes, per_byte.fabric_bytes * bytes};
}

LinkLoad GroupNetwork::send_load(int stride, double bytes, bool both) {
  if (bytes <= 0) return {};
  send_seconds(stride, bytes, both);
  const LinkLoad per_byte = sends_.at({stride, both}).second;
  return {per_byte.node_link_bytes * bytes, per_byte.fabric_bytes * bytes};
}

}  // namespace dssim
