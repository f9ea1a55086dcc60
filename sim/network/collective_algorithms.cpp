// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

#include "sim/network/collective_algorithm.hpp"
#include "sim/network/double_tree.hpp"

namespace dssim {
namespace {

using nccl::Protocol;

size_t index(Protocol protocol) {
  return static_cast<size_t>(protocol);
}

double log2_floor(int n) {
  return n < 2 ? 0 : std::bit_width(static_cast<unsigned>(n)) - 1;
}

// One step inside a domain, and one between domains. In Simple the receiver also flushes, one more network latency.
double inside_s(const nccl::Hop& hop, const CollectiveGroup& group, Protocol protocol) {
  return group.nvlink ? hop.nvlink[index(protocol)] : hop.pcie[index(protocol)];
}
double between_s(const nccl::Hop& hop, const CollectiveGroup& group, Protocol protocol) {
  return hop.network[index(protocol)] + (protocol == Protocol::simple ? 2 : 1) * group.extra_network_s;
}

bool protocol_possible(Protocol protocol, const CollectiveGroup& group, const CollectiveMachine& machine) {
  if (protocol != Protocol::ll128) return true;
  const bool one_each = group.largest_domain == 1;
  return machine.ll128 && (group.nvlink || one_each) && group.gpu_direct;
}

// LL and LL128 send flags with the data; LL's handshake also bounds its rate.
ProtocolCost protocol_cost(Protocol protocol, const CollectiveGroup& group, const CollectiveMachine& machine) {
  ProtocolCost cost{protocol};
  if (protocol == Protocol::ll) {
    cost.share = nccl::kLlShare;
    cost.most_bytes_per_s = group.domain_count() == 1   ? machine.ll_most_bytes_per_s
                            : group.domain_count() == 2 ? nccl::kLlMostTwoNodes_bytes_per_s
                                                        : nccl::kLlMostNodes_bytes_per_s;
  } else if (protocol == Protocol::ll128) {
    const bool lone = group.domain_count() > 1 && group.gpus < 2 * group.domain_count();
    cost.share = lone ? nccl::kLl128LoneShare : nccl::kLl128Share;
  }
  return cost;
}

constexpr std::array kPointToPoint{Protocol::ll, Protocol::simple};  // what NCCL sends and receives with

// One after the other, `inside` steps within a domain and `outside` between domains, in each of the protocols.
std::vector<ProtocolCost> ring_step_costs(std::span<const Protocol> protocols, const CollectiveGroup& group,
                                          const CollectiveMachine& machine, int inside, int outside) {
  std::vector<ProtocolCost> all;
  for (const Protocol p : protocols) {
    if (!protocol_possible(p, group, machine)) continue;
    all.push_back(protocol_cost(p, group, machine));
    all.back().latency_s = nccl::kBase_s[index(p)] + inside * inside_s(nccl::kRingHop_s, group, p) +
                           outside * between_s(nccl::kRingHop_s, group, p);
  }
  return all;
}

// `volume` bytes per byte of the call leave every GPU of every domain for others in it, whatever the links: round a
// ring where there is a switch, over all its links at once in a mesh, along a chain over PCIe.
void spread_inside(const CollectiveGroup& group, double volume, bool closed, const EdgeSink& edge) {
  if (group.mesh) {
    for (const auto& link : group.mesh_links) edge(link.from, link.to, volume * link.share);
    return;
  }
  for (const auto& members : group.domains) {
    const size_t n = members.size();
    if (n < 2) continue;
    for (size_t i = 0; i + (closed ? 0 : 1) < n; ++i) edge(members[i], members[(i + 1) % n], volume);
  }
}

// Each rail: every domain's NIC sends `volume` / rails to the same rail of the next domain.
void ring_between(const CollectiveGroup& group, double volume, const EdgeSink& edge) {
  const size_t domains = group.domains.size();
  const double share = volume / group.rails;
  for (size_t d = 0; d < domains; ++d)
    for (size_t rail = 0; rail < static_cast<size_t>(group.rails); ++rail)
      edge(group.heads[d][rail], group.heads[(d + 1) % domains][rail], share);
}

double ring_volume(CollectiveKind kind, int n) {
  return bus_bandwidth_factor(kind, n);
}

bool reduces_or_gathers(CollectiveKind kind) {
  return kind == CollectiveKind::all_reduce || kind == CollectiveKind::all_gather ||
         kind == CollectiveKind::reduce_scatter;
}

class Ring final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "ring"; }
  bool applies(CollectiveKind kind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return reduces_or_gathers(kind);
  }

  void edges(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const double volume = ring_volume(kind, group.gpus);
    if (group.domain_count() == 1) return spread_inside(group, volume, true, edge);
    if (group.nvlink || group.largest_domain == 1) {
      // One ring for each NIC, entering and leaving the domain by it (the last hop inside reaches that NIC over
      // NVLink).
      spread_inside(group, volume, true, edge);
      return ring_between(group, volume, edge);
    }
    // Over PCIe the last GPU of a chain sends to the next node's first, once for each NIC with the chain rotated.
    const double share = volume / group.rails;
    const size_t domains = group.domains.size();
    for (size_t d = 0; d < domains; ++d) {
      const auto& members = group.domains[d];
      const auto& next = group.heads[(d + 1) % domains];
      for (size_t rail = 0; rail < static_cast<size_t>(group.rails); ++rail) {
        const auto start =
            static_cast<size_t>(std::find(members.begin(), members.end(), group.heads[d][rail]) - members.begin());
        const size_t n = members.size();
        for (size_t i = 0; i + 1 < n; ++i) edge(members[(start + i) % n], members[(start + i + 1) % n], share);
        edge(members[(start + n - 1) % n], next[rail], share);
      }
    }
  }

  std::vector<ProtocolCost> costs(CollectiveKind kind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const int n = group.gpus, domains = group.domain_count();
    const bool all_reduce = kind == CollectiveKind::all_reduce;
    const int steps = all_reduce ? 2 * (n - 1) : n - 1;
    const int outside = domains == 1 ? 0 : all_reduce ? std::min(steps, 2 * domains) : domains - 1;
    std::vector<ProtocolCost> all;
    for (const Protocol p : nccl::kProtocols) {
      if (!protocol_possible(p, group, machine)) continue;
      ProtocolCost cost = protocol_cost(p, group, machine);
      double inside = inside_s(nccl::kRingHop_s, group, p);
      if (domains > 1) inside = std::max(inside, nccl::kNetworkPost_s * (p == Protocol::simple ? 3 : 1));
      cost.latency_s =
          nccl::kBase_s[index(p)] + (steps - outside) * inside + outside * between_s(nccl::kRingHop_s, group, p);
      if (domains > 1 && all_reduce && p == Protocol::simple) cost.latency_s *= nccl::kRingPlateau;
      all.push_back(cost);
    }
    return all;
  }
};

class Tree final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "tree"; }
  bool applies(CollectiveKind kind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return kind == CollectiveKind::all_reduce;
  }

  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    // Inside a domain a chain, up for the sum and down for the result, rotated so that all GPUs carry the same.
    for (const auto& members : group.domains) {
      const size_t n = members.size();
      if (n < 2) continue;
      const bool rotated = group.switched;
      const double share = rotated ? static_cast<double>(n - 1) / static_cast<double>(n) : 1;
      for (size_t i = 0; i + (rotated ? 0 : 1) < n; ++i) {
        edge(members[i], members[(i + 1) % n], share);
        edge(members[(i + 1) % n], members[i], share);
      }
    }
    tree_between(group, edge);
  }

  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    std::vector<ProtocolCost> all;
    for (const Protocol p : nccl::kProtocols) {
      if (!protocol_possible(p, group, machine)) continue;
      ProtocolCost cost = protocol_cost(p, group, machine);
      cost.share_by_size = &nccl::kTreeSizeShare[index(p)];
      cost.share = p == Protocol::ll      ? nccl::kTreeLlShare
                   : p == Protocol::ll128 ? cost.share * nccl::kTreeShare
                                          : nccl::kTreeShare;
      cost.latency_s =
          nccl::kTreeBase_s[index(p)] + 2 * ((group.largest_domain - 1) * inside_s(nccl::kTreeHop_s, group, p) +
                                             log2_floor(group.domain_count()) * between_s(nccl::kTreeHop_s, group, p));
      all.push_back(cost);
    }
    return all;
  }

  // Every byte goes up one of the two trees of its rail and comes down again.
  static void tree_between(const CollectiveGroup& group, const EdgeSink& edge) {
    if (group.domain_count() == 1) return;
    const DoubleTree tree = double_tree(group.domain_count());
    const double share = 0.5 / group.rails;
    for (const auto* parents : {&tree.first, &tree.second})
      for (size_t d = 0; d < parents->size(); ++d) {
        const int parent = (*parents)[d];
        if (parent < 0) continue;
        for (size_t rail = 0; rail < static_cast<size_t>(group.rails); ++rail) {
          const int child_head = group.heads[d][rail], parent_head = group.heads[static_cast<size_t>(parent)][rail];
          edge(child_head, parent_head, share);
          edge(parent_head, child_head, share);
        }
      }
  }
};

// NCCL does not use the switch's multicast across nodes (NVL72).
bool can_reduce_in_switch(const CollectiveGroup& group, const CollectiveMachine& machine) {
  return group.switched && !group.domain_spans_nodes && machine.nvls_share > 0;
}

// All-reduce by the NVLink switch: each GPU sends its buffer once into the switch, which adds, and 1/n of the sum comes
// back; then each GPU sends its part once and the switch copies it to all.
void reduce_in_switch(const CollectiveGroup& group, const CollectiveMachine& machine, const EdgeSink& edge) {
  const double n = group.largest_domain;
  spread_inside(group, (1 + 1 / n) / machine.nvls_share, true, edge);
}

class Nvls final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "nvls"; }
  bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine) const override {
    return kind == CollectiveKind::all_reduce && group.domain_count() == 1 && can_reduce_in_switch(group, machine);
  }
  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine& machine,
             const EdgeSink& edge) const override {
    reduce_in_switch(group, machine, edge);
  }
  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return {{Protocol::simple, nccl::kNvls_s, 1, 0}};
  }
};

class NvlsTree final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "nvls-tree"; }
  bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine) const override {
    return kind == CollectiveKind::all_reduce && group.domain_count() > 1 && can_reduce_in_switch(group, machine);
  }
  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine& machine,
             const EdgeSink& edge) const override {
    reduce_in_switch(group, machine, edge);
    Tree::tree_between(group, edge);
  }
  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine&) const override {
    const double hop = nccl::kNvlsTreeHop_s + 2 * group.extra_network_s;
    return {{Protocol::simple, nccl::kNvls_s + 2 * log2_floor(group.domain_count()) * hop, 1, 0}};
  }
};

// All-reduce by the InfiniBand switches (SHARP, NCCL's CollNet): each rail sends its part up once and gets the sum
// once.
class Sharp final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "sharp"; }
  bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine) const override {
    return kind == CollectiveKind::all_reduce && group.domain_count() > 1 && machine.sharp &&
           (group.switched || group.largest_domain == 1);
  }
  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine& machine,
             const EdgeSink& edge) const override {
    if (can_reduce_in_switch(group, machine))
      reduce_in_switch(group, machine, edge);
    else
      spread_inside(group, 2.0 * (group.largest_domain - 1) / group.largest_domain, true, edge);
    ring_between(group, 1, edge);
  }
  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine&) const override {
    return {{Protocol::simple, nccl::kNvls_s + nccl::kNvlsNetwork_s + 2 * group.extra_network_s, 1, 0}};
  }
};

// Reduce-scatter inside the domains, then each GPU with its counterparts of the other domains over its own rail, then
// all-gather inside; in chunks, so that the phases overlap. Not NCCL's own: frameworks and MSCCL do it.
class Hierarchical final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "hierarchical"; }
  bool automatic() const override { return false; }
  bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine&) const override {
    if (!reduces_or_gathers(kind) || group.domain_count() == 1) return false;
    return std::all_of(group.domains.begin(), group.domains.end(),
                       [&](const auto& d) { return static_cast<int>(d.size()) == group.largest_domain; });
  }
  void edges(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const double p = group.largest_domain;
    spread_inside(group, ring_volume(kind, group.largest_domain), true, edge);
    const double share = ring_volume(kind, group.domain_count()) / p;
    for (size_t d = 0; d < group.domains.size(); ++d)
      for (size_t i = 0; i < group.domains[d].size(); ++i)
        edge(group.domains[d][i], group.domains[(d + 1) % group.domains.size()][i], share);
  }
  std::vector<ProtocolCost> costs(CollectiveKind kind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const int passes = kind == CollectiveKind::all_reduce ? 2 : 1;
    return ring_step_costs(nccl::kProtocols, group, machine, passes * (group.largest_domain - 1),
                           passes * (group.domain_count() - 1));
  }
};

// On a whole torus of nodes: reduce-scatter along the rings of the first dimension, what is left along those of the
// second, and so on, then all-gather back. The data is cut in parts, one for each dimension to start with and each way
// round, so that every link is busy. Not NCCL's: what machines built as a torus do.
class TorusRings final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "torus"; }
  bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine&) const override {
    return reduces_or_gathers(kind) && group.torus.has_value();
  }

  void edges(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const TorusShape& torus = *group.torus;
    spread_inside(group, ring_volume(kind, group.gpus), true, edge);
    const std::vector<double> volumes = volume_along(torus);
    const double passes = kind == CollectiveKind::all_reduce ? 2 : 1;
    for (int node = 0; node < group.domain_count(); ++node)
      for (int d = 0; d < torus.dimensions(); ++d)
        for (const int step : {1, -1}) {
          const auto& from = group.heads[static_cast<size_t>(node)];
          const auto& to = group.heads[static_cast<size_t>(torus.neighbour(node, d, step))];
          for (size_t rail = 0; rail < static_cast<size_t>(group.rails); ++rail)
            edge(from[rail], to[rail], passes * volumes[static_cast<size_t>(d)] / 2 / group.rails);
        }
  }

  std::vector<ProtocolCost> costs(CollectiveKind kind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const int passes = kind == CollectiveKind::all_reduce ? 2 : 1;
    int hops = 0;
    for (const int size : group.torus->sizes()) hops += size - 1;
    return ring_step_costs(nccl::kProtocols, group, machine, passes * (group.largest_domain - 1), passes * hops);
  }

 private:
  // Bytes that leave a node along each dimension, both ways round, for one byte of buffer: the mean over the orders of
  // the dimensions, each order a rotation.
  static std::vector<double> volume_along(const TorusShape& torus) {
    const int dimensions = torus.dimensions();
    std::vector<double> volumes(static_cast<size_t>(dimensions));
    for (int first = 0; first < dimensions; ++first) {
      double left = 1.0 / dimensions;
      for (int i = 0; i < dimensions; ++i) {
        const auto d = static_cast<size_t>((first + i) % dimensions);
        const double size = torus.sizes()[d];
        volumes[d] += left * (size - 1) / size;
        left /= size;
      }
    }
    return volumes;
  }
};

// Every GPU sends 1/n of its input to every other one. Between domains the bytes first cross NVLink to the GPU on the
// rail of their destination (NCCL's PXN), then go out by that rail.
class Pairwise final : public CollectiveAlgorithm {
 public:
  // Peers a GPU works on at the same time (NCCL starts sends and receives in rounds of eight).
  static constexpr int kPeersAtOnce = 8;
  // Beyond so many domains a sample of the distances between them stands for all.
  static constexpr size_t kDistances = 16;

  std::string_view name() const override { return "pairwise"; }
  bool applies(CollectiveKind kind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return kind == CollectiveKind::all_to_all;
  }

  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const double n = group.gpus;
    const double relayed = group.nvlink && group.rails > 0 ? 1.0 / group.largest_domain : 0;
    for (const auto& members : group.domains) {
      const double p = static_cast<double>(members.size());
      if (members.size() < 2) continue;
      const double inside = (p - 1) / n + (p - 1) * relayed * (n - p) / n;  // of each GPU
      if (group.switched) {
        for (size_t i = 0; i < members.size(); ++i) edge(members[i], members[(i + 1) % members.size()], inside);
      } else {
        for (const int from : members)
          for (const int to : members)
            if (from != to) edge(from, to, inside / (p - 1));
      }
    }
    if (group.domain_count() > 1) between(group, edge);
  }

  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const int inside = (group.largest_domain - 1 + kPeersAtOnce - 1) / kPeersAtOnce;
    const int outside = (group.gpus - group.largest_domain + kPeersAtOnce - 1) / kPeersAtOnce;
    return ring_step_costs(kPointToPoint, group, machine, inside, outside);
  }

 private:
  static void between(const CollectiveGroup& group, const EdgeSink& edge) {
    const size_t domains = group.domains.size();
    const size_t shifts = std::min(domains - 1, kDistances);
    for (size_t s = 0; s < shifts; ++s) {
      const size_t distance = 1 + s * (domains - 1) / shifts;
      for (size_t d = 0; d < domains; ++d) {
        const auto& from = group.domains[d];
        const auto& to = group.domains[(d + distance) % domains];
        const double share = (group.gpus - static_cast<double>(from.size())) / group.gpus / static_cast<double>(shifts);
        for (size_t i = 0; i < from.size(); ++i) edge(from[i], to[i % to.size()], share);
      }
    }
  }
};

// Broadcast along the ring of all GPUs from the root, in chunks, one rotation for each NIC.
class Chain final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "ring"; }
  bool applies(CollectiveKind kind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return kind == CollectiveKind::broadcast;
  }

  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const int root = group.order.front();
    for (const auto& members : group.domains) {
      const size_t n = members.size();
      if (n < 2) continue;
      if (group.domain_count() == 1) {
        const auto start = static_cast<size_t>(std::find(members.begin(), members.end(), root) - members.begin());
        for (size_t i = 0; i + 1 < n; ++i) edge(members[(start + i) % n], members[(start + i + 1) % n], 1);
      } else {
        for (size_t i = 0; i + 1 < n; ++i) edge(members[i], members[i + 1], 1);
      }
    }
    const size_t domains = group.domains.size();
    if (domains == 1) return;
    size_t first = 0;
    while (std::find(group.domains[first].begin(), group.domains[first].end(), root) == group.domains[first].end())
      ++first;
    for (size_t d = 0; d + 1 < domains; ++d)
      for (size_t rail = 0; rail < static_cast<size_t>(group.rails); ++rail)
        edge(group.heads[(first + d) % domains][rail], group.heads[(first + d + 1) % domains][rail], 1.0 / group.rails);
  }

  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const int outside = group.domain_count() - 1;
    return ring_step_costs(nccl::kProtocols, group, machine, group.gpus - 1 - outside, outside);
  }
};

class Direct final : public CollectiveAlgorithm {
 public:
  std::string_view name() const override { return "direct"; }
  bool applies(CollectiveKind kind, const CollectiveGroup&, const CollectiveMachine&) const override {
    return kind == CollectiveKind::send_recv;
  }
  void edges(CollectiveKind, const CollectiveGroup& group, const CollectiveMachine&,
             const EdgeSink& edge) const override {
    const size_t n = group.order.size();
    for (size_t i = 0; i + (n > 2 ? 0 : 1) < n; ++i) edge(group.order[i], group.order[(i + 1) % n], 1);
  }
  std::vector<ProtocolCost> costs(CollectiveKind, const CollectiveGroup& group,
                                  const CollectiveMachine& machine) const override {
    const bool between = group.domain_count() > 1;
    return ring_step_costs(kPointToPoint, group, machine, between ? 0 : 1, between ? 1 : 0);
  }
};

}  // namespace

std::span<const CollectiveAlgorithm* const> collective_algorithms() {
  static const Ring ring;
  static const Tree tree;
  static const Nvls nvls;
  static const NvlsTree nvls_tree;
  static const Sharp sharp;
  static const Hierarchical hierarchical;
  static const TorusRings torus;
  static const Pairwise pairwise;
  static const Chain chain;
  static const Direct direct;
  static const std::array<const CollectiveAlgorithm*, 10> all{&ring,         &tree,  &nvls,     &nvls_tree, &sharp,
                                                              &hierarchical, &torus, &pairwise, &chain,     &direct};
  return all;
}

}  // namespace dssim
