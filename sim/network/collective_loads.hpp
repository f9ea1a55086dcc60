// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a set of edges does to the links: the seconds that the busiest link needs for one byte of the call.

#include <vector>

#include "sim/engine/topology.hpp"

namespace dssim {

struct CollectiveEdge {
  int source = 0, destination = 0;
  double share = 0;
};

struct LinkLoads {
  double seconds_per_byte = 0;  // of the busiest link
  double latency_s = 0;         // of the longest route
};

// Edges between GPUs, which are the endpoints 0 … n−1 of the network.
LinkLoads link_loads(const Topology& network, const std::vector<CollectiveEdge>& edges);
// The same on an ideal switch with one port of this rate for each of `gpus` GPUs.
double switch_load(int gpus, double port_bytes_per_s, const std::vector<CollectiveEdge>& edges);

}  // namespace dssim
