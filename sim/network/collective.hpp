// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long a collective of a group of GPUs takes, and the bytes it puts on each link.
//
//   CollectiveModel collectives(cluster, network);
//   CollectiveTime t = collectives.time({CollectiveKind::all_reduce, 64e6, group});    // alone on the network
//   CollectiveTraffic traffic(simulation, collectives);
//   traffic.start({CollectiveKind::all_reduce, 64e6, group}, handler, tag);            // sharing links with all else
//
// Model: time = latency term + bandwidth term. The algorithm and protocol are those of least predicted time, as NCCL
// picks them. Inside one node the measured tables of the GPU (kernels/profiles, nccl) override the formulas. In a
// simulation the collective waits for its latency term and then sends one flow over each edge of its algorithm with
// all the bytes of that edge (a tree's edges once for each tree); alone on the network both ways give the same time.
// Formulas, constants and their sources: docs/network.md. Memory and time of one price: O(group) the first time a group
// is seen, then a table look-up.
//
// `bytes` follows nccl-tests: one GPU's buffer for all_reduce and broadcast; the whole result for all_gather; the whole
// input of a GPU for reduce_scatter and all_to_all; the message for send_recv. Broadcast goes from gpus[0]. In
// send_recv gpus[i] sends to gpus[i+1], and the last to the first where there are more than two.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/price.hpp"
#include "platforms/cluster_network.hpp"
#include "sim/base/config.hpp"
#include "sim/engine/simulation.hpp"

namespace dssim {

enum class CollectiveKind : uint8_t { all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, send_recv };
std::string_view name_of(CollectiveKind kind);
std::vector<std::string> collective_names();

// Bus bandwidth over algorithm bandwidth (bytes / seconds), as nccl-tests defines it: 2(n−1)/n for all_reduce, (n−1)/n
// for all_gather, reduce_scatter and all_to_all, 1 for broadcast and send_recv.
double bus_bandwidth_factor(CollectiveKind kind, int gpus);

struct CollectiveCall {
  CollectiveKind kind = CollectiveKind::all_reduce;
  double bytes = 0;
  std::span<const int> gpus;  // GPU numbers of the cluster, each once, in rank order
};

struct CollectiveTime {
  double seconds = 0;          // latency_s + the bandwidth term
  double latency_s = 0;        // alpha: launch and hops; not shortened by more bandwidth
  std::string_view algorithm;  // "ring", "tree", "nvls", "nvls-tree", "sharp", "hierarchical", "pairwise", "direct"
  std::string_view protocol;   // "LL", "LL128", "Simple"
  bool measured = false;       // from a table of this GPU or a similar one, not from the formulas alone
  Coverage coverage = Coverage::outside;

  double bandwidth_s() const { return seconds - latency_s; }
};

// What may be used; the defaults are NCCL's.
struct CollectiveOptions {
  std::string stack;      // the profile whose tables are preferred; empty: any of this GPU
  bool tables = true;     // false: formulas alone
  bool eager = false;     // with the host's launch of each call, where it was measured; else the time on the GPU
  bool nvls = true;       // multicast and reduction in the NVLink switch (Hopper and later)
  bool sharp = false;     // reduction in the InfiniBand switches
  std::string algorithm;  // used wherever it applies; empty: the quickest of those that NCCL has
};
// The [network] table of a scenario: tables, launch = "queued" | "eager", nvls, sharp, algorithm. All may be absent.
CollectiveOptions read_collective_options(const Config& network_table);

class CollectiveModel {
 public:
  // Both must outlive this.
  CollectiveModel(const Cluster& cluster, const ClusterNetwork& network, const CollectiveOptions& options = {});
  ~CollectiveModel();
  CollectiveModel(const CollectiveModel&) = delete;
  CollectiveModel& operator=(const CollectiveModel&) = delete;

  // Alone on the network; 0 for a group of one or no bytes. Throws Error(failure) where a GPU number is out of range.
  CollectiveTime time(const CollectiveCall& call) const;
  double seconds(const CollectiveCall& call) const { return time(call).seconds; }

  // The flows that carry the bandwidth term. Alone, the slowest of them takes exactly bandwidth_s().
  struct Flow {
    int source = 0, destination = 0;  // GPU numbers
    double bytes = 0;
  };
  static constexpr size_t kMostFlows = 1000;
  // Beyond `most` flows those of the first domains (nodes) stand for all the others, which carry the same.
  std::vector<Flow> flows(const CollectiveCall& call, size_t most = kMostFlows) const;

  const ClusterNetwork& network() const;
  // Where the figures come from, one line each.
  std::vector<std::string> sources() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// Collectives as flows of a simulation. Any number may be in flight.
class CollectiveTraffic {
 public:
  CollectiveTraffic(Simulation& simulation, const CollectiveModel& model);
  ~CollectiveTraffic();
  CollectiveTraffic(const CollectiveTraffic&) = delete;
  CollectiveTraffic& operator=(const CollectiveTraffic&) = delete;

  // Starts now; done.on_event(tag) when the last byte is there. A group of one is done at once.
  void start(const CollectiveCall& call, EventHandler& done, uint64_t tag = 0);

  uint64_t started() const;
  uint64_t flows() const;

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace dssim
