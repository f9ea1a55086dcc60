// SPDX-License-Identifier: Apache-2.0
#include "sim/training/expert_exchange.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr double kNicShare = 0.94, kNodeLinkShare = 0.77;
constexpr double kLatency = 37e-6, kNodeLatency = 14e-6;

// Distinct places among n that k even draws reach.
double distinct(double n, double k) {
  return n * (1 - std::pow(1 - 1 / n, k));
}

}  // namespace

TokenCopies token_copies(int experts_per_token, int ranks, int per_node, int routed_nodes) {
  const int here = std::min(ranks, per_node);
  const double nodes = (ranks + here - 1) / here, k = experts_per_token;
  const double routed = routed_nodes > 0 ? std::min<double>(routed_nodes, nodes) : nodes;
  // Of the nodes reached one in `nodes` is the token's own; in a node, the GPU that the token arrives at needs no copy.
  return {distinct(routed, k) * (nodes - 1) / nodes, distinct(routed * here, k) * (here - 1.0) / here};
}

ExpertExchange expert_exchange(const GroupNetwork& network, const TokenCopies& copies, int nodes, double tokens,
                               double bytes) {
  const double over_node_links = tokens * bytes * copies.over_node_links,
               over_nic = tokens * bytes * copies.over_nic * network.gpus_per_nic();
  ExpertExchange exchange;
  double seconds = 0;
  if (over_node_links > 0) {
    exchange.load.of(LinkSort::nvlink) = {over_node_links, over_node_links / network.node_link_bytes_per_s()};
    seconds = over_node_links / (network.node_link_bytes_per_s() * kNodeLinkShare);
  }
  if (over_nic > 0) {
    exchange.load.of(LinkSort::nic) = {over_nic, over_nic / network.fabric_bytes_per_s()};
    seconds = std::max(seconds, over_nic / (network.fabric_bytes_per_s() * kNicShare));
  }
  exchange.seconds = kLatency + kNodeLatency * (nodes - 1) + seconds;
  return exchange;
}

}  // namespace dssim
