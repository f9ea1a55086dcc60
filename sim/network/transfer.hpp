// SPDX-License-Identifier: Apache-2.0
#pragma once

// Moving bytes between GPUs: one transfer alone on the network, the same as a flow of the simulation, and an all-reduce
// over paths that no measured table covers (PCIe, host memory, the fabric).
//
//   transfer alone   latency of the path + bytes / its slowest link
//   all-reduce       NCCL's ring: 2(n−1) steps of bytes/n over the slowest link of the ring, each step with the latency
//   of
//                    its protocol; the quicker of the protocols LL and Simple (formula and constants: docs/network.md)

#include <span>

#include "platforms/cluster_network.hpp"
#include "sim/engine/simulation.hpp"

namespace dssim {

double transfer_time_s(const ClusterNetwork& network, int source_gpu, int destination_gpu, double bytes);

// One activation handed from a pipeline stage to the next, as a flow that shares its links; done.on_event(tag) at its
// end.
void start_transfer(Simulation& simulation, const ClusterNetwork& network, int source_gpu, int destination_gpu,
                    double bytes, EventHandler& done, uint64_t tag = 0);

// Every GPU of the group ends with the sum over the group. `bytes` is one GPU's buffer. 0 for a group of one.
double ring_all_reduce_time_s(const ClusterNetwork& network, std::span<const int> gpus, double bytes);

}  // namespace dssim
