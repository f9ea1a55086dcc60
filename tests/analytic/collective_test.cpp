// SPDX-License-Identifier: Apache-2.0

// Collectives against their closed forms, by formulas alone (no measured tables), priced and simulated.

#include <gtest/gtest.h>

#include <numeric>

#include "sim/network/collective.hpp"
#include "support/run_forked.hpp"

namespace dssim {
namespace {

using test::run_forked;
using enum CollectiveKind;

constexpr double kNvlink = 450e9 * 0.82;  // dgx-h100: link rate × share of it
constexpr double kNic = 50e9 * 0.94;      // ndr400-rail

std::vector<int> every(int stride, int count) {
  std::vector<int> gpus(static_cast<size_t>(count));
  for (int i = 0; i < count; ++i) gpus[static_cast<size_t>(i)] = i * stride;
  return gpus;
}

class Fixture {
 public:
  Fixture(const std::string& node, int nodes, const std::string& fabric, const std::string& algorithm = "")
      : cluster(make_cluster(node, nodes, fabric)), network(cluster), model(cluster, network, options(algorithm)) {}

  Cluster cluster;
  ClusterNetwork network;
  CollectiveModel model;

 private:
  static CollectiveOptions options(const std::string& algorithm) {
    CollectiveOptions o;
    o.tables = false;
    o.algorithm = algorithm;
    return o;
  }
};

// Seconds from the start of `calls`, all at once, to the end of each.
std::vector<double> simulate(const Fixture& f, const std::vector<CollectiveCall>& calls) {
  return run_forked([&] {
    struct Ends final : EventHandler {
      Simulation* simulation = nullptr;
      std::vector<double> at;
      void on_event(uint64_t tag) override { at[tag] = simulation->now(); }
    } ends;
    Simulation simulation(f.network);
    ends.simulation = &simulation;
    ends.at.resize(calls.size());
    CollectiveTraffic traffic(simulation, f.model);
    for (size_t i = 0; i < calls.size(); ++i) traffic.start(calls[i], ends, i);
    simulation.run();
    return ends.at;
  });
}

// Simple protocol: 8.4 µs and 3.4 µs a step; 2(n−1) steps of S/n, so 2(n−1)/n × S over each link.
TEST(RingAllReduce, InOneNode) {
  const Fixture f("dgx-h100", 1, "", "ring");
  for (const int n : {2, 3, 4, 8}) {
    const double bytes = 4e9;
    const double expected = 8.4e-6 + 2 * (n - 1) * 3.4e-6 + 2.0 * (n - 1) / n * bytes / kNvlink;
    EXPECT_NEAR(f.model.seconds({all_reduce, bytes, every(1, n)}), expected, 1e-9 * expected) << n;
  }
}

TEST(RingAllGatherAndReduceScatter, TakeHalfOfAnAllReducesBandwidthTerm) {
  const Fixture f("dgx-h100", 1, "", "ring");
  const auto gpus = every(1, 8);
  const CollectiveTime reduce = f.model.time({all_reduce, 4e9, gpus});
  for (const auto kind : {all_gather, reduce_scatter})
    EXPECT_NEAR(f.model.time({kind, 4e9, gpus}).bandwidth_s(), reduce.bandwidth_s() / 2, 1e-12);
}

// One GPU of each node: 2(N−1)/N × S over its NIC. Whole nodes: one ring for each of the eight NICs, which together are
// a little quicker than NVLink.
TEST(RingAllReduce, BetweenNodes) {
  const Fixture f("dgx-h100", 4, "ndr400-rail", "ring");
  EXPECT_NEAR(f.model.time({all_reduce, 4e9, every(8, 4)}).bandwidth_s(), 1.5 * 4e9 / kNic, 1e-6);
  EXPECT_NEAR(f.model.time({all_reduce, 4e9, every(1, 32)}).bandwidth_s(),
              2 * 31.0 / 32 * 4e9 / std::min(kNvlink, 8 * kNic), 1e-9);
}

// Latency 2((p−1) × inside + log2 N × between), every byte up and down once: a chain over NVLink carries (p−1)/p × 2 S,
// the two trees of a rail 2 S / rails (a node that is inner in one tree: one up and two down there, one up in the
// other).
TEST(TreeAllReduce, HasLogarithmicLatencyAndTwiceTheBytes) {
  const Fixture f("dgx-h100", 8, "ndr400-rail", "tree");
  const CollectiveTime small = f.model.time({all_reduce, 64, every(8, 8)});
  EXPECT_EQ(small.protocol, "LL");
  // The spine is 0.9 µs further than the leaf that NCCL's figures stand for, on each of the 2 × 3 hops.
  EXPECT_NEAR(small.latency_s, 6.8e-6 + 2 * 3 * (5.0e-6 + 0.9e-6), 1e-10);
  const CollectiveTime large = f.model.time({all_reduce, 4e9, every(8, 8)});
  EXPECT_EQ(large.protocol, "Simple");
  EXPECT_NEAR(large.bandwidth_s(), 2 * 4e9 / kNic / 0.92 / 0.9, 1e-6);
}

// Reduce-scatter and all-gather inside overlap with the rails' all-reduce of S/8 each.
TEST(HierarchicalAllReduce, IsTheSlowerOfItsTwoLevels) {
  const Fixture f("dgx-h100", 4, "ndr400-rail", "hierarchical");
  const double inside = 2 * 7.0 / 8 * 4e9 / kNvlink, outside = 2 * 3.0 / 4 * 4e9 / 8 / kNic;
  EXPECT_NEAR(f.model.time({all_reduce, 4e9, every(1, 32)}).bandwidth_s(), std::max(inside, outside), 1e-9);
  const Fixture slow("dgx-h100", 4, "ndr400", "hierarchical");
  EXPECT_EQ(slow.model.time({all_reduce, 4e9, every(1, 32)}).algorithm, "hierarchical");
}

// 4 × 4 × 4 nodes, six ports each: all of them busy, 2(64−1)/64 × S in all out of every node.
TEST(TorusAllReduce, UsesEveryPort) {
  const Fixture f("dgx-h100", 64, "torus-3d-400", "torus");
  EXPECT_NEAR(f.model.time({all_reduce, 4e9, every(1, 512)}).bandwidth_s(), 2 * 63.0 / 64 * 4e9 / (6 * kNic), 1e-9);
  const CollectiveTime small = f.model.time({all_gather, 1, every(8, 64)});
  EXPECT_NEAR(small.latency_s, 6.6e-6 + 9 * (2.7e-6 + 0.3e-6),
              1e-10);  // 3 + 3 + 3 hops, the spine figure is a second hop
}

// (n−1)/n × S leave each GPU; of a GPU's bytes those for other nodes go through its own NIC.
TEST(AllToAll, InsideAndBetweenNodes) {
  const Fixture f("dgx-h100", 4, "ndr400-rail");
  EXPECT_NEAR(f.model.time({all_to_all, 4e9, every(1, 8)}).bandwidth_s(), 7.0 / 8 * 4e9 / kNvlink, 1e-9);
  EXPECT_NEAR(f.model.time({all_to_all, 4e9, every(1, 32)}).bandwidth_s(), 24.0 / 32 * 4e9 / kNic, 1e-9);
}

TEST(SendRecvAndBroadcast, SendEveryByteOverEachEdgeOnce) {
  const Fixture f("dgx-h100", 2, "ndr400-rail");
  EXPECT_NEAR(f.model.time({send_recv, 4e9, every(1, 2)}).bandwidth_s(), 4e9 / kNvlink, 1e-9);
  EXPECT_NEAR(f.model.time({send_recv, 4e9, every(8, 2)}).bandwidth_s(), 4e9 / kNic, 1e-9);
  EXPECT_NEAR(f.model.time({broadcast, 4e9, every(1, 8)}).bandwidth_s(), 4e9 / kNvlink, 1e-9);
  EXPECT_NEAR(f.model.time({broadcast, 4e9, every(1, 16)}).bandwidth_s(), 4e9 / std::min(kNvlink, 8 * kNic), 1e-9);
}

TEST(Sharp, SendsEachByteIntoTheNetworkOnce) {
  const Cluster cluster = make_cluster("dgx-h100", 8, "ndr400-rail");
  const ClusterNetwork network(cluster);
  CollectiveOptions options;
  options.tables = false;
  options.sharp = true;
  const CollectiveModel model(cluster, network, options);
  const CollectiveTime time = model.time({all_reduce, 4e9, every(8, 8)});
  EXPECT_EQ(time.algorithm, "sharp");
  EXPECT_NEAR(time.bandwidth_s(), 4e9 / kNic, 1e-9);
}

// The last byte of the slowest flow ends the collective: latency term and bandwidth term, as priced.
TEST(CollectiveTraffic, AloneTakesThePriceOfTheClosedForm) {
  const std::vector<std::tuple<std::string, int, std::string>> clusters{
      {"dgx-h100", 1, ""},   {"dgx-h100", 4, "ndr400-rail"}, {"a100-pcie-4", 2, "hdr200"},    {"hgx-a100-4", 1, ""},
      {"rtx-4090-4", 1, ""}, {"dgx-a100", 3, "eth10"},       {"gb200-nvl72-tray", 4, "nvl72"}};
  for (const auto& [node, nodes, fabric] : clusters) {
    const Fixture f(node, nodes, fabric);
    for (const auto kind : {all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, send_recv})
      for (const double bytes : {1e3, 1e6, 1e9}) {
        const auto gpus = every(1, f.cluster.gpus);
        const double priced = f.model.seconds({kind, bytes, gpus});
        EXPECT_NEAR(simulate(f, {{kind, bytes, gpus}})[0], priced, 1e-6 * priced + 1e-8)  // SimGrid moves whole bytes
            << node << " " << nodes << " " << name_of(kind) << " " << bytes;
      }
  }
}

TEST(CollectiveTraffic, OnOneLinkShareItEvenly) {
  const Fixture f("dgx-h100", 2, "ndr400-rail");
  const auto gpus = every(8, 2);
  const CollectiveTime alone = f.model.time({all_reduce, 1e9, gpus});
  for (const int n : {2, 5}) {
    const std::vector<CollectiveCall> calls(static_cast<size_t>(n), {all_reduce, 1e9, gpus});
    const double expected = alone.latency_s + n * alone.bandwidth_s();
    for (const double end : simulate(f, calls)) EXPECT_NEAR(end, expected, 1e-6 * expected);
  }
}

TEST(CollectiveTraffic, OnDifferentRailsDoNotDisturbEachOther) {
  const Fixture f("dgx-h100", 4, "ndr400-rail");
  std::vector<std::vector<int>> groups;
  for (int slot = 0; slot < 8; ++slot) {
    groups.push_back(every(8, 4));
    for (int& gpu : groups.back()) gpu += slot;
  }
  std::vector<CollectiveCall> calls;
  for (const auto& group : groups) calls.push_back({all_reduce, 1e9, group});
  const double alone = f.model.seconds(calls[0]);
  for (const double end : simulate(f, calls)) EXPECT_NEAR(end, alone, 1e-6 * alone);
}

// A few nodes' flows stand for all: same end alone, and under a second collective on the same links.
TEST(CollectiveTraffic, CollapsedEqualsFull) {
  const Fixture f("dgx-h100", 16, "ndr400-rail");
  const auto gpus = every(1, 128);
  for (const auto kind : {all_reduce, all_gather, all_to_all}) {
    const CollectiveCall call{kind, 1e9, gpus};
    const auto full = f.model.flows(call, 1u << 20), few = f.model.flows(call, 200);
    EXPECT_GT(full.size(), 250U);
    EXPECT_LE(few.size(), 200U);
    const auto end = [&](const std::vector<CollectiveModel::Flow>& flows, int copies) {
      return run_forked([&] {
        struct Last final : EventHandler {
          Simulation* simulation = nullptr;
          double at = 0;
          void on_event(uint64_t) override { at = simulation->now(); }
        } last;
        Simulation simulation(f.network);
        last.simulation = &simulation;
        for (int copy = 0; copy < copies; ++copy)
          for (const auto& flow : flows)
            simulation.transfer(f.network.gpu(flow.source), f.network.gpu(flow.destination), flow.bytes, last);
        simulation.run();
        return last.at;
      });
    };
    for (const int copies : {1, 2})
      EXPECT_NEAR(end(few, copies), end(full, copies), 1e-3 * end(full, copies)) << name_of(kind);
  }
}

}  // namespace
}  // namespace dssim
