// SPDX-License-Identifier: Apache-2.0
#pragma once

// The links of a cluster and the exact route between any two GPUs, or a GPU and its node's host memory. Routes follow
// from arithmetic on the GPU numbers; nothing is stored per GPU.
//
// Endpoints: GPU i is endpoint i; the host memory of node n is endpoint gpus + n.
// Links, each in both directions: NVLink port of a GPU (nvswitch), NVLink or xGMI link of a pair (meshes, bridges),
// PCIe of a GPU, uplink of a PCIe switch, link between sockets, host memory, NIC port, uplinks of a leaf (only where
// oversubscribed).
//
//   same node    nvswitch       nvlink_up(a) nvlink_down(b)
//                mesh, pairs    the pair's link; pairs without one take PCIe
//                pcie_p2p       pcie_up(a) [switch_up] [socket] [switch_down] pcie_down(b)
//                pcie_host      pcie_up(a) [switch_up] memory [socket] memory [switch_down] pcie_down(b)
//   other node   same leaf      pcie_up(a) nic_up nic_down pcie_down(b)
//                other leaf     pcie_up(a) nic_up [leaf_up leaf_down] nic_down pcie_down(b)
//                without GPUDirect, host memory on both sides as well
// On a rail-optimised fabric NIC r of every node of a pod hangs on leaf r, so two GPUs on different rails meet in the
// spine. Instead of leaves and NIC ports a torus has one port to each neighbour of a node, and a dragonfly has links
// between the leaves of a group and between groups (platforms/fabric_shape.hpp).
//
// A link listed in [cluster.degraded] has that share of its rate.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "platforms/cluster.hpp"
#include "platforms/fabric_shape.hpp"
#include "sim/engine/topology.hpp"

namespace dssim {

enum class PathKind { same, nvlink, pcie, host, network };
std::string_view name_of(PathKind kind);  // "through host memory", …

struct Path {
  PathKind kind = PathKind::same;
  double bytes_per_s = 0;  // of the slowest link, efficiency included; infinity for `same`
  double latency_s = 0;
  std::vector<std::string> links;
};

class ClusterNetwork final : public Topology {
 public:
  explicit ClusterNetwork(const Cluster& cluster);  // copies what it needs
  ClusterNetwork(const ClusterNetwork&) = delete;
  ClusterNetwork& operator=(const ClusterNetwork&) = delete;

  EndpointId gpu(int index) const { return static_cast<EndpointId>(index); }
  EndpointId host(int node) const { return static_cast<EndpointId>(gpus_ + node); }
  Path path(EndpointId source, EndpointId destination) const;
  // As route(), and what kind of path it is.
  PathKind walk(EndpointId source, EndpointId destination, Route& into) const;

  // Where a GPU has links of its own to each other GPU of its node (meshes), so that a ring may run over all of them at
  // once.
  bool is_mesh() const;
  // Null where the fabric is no torus.
  const TorusShape* torus() const { return torus_links_.count > 0 ? &torus_ : nullptr; }
  int node_of(int gpu_index) const { return gpu_index / per_node_; }

  uint32_t endpoint_count() const override;
  uint32_t link_count() const override;
  double link_bytes_per_s(LinkId link) const override;
  std::string link_name(LinkId link) const override;
  void route(EndpointId source, EndpointId destination, Route& into) const override;

 private:
  // One kind of link: how many there are, numbered from `base`, and what each carries.
  struct LinkGroup {
    const char* name = "";
    LinkId base = 0, count = 0;
    double bytes_per_s = 0;
    LinkId at(int index) const { return base + static_cast<LinkId>(index); }
  };
  struct Place {
    int node, slot;  // slot −1: the node's host memory
    bool is_host() const { return slot < 0; }
  };

  void lay_out();
  void add(LinkGroup& group, const char* name, int64_t count, double bytes_per_s);
  Place place(EndpointId endpoint) const;
  int socket_of(int slot) const { return slot * node_.sockets / node_.gpus; }
  int nic_of(int slot) const { return slot < 0 ? 0 : slot * nics_ / node_.gpus; }
  int leaf_of(int node, int nic) const;
  int pair_links(int slot_a, int slot_b) const;
  PathKind walk_inside(Place a, Place b, Route& into) const;
  void lay_out_fabric();
  void degrade(const Cluster& cluster);
  void walk_torus(Place a, Place b, Route& into) const;
  void walk_leaves(Place a, Place b, Route& into) const;
  void walk_outside(Place a, Place b, Route& into) const;
  void to_root(Place a, std::vector<LinkId>& links) const;
  void from_root(Place b, std::vector<LinkId>& links) const;

  Gpu gpu_;
  Node node_;
  std::optional<Fabric> fabric_;
  int nodes_ = 1, gpus_ = 0, per_node_ = 1, nics_ = 0, switches_ = 0;
  LinkGroup link_up_, link_down_, pair_, pcie_up_, pcie_down_, switch_up_, switch_down_, socket_, memory_write_,
      memory_read_, nic_up_, nic_down_, leaf_up_, leaf_down_, torus_links_, local_, global_;
  std::vector<LinkGroup*> groups_;
  LinkId links_ = 0;
  TorusShape torus_;
  DragonflyShape dragonfly_;
  std::map<LinkId, double> degraded_;  // share of the rate
};

}  // namespace dssim
