// SPDX-License-Identifier: Apache-2.0

// Torus, dragonfly and degraded links: shapes, routes and rates.

#include "platforms/fabric_shape.hpp"

#include <gtest/gtest.h>

#include "platforms/cluster_network.hpp"
#include "sim/base/names.hpp"
#include "support/bad_input.hpp"

namespace dssim {
namespace {

TEST(TorusShape, IsAsNearToACubeAsTheCountAllows) {
  EXPECT_EQ(TorusShape(64, 3).sizes(), (std::vector<int>{4, 4, 4}));
  EXPECT_EQ(TorusShape(24, 3).sizes(), (std::vector<int>{4, 3, 2}));
  EXPECT_EQ(TorusShape(16, 2).sizes(), (std::vector<int>{4, 4}));
  EXPECT_EQ(TorusShape(7, 3).sizes(), (std::vector<int>{7, 1, 1}));
}

// The number of hops is the sum over dimensions of the shorter way round, and every hop starts where the last ended.
TEST(TorusShape, GoesTheShorterWayRound) {
  const TorusShape torus(60, 3);  // 5 × 4 × 3
  for (int from = 0; from < 60; ++from)
    for (int to = 0; to < 60; ++to) {
      std::vector<int> links;
      torus.path(from, to, links);
      int expected = 0;
      for (int d = 0; d < 3; ++d) {
        const int size = torus.sizes()[static_cast<size_t>(d)];
        const int apart = std::abs(torus.coordinate(from, d) - torus.coordinate(to, d));
        expected += std::min(apart, size - apart);
      }
      ASSERT_EQ(static_cast<int>(links.size()), expected);
      for (const int link : links) ASSERT_LT(link, torus.link_count());
      if (!links.empty()) ASSERT_EQ(links.front() / 6, from);
    }
}

// All nodes to all: a ring of n (even) has n²/4 steps a node, over 2 links a node: n/8 a link and peer, whichever way.
TEST(TorusShape, AllToAllLoadsBothDirectionsAlike) {
  const TorusShape torus(64, 3);
  std::vector<int> load(static_cast<size_t>(torus.link_count()), 0);
  for (int from = 0; from < 64; ++from)
    for (int to = 0; to < 64; ++to) {
      std::vector<int> links;
      torus.path(from, to, links);
      for (const int link : links) ++load[static_cast<size_t>(link)];
    }
  for (const int count : load) EXPECT_EQ(count, 64 / 2);  // 64 peers × 3 steps over 6 links
}

TEST(DragonflyShape, GoesLocalGlobalLocalAtMost) {
  const DragonflyShape dragonfly(64, 2, 8);  // 32 leaves in 4 groups
  EXPECT_EQ(dragonfly.groups(), 4);
  for (int from = 0; from < 64; ++from)
    for (int to = 0; to < 64; ++to) {
      std::vector<int> locals, globals;
      dragonfly.path(from, to, locals, globals);
      EXPECT_EQ(globals.size(), dragonfly.same_group(from, to) ? 0U : 1U);
      EXPECT_LE(locals.size(), dragonfly.same_group(from, to) ? 1U : 2U);
      if (from / 2 == to / 2) EXPECT_TRUE(locals.empty());
      for (const int link : locals) ASSERT_LT(link, dragonfly.local_count());
      for (const int link : globals) ASSERT_LT(link, dragonfly.global_count());
    }
}

TEST(Routes, TorusAndDragonfly) {
  const ClusterNetwork torus(make_cluster("dgx-h100", 8, "torus-3d-400"));
  const Path corner = torus.path(0, 8 * 7);
  EXPECT_EQ(join(corner.links, " "), "pcie_up[0] torus[0] torus[8] torus[22] pcie_down[56]");
  EXPECT_NEAR(corner.latency_s, 2.8e-6 + 2 * 0.3e-6, 1e-12);
  EXPECT_DOUBLE_EQ(corner.bytes_per_s, 50e9 * 0.94);

  const ClusterNetwork dragonfly(make_cluster("dgx-h100", 32, "dragonfly-400"));  // 2 groups of 16 nodes
  const Path far = dragonfly.path(8 * 4, 8 * 31);  // leaf 2 of group 0 to leaf 7 of group 1
  EXPECT_EQ(join(far.links, " "), "pcie_up[32] nic_up[32] local[17] local[71] global[1] nic_down[248] pcie_down[248]");
  EXPECT_NEAR(far.latency_s, 3.8e-6, 1e-12);
  for (LinkId link = 0; link < dragonfly.link_count(); ++link)
    if (dragonfly.link_name(link) == "global[1]")
      EXPECT_DOUBLE_EQ(dragonfly.link_bytes_per_s(link),
                       8 * 16 * 50e9 * 0.94);  // all of a group's ports to the one other
}

TEST(DegradedLinks, HaveTheirShareOfTheRate) {
  Cluster cluster = make_cluster("dgx-h100", 2, "ndr400-rail");
  cluster.degraded.push_back({"nic_up[8]", 0.25, "x.toml:5: cluster.degraded.nic_up[8]"});
  const ClusterNetwork network(cluster);
  EXPECT_DOUBLE_EQ(network.path(8, 0).bytes_per_s, 50e9 * 0.94 / 4);
  EXPECT_DOUBLE_EQ(network.path(0, 8).bytes_per_s, 50e9 * 0.94);
  cluster.degraded[0].link = "nic_up[16]";
  const std::string error = test::bad_input_of([&] { ClusterNetwork{cluster}; });
  EXPECT_NE(error.find("x.toml:5"), std::string::npos);
  EXPECT_NE(error.find("no such link"), std::string::npos);
}

}  // namespace
}  // namespace dssim
