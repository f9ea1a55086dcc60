// SPDX-License-Identifier: Apache-2.0

// Flows against closed forms. Tolerance: SimGrid's clock is exact to 1e-9 s (its precision/timing), and bytes are
// whole.

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "platforms/cluster_network.hpp"
#include "sim/engine/simulation.hpp"
#include "tests/support/run_forked.hpp"

namespace dssim {
namespace {

struct Ends : EventHandler {
  explicit Ends(Simulation& s) : sim(s) {}
  void on_event(uint64_t tag) override {
    if (times.size() <= tag) times.resize(tag + 1, -1);
    times[tag] = sim.now();
  }
  Simulation& sim;
  std::vector<double> times;
};

struct FlowOf {
  EndpointId source, destination;
  double bytes;
};

// When each of the flows, all started at 0, ends.
std::vector<double> end_times(const Topology& topology, const std::vector<FlowOf>& flows) {
  return test::run_forked([&] {
    Simulation sim(topology);
    Ends ends(sim);
    for (size_t i = 0; i < flows.size(); ++i)
      sim.transfer(flows[i].source, flows[i].destination, flows[i].bytes, ends, i);
    sim.run();
    return ends.times;
  });
}

// Endpoints 0 … n−1 send to n over one shared link of 50 GB/s, each at its own latency; n sends back over another.
struct Funnel : Topology {
  std::vector<double> latency_s;
  explicit Funnel(std::vector<double> l) : latency_s(std::move(l)) {}
  uint32_t endpoint_count() const override { return static_cast<uint32_t>(latency_s.size()) + 1; }
  uint32_t link_count() const override { return 2; }
  double link_bytes_per_s(LinkId) const override { return 50e9; }
  std::string link_name(LinkId) const override { return "funnel"; }
  void route(EndpointId source, EndpointId destination, Route& into) const override {
    const EndpointId end = static_cast<EndpointId>(latency_s.size());
    into.latency_s = latency_s[source == end ? destination : source];
    into.links = {source == end ? 1u : 0u};
  }
};

TEST(Flow, TakesItsLatencyAndItsBytesOverTheRate) {
  EXPECT_NEAR(end_times(Funnel({5e-6}), {{0, 1, 5e9}})[0], 0.100005, 2e-9);
  EXPECT_NEAR(end_times(Funnel({50e-6}), {{0, 1, 5e9}})[0], 0.100050, 2e-9);
  EXPECT_NEAR(end_times(Funnel({5e-6}), {{0, 1, 1}})[0], 5e-6, 2e-9);
}

TEST(Flow, ManyOnOneLinkShareIt) {
  // n equal flows: each has 1/n of the link from start to end.
  for (const size_t n : {2u, 7u, 64u}) {
    std::vector<FlowOf> flows;
    for (EndpointId i = 0; i < n; ++i) flows.push_back({i, static_cast<EndpointId>(n), 5e8});
    for (const double t : end_times(Funnel(std::vector<double>(n, 5e-6)), flows))
      EXPECT_NEAR(t, static_cast<double>(n) * 0.01 + 5e-6, 1e-8);
  }
}

TEST(Flow, UnequalLatenciesShareFairly) {
  // The near flow runs alone for 45 us (2.25 MB), then both have half: the far one ends when all 10 GB are through.
  const auto t = end_times(Funnel({5e-6, 50e-6}), {{0, 2, 5e9}, {1, 2, 5e9}});
  EXPECT_NEAR(t[0], 50e-6 + 2 * (5e9 - 45e-6 * 50e9) / 50e9, 1e-8);
  EXPECT_NEAR(t[1], 5e-6 + 0.2, 1e-8);
}

TEST(Flow, UnequalSizesLeaveTheRestToTheOthers) {
  // 1 GB and 3 GB: both at 25 GB/s until 0.04 s, then the second alone for its last 2 GB.
  const auto t = end_times(Funnel({0, 0}), {{0, 2, 1e9}, {1, 2, 3e9}});
  EXPECT_NEAR(t[0], 0.04, 1e-8);
  EXPECT_NEAR(t[1], 0.08, 1e-8);
}

TEST(Flow, FullDuplex) {
  const auto t = end_times(Funnel({5e-6}), {{0, 1, 5e9}, {1, 0, 5e9}});
  EXPECT_NEAR(t[0], 0.100005, 2e-9);
  EXPECT_NEAR(t[1], 0.100005, 2e-9);
}

TEST(ClusterFlow, NvlinkInsideAndNicOutside) {
  const ClusterNetwork n(make_cluster("dgx-h100", 2, "ndr400-rail"));
  const auto t = end_times(n, {{0, 1, 1e9}, {2, 10, 1e9}});
  const Path inside = n.path(n.gpu(0), n.gpu(1));
  EXPECT_NEAR(t[0], inside.latency_s + 1e9 / inside.bytes_per_s, 1e-8);
  EXPECT_NEAR(t[0], 3.33e-6 + 1e9 / (450e9 * 0.82), 1e-8);
  EXPECT_NEAR(t[1], 2.8e-6 + 1e9 / (50e9 * 0.94), 1e-8);
}

TEST(ClusterFlow, OversubscribedUplinkIsShared) {
  // 40 NICs of a leaf all send to the next leaf, 2:1 oversubscribed: half the rate each.
  const ClusterNetwork n(make_cluster("dgx-h100", 10, "ndr400-leaf-spine-2to1"));
  std::vector<FlowOf> flows;
  for (EndpointId i = 0; i < 40; ++i) flows.push_back({i, 40 + i, 1e9});
  for (const double t : end_times(n, flows)) EXPECT_NEAR(t, 3.7e-6 + 2 * 1e9 / (50e9 * 0.94), 1e-7);
  flows.resize(20);  // half of them fill the uplink exactly
  for (const double t : end_times(n, flows)) EXPECT_NEAR(t, 3.7e-6 + 1e9 / (50e9 * 0.94), 1e-7);
}

TEST(ClusterFlow, HostMemoryIsSharedByAllThatPassIt) {
  // Eight flows of 0.44 × 31.5 GB/s ask 110.9 GB/s; the memory writes at half of 2 × 204.8 GB/s, so PCIe sets the pace.
  const ClusterNetwork n(make_cluster("rtx-4090-8"));
  std::vector<FlowOf> flows;
  for (EndpointId i = 0; i < 8; ++i) flows.push_back({i, (i + 1) % 8, 1e9});
  for (const double t : end_times(n, flows)) EXPECT_NEAR(t, 10e-6 + 1e9 / (31.5e9 * 0.44), 1e-7);
}

// The same traffic between GPUs of other numbers that play the same part takes the same time.
TEST(ClusterFlow, RelabelledGpusGiveTheSameAnswer) {
  const ClusterNetwork n(make_cluster("dgx-h100", 4, "ndr400-rail"));
  const std::vector<FlowOf> flows{{0, 8, 1e9}, {0, 16, 2e9}, {1, 8, 1e9}, {2, 3, 5e9}, {11, 9, 4e9}};
  const auto moved = [](EndpointId gpu) { return static_cast<EndpointId>((gpu / 8 + 1) % 4 * 8 + (gpu + 3) % 8); };
  std::vector<FlowOf> others;
  for (const FlowOf& f : flows) others.push_back({moved(f.source), moved(f.destination), f.bytes});
  const auto a = end_times(n, flows), b = end_times(n, others);
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i], b[i]) << i;
}

}  // namespace
}  // namespace dssim
