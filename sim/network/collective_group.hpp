// SPDX-License-Identifier: Apache-2.0
#pragma once

// A group of GPUs as its collectives see it: which of them share an NVLink domain, and over which NICs a domain reaches
// the others. A domain is a node, or the nodes that share one NVLink switch (NVL72).

#include <optional>
#include <span>
#include <vector>

#include "platforms/cluster_network.hpp"

namespace dssim {

struct CollectiveGroup {
  // Members by domain, each domain in GPU order. With a root or a direction (broadcast, send_recv) `order` is the rank
  // order as given.
  std::vector<std::vector<int>> domains;
  std::vector<int> order;
  // heads[domain][rail]: the member that speaks for this NIC of the domain; `rails` NICs in every domain.
  std::vector<std::vector<int>> heads;
  // The torus whose nodes are the domains, in that order; nothing for a part of a torus.
  std::optional<TorusShape> torus;
  // The pairs of a mesh that have links, and which share of `from`'s links inside its domain leads to `to`. Not every
  // pair needs one (the eight GPUs of a DGX-1V reach four others each).
  struct MeshLink {
    int from, to;
    double share;
  };
  std::vector<MeshLink> mesh_links;
  int gpus = 0;
  int rails = 0;           // 0 for a single domain
  int largest_domain = 0;  // members
  bool nvlink = false;     // neighbours inside a domain reach each other over NVLink or xGMI
  bool switched = false;   // … through a switch, so that any pair has the full rate
  bool mesh = false;       // … over links of their own between pairs: mesh_links
  bool domain_spans_nodes = false;
  bool gpu_direct = true;
  double extra_network_s = 0;  // latency between domains beyond InfiniBand's (NCCL's hop figures include that)

  int domain_count() const { return static_cast<int>(domains.size()); }
};

// Throws Error(failure): a GPU number out of range or named twice, an empty group.
CollectiveGroup make_group(const Cluster& cluster, const ClusterNetwork& network, std::span<const int> gpus);

}  // namespace dssim
