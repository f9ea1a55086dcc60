// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long a collective takes when every group of its kind runs it at the same time, as they do in training: each
// tensor group, each data group, each pair of neighbouring stages.
//
// Model: a group is {first, first + stride, …}; the groups of one kind tile the cluster. Time = latency term +
// bandwidth term of one group alone × sharing, where sharing is how much more the busiest link of the representative
// group (GPU 0's) carries from all groups that touch GPU 0's node than from that group alone; where nodes share links
// of the fabric (an oversubscribed leaf, a torus, a dragonfly), from all groups of the cluster. Node 0 stands for all
// nodes: they are alike. Remembered per (kind, stride, size) and per bytes. Link loads are kept for the report's
// utilisation. Units: seconds, bytes. Tested by tests/invariant/training_test.cpp.

#include <algorithm>
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "sim/network/collective.hpp"

namespace dssim {

struct Group {
  int stride = 1, size = 1;
  int block() const { return stride * size; }
};

// What the busiest link of each sort carries in one direction, and how long that keeps it busy. Links of a sort are
// alike, so that loads of several collectives add up sort by sort.
enum class LinkSort : uint8_t { nvlink, pcie, host, nic, fabric };  // fabric: between leaves, nodes of a torus, groups
struct LinkUse {
  double bytes = 0, seconds = 0;
};
struct LinkLoad {
  std::array<LinkUse, 5> by_sort{};

  LinkUse& of(LinkSort sort) { return by_sort[static_cast<size_t>(sort)]; }
  const LinkUse& of(LinkSort sort) const { return by_sort[static_cast<size_t>(sort)]; }
  void add(const LinkLoad& other, double times);
  LinkUse node_link() const;  // the busiest inside the node
  LinkUse fabric() const;     // NIC, or anything behind it
};

class GroupNetwork {
 public:
  // Both must outlive this. GPUs 0 … gpus−1 of the cluster take part.
  GroupNetwork(const Cluster& cluster, const ClusterNetwork& network, const CollectiveModel& collectives, int gpus);

  double seconds(CollectiveKind kind, Group group, double bytes);
  // The part of it that more bandwidth does not shorten.
  double latency_s(CollectiveKind kind, Group group, double bytes);
  // Sends of `bytes` from every GPU to the one `stride` further on, in both directions where `both`.
  double send_seconds(int stride, double bytes, bool both);
  // What the group's wire bytes would take over the node's own links at the rate of a large transfer.
  double wire_seconds(CollectiveKind kind, Group group, double bytes) const;

  LinkLoad load(CollectiveKind kind, Group group, double bytes);
  LinkLoad send_load(int stride, double bytes, bool both);
  double node_link_bytes_per_s() const { return node_link_bytes_per_s_; }
  double fabric_bytes_per_s() const { return fabric_bytes_per_s_; }
  // That share a NIC of their node, where all send at once.
  double gpus_per_nic() const {
    return cluster_.fabric ? std::max(1.0, static_cast<double>(cluster_.gpus_per_node()) / cluster_.nics_per_node())
                           : 1;
  }
  bool spans_nodes(Group group) const;
  int ranks_per_node(Group group) const { return std::max(1, cluster_.gpus_per_node() / group.stride); }

  uint64_t flows() const { return flows_; }  // priced so far

 private:
  struct Shared {
    double factor = 1;
    LinkLoad per_byte;
  };
  struct Flow {
    int source, destination;
    double bytes;
  };
  const Shared& shared(CollectiveKind kind, Group group);
  std::vector<int> members(Group group, int first) const;
  std::map<LinkId, double> loads(const std::vector<Flow>& flows);
  LinkLoad busiest(const std::map<LinkId, double>& loads) const;
  // GPUs 0 … n−1 are those whose traffic may meet GPU 0's on a link.
  int neighbours() const;

  const Cluster& cluster_;
  const ClusterNetwork& network_;
  const CollectiveModel& collectives_;
  int gpus_;
  double node_link_bytes_per_s_ = 0, fabric_bytes_per_s_ = 0;
  std::map<std::tuple<CollectiveKind, int, int>, Shared> shared_;
  std::map<std::tuple<CollectiveKind, int, int, double>, CollectiveTime> times_;
  std::map<std::pair<int, bool>, std::pair<double, LinkLoad>> sends_;  // seconds and load a byte
  uint64_t flows_ = 0;
};

}  // namespace dssim
