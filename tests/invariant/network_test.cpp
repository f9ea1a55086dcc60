// SPDX-License-Identifier: Apache-2.0

// What must hold on any cluster: routes are sound, faster links never slow a transfer down, links never carry more than
// they can, two runs are equal.

#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <set>
#include <vector>

#include "platforms/cluster_network.hpp"
#include "sim/engine/simulation.hpp"
#include "tests/support/run_forked.hpp"

namespace dssim {
namespace {

struct Case {
  const char* node;
  int nodes;
  const char* fabric;
};
const std::vector<Case> kCases{{"dgx-h100", 6, "ndr400-rail"},
                               {"dgx-a100", 45, "hdr200-rail"},
                               {"a40-4", 3, "eth10"},
                               {"rtx-4090-8", 2, "roce25"},
                               {"v100-8", 3, "edr100"},
                               {"mi300x-8", 4, "ndr400-fat-tree"},
                               {"hgx-a100-4", 5, "hdr200-fat-tree"},
                               {"dgx-h100", 12, "ndr400-leaf-spine-2to1"},
                               {"gb200-nvl72-tray", 20, "nvl72"}};

TEST(NetworkInvariant, RoutesAreSound) {
  for (const Case& c : kCases) {
    const ClusterNetwork n(make_cluster(c.node, c.nodes, c.fabric));
    std::set<std::string> names;
    for (LinkId link = 0; link < n.link_count(); ++link) {
      EXPECT_GT(n.link_bytes_per_s(link), 0) << c.node;
      EXPECT_TRUE(names.insert(n.link_name(link)).second) << n.link_name(link);
    }
    Route there, back;
    for (EndpointId a = 0; a < n.endpoint_count(); ++a) {
      for (EndpointId b = 0; b < n.endpoint_count(); ++b) {
        n.route(a, b, there);
        n.route(b, a, back);
        ASSERT_EQ(there.links.empty(), a == b);
        ASSERT_EQ(there.latency_s, back.latency_s);
        ASSERT_EQ(there.links.size(), back.links.size());
        std::set<LinkId> distinct(there.links.begin(), there.links.end());
        ASSERT_EQ(distinct.size(), there.links.size());
        // Full duplex: the way back uses no link of the way there, host memory apart, which both ways write and read.
        for (const LinkId link : back.links)
          if (!n.link_name(link).starts_with("memory_")) {
            ASSERT_FALSE(distinct.contains(link)) << c.node << " " << n.link_name(link);
          }
        for (const LinkId link : there.links) ASSERT_LT(link, n.link_count());
      }
    }
  }
}

struct Flow {
  EndpointId source, destination;
  double bytes, start_s;
};

std::vector<Flow> random_flows(const ClusterNetwork& n, unsigned seed, size_t count) {
  std::mt19937 random(seed);
  std::vector<Flow> flows;
  for (size_t i = 0; i < count; ++i)
    flows.push_back({static_cast<EndpointId>(random() % n.endpoint_count()),
                     static_cast<EndpointId>(random() % n.endpoint_count()), static_cast<double>(random() % 1000000000),
                     static_cast<double>(random() % 1000) * 1e-4});
  return flows;
}

struct Player : EventHandler {
  Player(Simulation& s, const std::vector<Flow>& f) : sim(s), flows(f), ends(f.size(), -1), end(*this) {
    for (size_t i = 0; i < flows.size(); ++i) sim.at(flows[i].start_s, *this, i);
  }
  void on_event(uint64_t tag) override {
    sim.transfer(flows[tag].source, flows[tag].destination, flows[tag].bytes, end, tag);
  }
  struct End : EventHandler {
    explicit End(Player& p) : player(p) {}
    void on_event(uint64_t tag) override { player.ends[tag] = player.sim.now(); }
    Player& player;
  };
  Simulation& sim;
  const std::vector<Flow>& flows;
  std::vector<double> ends;
  End end;
};

std::vector<double> play(const ClusterNetwork& n, const std::vector<Flow>& flows) {
  return test::run_forked([&] {
    Simulation sim(n);
    Player player(sim, flows);
    sim.run();
    return player.ends;
  });
}

TEST(NetworkInvariant, NoFlowBeatsItsPathAndNoLinkItsCapacity) {
  for (const Case& c : kCases) {
    const ClusterNetwork n(make_cluster(c.node, c.nodes, c.fabric));
    const auto flows = random_flows(n, 11, 60);
    const auto ends = play(n, flows);
    ASSERT_EQ(ends.size(), flows.size());
    std::vector<double> bytes(n.link_count()), first(n.link_count(), 1e30), last(n.link_count());
    Route route;
    for (size_t i = 0; i < flows.size(); ++i) {
      const Path path = n.path(flows[i].source, flows[i].destination);
      EXPECT_GE(ends[i], flows[i].start_s + path.latency_s + flows[i].bytes / path.bytes_per_s - 1e-7)
          << c.node << " " << i;
      n.route(flows[i].source, flows[i].destination, route);
      for (const LinkId link : route.links) {
        bytes[link] += flows[i].bytes;
        first[link] = std::min(first[link], flows[i].start_s);
        last[link] = std::max(last[link], ends[i]);
      }
    }
    for (LinkId link = 0; link < n.link_count(); ++link)
      if (bytes[link] > 0)
        EXPECT_LE(bytes[link], n.link_bytes_per_s(link) * (last[link] - first[link] + 1e-7)) << n.link_name(link);
  }
}

TEST(NetworkInvariant, TwoRunsAreEqual) {
  const ClusterNetwork n(make_cluster("dgx-h100", 6, "ndr400-leaf-spine-2to1"));
  const auto flows = random_flows(n, 5, 200);
  EXPECT_EQ(play(n, flows), play(n, flows));
}

// One transfer from GPU 0, alone on the network.
double alone_s(const ClusterNetwork& network, int gpu, double bytes) {
  const Path path = network.path(network.gpu(0), network.gpu(gpu));
  return path.latency_s + bytes / path.bytes_per_s;
}

TEST(NetworkInvariant, MoreBandwidthNeverSlowsATransfer) {
  for (const Case& c : kCases) {
    Cluster slow = make_cluster(c.node, c.nodes, c.fabric), fast = slow;
    fast.fabric->nic_bytes_per_s *= 2;
    fast.gpu.pcie_bytes_per_s *= 2;
    fast.gpu.nvlink_bytes_per_s *= 2;
    const ClusterNetwork a(slow), b(fast);
    for (const double bytes : {1e3, 1e5, 1e7, 1e9})
      EXPECT_LE(alone_s(b, slow.gpus - 1, bytes), alone_s(a, slow.gpus - 1, bytes));
  }
}

}  // namespace
}  // namespace dssim
