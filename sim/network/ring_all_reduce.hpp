// SPDX-License-Identifier: Apache-2.0
#pragma once

// A serving replica's all-reduce where no measured table of its engine covers it (PCIe, host memory, the fabric): NCCL's ring,
// by the quickest protocol of
//
//                    base + (2(n−1) − 2(m−1)) intra + 2(m−1) inter + 2(n−1)/n bytes / (share × B)
//
// for n GPUs on m nodes, where B is what the ring's busiest link leaves it, and base, the time of a step (intra, inter)
// and the share of B come with the protocol. Source: the cost model by which NCCL chooses among its own algorithms
// (src/graph/tuning.cc, versions 2.18 to 2.26); constants in ring_all_reduce.cpp, checks in docs/platform.md.

#include <span>

#include "platforms/cluster_network.hpp"

namespace dssim {

// All-reduce over a group of GPUs by NCCL's ring: everyone ends with the sum. Worked out once for a group, then priced
// by size.
class RingAllReduce {
 public:
  RingAllReduce(const ClusterNetwork& network, std::span<const int> gpus);

  double time_s(double bytes) const;  // `bytes`: one GPU's buffer; 0 for a group of one
  // The bus bandwidth it tends to with size (nccl-tests: 2(n−1)/n × bytes / time).
  double bytes_per_s() const { return bytes_per_s_; }

 private:
  void take_paths_inside(const ClusterNetwork& network, std::span<const int> members);

  int gpus_ = 0, nodes_ = 0;
  bool inside_nvlink_ = true, one_per_node_ = false;
  double network_latency_s_ = 0;  // 0: no step crosses the network
  double bytes_per_s_ = 0;
};

}  // namespace dssim
