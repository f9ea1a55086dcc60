// SPDX-License-Identifier: Apache-2.0
#include "platforms/cluster_network.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cassert>
#include <limits>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"

namespace dssim {

std::string_view name_of(PathKind kind) {
  constexpr std::array<std::string_view, 5> kNames{"the same GPU", "NVLink", "PCIe", "through host memory", "network"};
  return kNames[static_cast<size_t>(kind)];
}

ClusterNetwork::ClusterNetwork(const Cluster& cluster)
    : gpu_(cluster.gpu),
      node_(cluster.node),
      fabric_(cluster.fabric),
      nodes_(cluster.nodes),
      gpus_(cluster.gpus),
      per_node_(cluster.gpus_per_node()),
      nics_(cluster.nics_per_node()) {
  if (gpu_.pcie_bytes_per_s <= 0)
    throw bad_input(fmt::format("gpu {}: pcie: its link to the host is needed and unknown", gpu_.name));
  lay_out();
  degrade(cluster);
}

void ClusterNetwork::add(LinkGroup& group, const char* name, int64_t count, double bytes_per_s) {
  if (count > std::numeric_limits<int>::max() - static_cast<int64_t>(links_))
    throw cannot_run("this cluster has more links than can be numbered");
  group = {name, links_, static_cast<LinkId>(count), bytes_per_s};
  links_ += group.count;
  if (count > 0) groups_.push_back(&group);
}

void ClusterNetwork::lay_out() {
  using enum Interconnect;
  const double link = gpu_.nvlink_bytes_per_s * node_.link_efficiency;
  const double pcie = gpu_.pcie_bytes_per_s * node_.pcie_efficiency;
  const bool switched = node_.interconnect == nvswitch;
  const bool paired =
      node_.interconnect == nvlink_mesh || node_.interconnect == xgmi_mesh || node_.interconnect == nvlink_pairs;
  if ((node_.interconnect == nvswitch || paired) && link <= 0)
    throw bad_input(fmt::format("node {}: interconnect: '{}' needs a GPU with NVLink, and {} has none", node_.name,
                                name_of(node_.interconnect), gpu_.name));
  // A pair's share of its GPU's links; a bridge has them all.
  double of_pair = link;
  if (paired && node_.interconnect != nvlink_pairs) {
    int links = 0;
    for (int other = 1; other < node_.gpus; ++other) links += pair_links(0, other);
    of_pair = links > 0 ? link / links : link;
  }
  switches_ = node_.gpus_per_switch > 0 ? (node_.gpus + node_.gpus_per_switch - 1) / node_.gpus_per_switch : 0;
  const double no_limit = 1e15;  // bytes/s, where nothing is known to limit
  // Every staged byte is written to memory and read from it, so each direction has half of what the memory does in all.
  const double memory = node_.host_memory_bytes_per_s > 0 ? node_.host_memory_bytes_per_s / 2 : no_limit;
  const double socket = node_.socket_link_bytes_per_s > 0 ? node_.socket_link_bytes_per_s : no_limit;
  const int64_t nodes = nodes_;
  add(link_up_, "nvlink_up", switched ? gpus_ : 0, link);
  add(link_down_, "nvlink_down", switched ? gpus_ : 0, link);
  add(pair_, "pair", paired ? nodes * node_.gpus * node_.gpus : 0, of_pair);
  add(pcie_up_, "pcie_up", gpus_, pcie);
  add(pcie_down_, "pcie_down", gpus_, pcie);
  add(switch_up_, "switch_up", nodes * switches_, pcie);
  add(switch_down_, "switch_down", nodes * switches_, pcie);
  add(socket_, "socket_out", node_.sockets > 1 ? nodes * node_.sockets : 0, socket);
  add(memory_write_, "memory_write", nodes, memory);
  add(memory_read_, "memory_read", nodes, memory);
  if (fabric_ && nodes_ > 1) lay_out_fabric();
}

void ClusterNetwork::lay_out_fabric() {
  const double port = fabric_->nic_bytes_per_s * fabric_->efficiency;
  if (fabric_->topology == FabricTopology::torus) {
    torus_ = TorusShape(nodes_, fabric_->dimensions);
    return add(torus_links_, "torus", torus_.link_count(), port);
  }
  const int64_t nodes = nodes_;
  add(nic_up_, "nic_up", nodes * nics_, port);
  add(nic_down_, "nic_down", nodes * nics_, port);
  const double leaf_ports = static_cast<double>(fabric_->nodes_per_leaf) * nics_;
  if (fabric_->topology == FabricTopology::dragonfly) {
    // Balanced as its authors have it: a leaf has as many ports to other groups as it has down, and twice as many to
    // the leaves of its group.
    const int leaves = fabric_->leaves_per_group;
    dragonfly_ = DragonflyShape(nodes_, fabric_->nodes_per_leaf, leaves);
    const double upward = leaf_ports * port / fabric_->oversubscription;
    add(local_, "local", dragonfly_.local_count(), 2 * upward / std::max(1, leaves - 1));
    return add(global_, "global", dragonfly_.global_count(), leaves * upward / std::max(1, dragonfly_.groups() - 1));
  }
  if (fabric_->oversubscription <= 1) return;
  const bool rails = fabric_->topology == FabricTopology::rail_optimised;
  const int64_t pods = (nodes + fabric_->nodes_per_leaf - 1) / fabric_->nodes_per_leaf;
  const int64_t switches = rails ? pods * nics_ : pods;
  const double ports = rails ? fabric_->nodes_per_leaf : leaf_ports;
  add(leaf_up_, "leaf_up", switches, ports * port / fabric_->oversubscription);
  add(leaf_down_, "leaf_down", switches, ports * port / fabric_->oversubscription);
}

void ClusterNetwork::degrade(const Cluster& cluster) {
  for (const auto& [name, share, where] : cluster.degraded) {
    const auto group = std::find_if(groups_.begin(), groups_.end(),
                                    [&](const LinkGroup* g) { return name.starts_with(std::string(g->name) + "["); });
    LinkId link = 0, end = 0;
    if (group != groups_.end()) {
      link = (*group)->base;
      end = link + (*group)->count;
    }
    while (link < end && link_name(link) != name) ++link;
    if (link == end) {
      std::vector<std::string> examples;
      for (const LinkGroup* g : groups_) examples.push_back(link_name(g->base));
      throw bad_input(
          fmt::format("{}: this cluster has no such link; it has {} and so on", where, join(examples, ", ")));
    }
    degraded_[link] = share;
  }
}

uint32_t ClusterNetwork::endpoint_count() const {
  return static_cast<uint32_t>(gpus_ + nodes_);
}
uint32_t ClusterNetwork::link_count() const {
  return links_;
}

double ClusterNetwork::link_bytes_per_s(LinkId link) const {
  for (const LinkGroup* group : groups_) {
    if (link - group->base >= group->count) continue;
    double rate = group->bytes_per_s;
    if (group == &pair_) {
      const int index = static_cast<int>(link - group->base) % (node_.gpus * node_.gpus);
      rate *= std::max(1, pair_links(index / node_.gpus, index % node_.gpus));
    }
    const auto share = degraded_.find(link);
    return share == degraded_.end() ? rate : rate * share->second;
  }
  return 0;
}

std::string ClusterNetwork::link_name(LinkId link) const {
  for (const LinkGroup* group : groups_) {
    if (link - group->base >= group->count) continue;
    const int index = static_cast<int>(link - group->base);
    const int n = node_.gpus;
    if (group == &pair_) return fmt::format("pair[{}.{}-{}]", index / (n * n), index / n % n, index % n);
    return fmt::format("{}[{}]", group->name, index);
  }
  return "";
}

ClusterNetwork::Place ClusterNetwork::place(EndpointId endpoint) const {
  const int index = static_cast<int>(endpoint);
  if (index >= gpus_) return {index - gpus_, -1};
  return {index / per_node_, index % per_node_};
}

int ClusterNetwork::leaf_of(int node, int nic) const {
  const int pod = node / fabric_->nodes_per_leaf;
  return fabric_->topology == FabricTopology::rail_optimised ? pod * nics_ + nic : pod;
}

int ClusterNetwork::pair_links(int a, int b) const {
  if (a == b) return 0;
  if (node_.interconnect == Interconnect::nvlink_pairs) return a / 2 == b / 2 ? 1 : 0;
  if (node_.mesh.empty()) return 1;
  return node_.mesh[static_cast<size_t>(a) * (static_cast<size_t>(node_.gpus) + 1) + static_cast<size_t>(b)] - '0';
}

void ClusterNetwork::to_root(Place a, std::vector<LinkId>& links) const {
  if (a.is_host()) return;
  links.push_back(pcie_up_.at(a.node * per_node_ + a.slot));
  if (switches_ > 0) links.push_back(switch_up_.at(a.node * switches_ + a.slot / node_.gpus_per_switch));
}

void ClusterNetwork::from_root(Place b, std::vector<LinkId>& links) const {
  if (b.is_host()) return;
  if (switches_ > 0) links.push_back(switch_down_.at(b.node * switches_ + b.slot / node_.gpus_per_switch));
  links.push_back(pcie_down_.at(b.node * per_node_ + b.slot));
}

PathKind ClusterNetwork::walk_inside(Place a, Place b, Route& into) const {
  std::vector<LinkId>& links = into.links;
  const bool both_gpus = !a.is_host() && !b.is_host();
  if (both_gpus && node_.interconnect == Interconnect::nvswitch) {
    links = {link_up_.at(a.node * per_node_ + a.slot), link_down_.at(b.node * per_node_ + b.slot)};
    into.latency_s = node_.link_latency_s;
    return PathKind::nvlink;
  }
  if (both_gpus && pair_.count > 0 && pair_links(a.slot, b.slot) > 0) {
    links = {pair_.at((a.node * node_.gpus + a.slot) * node_.gpus + b.slot)};
    into.latency_s = node_.link_latency_s;
    return PathKind::nvlink;
  }
  into.latency_s = node_.pcie_latency_s;
  const bool through_memory = !both_gpus || node_.interconnect == Interconnect::pcie_host;
  const bool same_switch =
      both_gpus && switches_ > 0 && a.slot / node_.gpus_per_switch == b.slot / node_.gpus_per_switch;
  if (!through_memory && same_switch) {
    links = {pcie_up_.at(a.node * per_node_ + a.slot), pcie_down_.at(b.node * per_node_ + b.slot)};
    return PathKind::pcie;
  }
  to_root(a, links);
  if (both_gpus && socket_.count > 0 && socket_of(a.slot) != socket_of(b.slot))
    links.push_back(socket_.at(a.node * node_.sockets + socket_of(a.slot)));
  if (through_memory && !a.is_host()) links.push_back(memory_write_.at(a.node));
  if (through_memory && !b.is_host()) links.push_back(memory_read_.at(b.node));
  from_root(b, links);
  if (!both_gpus) return PathKind::host;
  if (!through_memory) return PathKind::pcie;
  into.latency_s += node_.pcie_latency_s;  // in and out again
  return PathKind::host;
}

void ClusterNetwork::walk_torus(Place a, Place b, Route& into) const {
  std::vector<int> hops;
  torus_.path(a.node, b.node, hops);
  for (const int hop : hops) into.links.push_back(torus_links_.at(hop));
  into.latency_s = fabric_->same_leaf_latency_s + static_cast<double>(hops.size() - 1) *
                                                      (fabric_->cross_leaf_latency_s - fabric_->same_leaf_latency_s);
}

void ClusterNetwork::walk_leaves(Place a, Place b, Route& into) const {
  const int from_nic = nic_of(a.slot), to_nic = nic_of(b.slot);
  const int from_leaf = leaf_of(a.node, from_nic), to_leaf = leaf_of(b.node, to_nic);
  const bool same_leaf = from_leaf == to_leaf;
  into.latency_s = same_leaf ? fabric_->same_leaf_latency_s : fabric_->cross_leaf_latency_s;
  into.links.push_back(nic_up_.at(a.node * nics_ + from_nic));
  if (local_.count > 0) {
    std::vector<int> locals, globals;
    dragonfly_.path(a.node, b.node, locals, globals);
    for (const int link : locals) into.links.push_back(local_.at(link));
    for (const int link : globals) into.links.push_back(global_.at(link));
    if (!globals.empty()) into.latency_s += fabric_->cross_leaf_latency_s - fabric_->same_leaf_latency_s;
  } else if (!same_leaf && leaf_up_.count > 0) {
    into.links.push_back(leaf_up_.at(from_leaf));
    into.links.push_back(leaf_down_.at(to_leaf));
  }
  into.links.push_back(nic_down_.at(b.node * nics_ + to_nic));
}

void ClusterNetwork::walk_outside(Place a, Place b, Route& into) const {
  std::vector<LinkId>& links = into.links;
  if (!a.is_host()) {
    links.push_back(pcie_up_.at(a.node * per_node_ + a.slot));
    if (!fabric_->gpu_direct) links.push_back(memory_write_.at(a.node));
  }
  if (a.is_host() || !fabric_->gpu_direct) links.push_back(memory_read_.at(a.node));
  if (torus_links_.count > 0)
    walk_torus(a, b, into);
  else
    walk_leaves(a, b, into);
  if (b.is_host() || !fabric_->gpu_direct) links.push_back(memory_write_.at(b.node));
  if (!b.is_host()) {
    if (!fabric_->gpu_direct) links.push_back(memory_read_.at(b.node));
    links.push_back(pcie_down_.at(b.node * per_node_ + b.slot));
  }
  if (!fabric_->gpu_direct) into.latency_s += ((a.is_host() ? 0 : 1) + (b.is_host() ? 0 : 1)) * node_.pcie_latency_s;
}

PathKind ClusterNetwork::walk(EndpointId source, EndpointId destination, Route& into) const {
  into.links.clear();
  into.latency_s = 0;
  if (source == destination) return PathKind::same;
  const Place a = place(source), b = place(destination);
  if (a.node == b.node) return walk_inside(a, b, into);
  assert(fabric_);
  const int domain = fabric_->nvlink_domain_nodes;
  if (domain > 1 && link_up_.count > 0 && !a.is_host() && !b.is_host() && a.node / domain == b.node / domain) {
    into.links = {link_up_.at(static_cast<int>(source)), link_down_.at(static_cast<int>(destination))};
    into.latency_s = node_.link_latency_s;
    return PathKind::nvlink;
  }
  walk_outside(a, b, into);
  return PathKind::network;
}

bool ClusterNetwork::is_mesh() const {
  return node_.interconnect == Interconnect::nvlink_mesh || node_.interconnect == Interconnect::xgmi_mesh;
}

void ClusterNetwork::route(EndpointId source, EndpointId destination, Route& into) const {
  walk(source, destination, into);
}

Path ClusterNetwork::path(EndpointId source, EndpointId destination) const {
  Route route;
  Path path;
  path.kind = walk(source, destination, route);
  path.latency_s = route.latency_s;
  path.bytes_per_s = std::numeric_limits<double>::infinity();
  for (const LinkId link : route.links) {
    path.bytes_per_s = std::min(path.bytes_per_s, link_bytes_per_s(link));
    path.links.push_back(link_name(link));
  }
  return path;
}

}  // namespace dssim
