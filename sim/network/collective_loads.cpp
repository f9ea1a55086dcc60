// SPDX-License-Identifier: Apache-2.0
#include "sim/network/collective_loads.hpp"

#include <algorithm>
#include <unordered_map>

namespace dssim {

LinkLoads link_loads(const Topology& network, const std::vector<CollectiveEdge>& edges) {
  LinkLoads result;
  Route route;
  std::unordered_map<LinkId, double> load;
  load.reserve(4 * edges.size());
  for (const auto& edge : edges) {
    network.route(static_cast<EndpointId>(edge.source), static_cast<EndpointId>(edge.destination), route);
    result.latency_s = std::max(result.latency_s, route.latency_s);
    for (const LinkId link : route.links) load[link] += edge.share;
  }
  for (const auto& [link, share] : load)
    result.seconds_per_byte = std::max(result.seconds_per_byte, share / network.link_bytes_per_s(link));
  return result;
}

double switch_load(int gpus, double port_bytes_per_s, const std::vector<CollectiveEdge>& edges) {
  std::vector<double> out(static_cast<size_t>(gpus)), in(static_cast<size_t>(gpus));
  for (const auto& edge : edges) {
    out[static_cast<size_t>(edge.source)] += edge.share;
    in[static_cast<size_t>(edge.destination)] += edge.share;
  }
  return std::max(*std::max_element(out.begin(), out.end()), *std::max_element(in.begin(), in.end())) /
         port_bytes_per_s;
}

}  // namespace dssim
