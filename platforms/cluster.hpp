// SPDX-License-Identifier: Apache-2.0
#pragma once

// The [cluster] table of a scenario, resolved: which nodes, how many, which GPUs of them, the fabric and storage, with
// [cluster.override] applied.
//
// GPUs are numbered 0 … gpus−1, node by node. Where fewer are used than there are, every node gives the same number
// (the last node what is left). Errors: unknown names; more GPUs than there are; fewer GPUs than nodes; several nodes
// without a fabric; overrides of something that is not in use.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "platforms/node.hpp"
#include "sim/base/config.hpp"

namespace dssim {

struct Cluster {
  Gpu gpu;
  Node node;
  int nodes = 1;
  int gpus = 1;  // used, in all
  std::optional<Fabric> fabric;
  std::optional<Storage> storage;
  // Links with a share of their rate only: name as dssim lists it ("nic_up[12]"), share, and where the scenario says so.
  struct Degraded {
    std::string link;
    double share = 1;
    std::string where;
  };
  std::vector<Degraded> degraded;
  std::vector<Entry> entries;  // every catalogue entry this rests on, for reports

  int gpus_per_node() const { return (gpus + nodes - 1) / nodes; }  // used
  int node_of(int index) const { return index / gpus_per_node(); }
  int slot_of(int index) const { return index % gpus_per_node(); }  // its place in its node
  int nics_per_node() const;                                        // 0 without a fabric

  // Totals of all nodes, whole (a node is bought whole): the node's own figure, else that of its GPUs alone. 0 where
  // neither is known.
  double power_w() const;
  double price_usd() const;
};

Cluster read_cluster(const Config& cluster_table);

// A one-node cluster of `gpus` of the node's GPUs, as sold: for tests and benchmarks.
Cluster make_cluster(const std::string& node, int nodes = 1, const std::string& fabric = "", int gpus = 0);

}  // namespace dssim
