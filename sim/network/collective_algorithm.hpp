// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an algorithm does with one byte of a call: which edges it sends over, how much over each, and the latency of its
// steps. A new algorithm is one class in collective_algorithms.cpp, listed in collective_algorithms().
//
// An edge's share counts time on the link: payload bytes per byte of the call, divided by the part of the link's rate
// that the algorithm can use there. The bandwidth term of a call is then bytes × (largest load of a link / its rate).

#include <array>
#include <functional>
#include <span>
#include <string_view>

#include "sim/network/collective.hpp"
#include "sim/network/collective_group.hpp"
#include "sim/network/nccl_tuning.hpp"

namespace dssim {

using EdgeSink = std::function<void(int source, int destination, double share)>;

// What an algorithm may rely on besides the group.
struct CollectiveMachine {
  double nvls_share = 0;           // of a link's usable rate; 0: no multicast in the NVLink switch
  double ll_most_bytes_per_s = 0;  // what LL moves at most inside a domain
  bool ll128 = false;              // the GPU can, over NVLink and InfiniBand
  bool sharp = false;
};

// Latency and speed of one protocol of an algorithm.
struct ProtocolCost {
  nccl::Protocol protocol = nccl::Protocol::simple;
  double latency_s = 0;
  double share = 1;             // of the links' rate
  double most_bytes_per_s = 0;  // of the bus bandwidth, whatever the links; 0: no such limit
  // Further share of the rate by size, NCCL's kTreeSizeShare; null: 1.
  const std::array<double, nccl::kTreeSizes>* share_by_size = nullptr;
};

class CollectiveAlgorithm {
 public:
  virtual ~CollectiveAlgorithm() = default;
  virtual std::string_view name() const = 0;
  // Whether NCCL would consider it; some are used only where a scenario asks for them.
  virtual bool automatic() const { return true; }
  virtual bool applies(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine) const = 0;
  virtual void edges(CollectiveKind kind, const CollectiveGroup& group, const CollectiveMachine& machine,
                     const EdgeSink& edge) const = 0;
  // One for each protocol it can use.
  virtual std::vector<ProtocolCost> costs(CollectiveKind kind, const CollectiveGroup& group,
                                          const CollectiveMachine& machine) const = 0;
};

// In the order in which equal times are decided.
std::span<const CollectiveAlgorithm* const> collective_algorithms();

}  // namespace dssim
