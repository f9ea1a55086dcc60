// SPDX-License-Identifier: Apache-2.0
#include "platforms/cluster_network.hpp"

#include <gtest/gtest.h>

#include "sim/base/names.hpp"

namespace dssim {
namespace {

std::string links(const ClusterNetwork& network, EndpointId from, EndpointId to) {
  return join(network.path(from, to).links, " ");
}

TEST(Routes, Nvswitch) {
  const ClusterNetwork n(make_cluster("dgx-h100", 2, "ndr400-rail"));
  EXPECT_EQ(links(n, 0, 3), "nvlink_up[0] nvlink_down[3]");
  EXPECT_EQ(links(n, 3, 0), "nvlink_up[3] nvlink_down[0]");
  const Path path = n.path(0, 3);
  EXPECT_EQ(path.kind, PathKind::nvlink);
  EXPECT_DOUBLE_EQ(path.bytes_per_s, 450e9 * 0.82);
  EXPECT_DOUBLE_EQ(path.latency_s, 3.33e-6);
}

TEST(Routes, RailsLeavesAndSpine) {
  // 40 nodes: pods of 32. GPU 8n + r sits on rail r of node n.
  const ClusterNetwork n(make_cluster("dgx-h100", 40, "ndr400-rail"));
  EXPECT_EQ(links(n, 1, 9), "pcie_up[1] nic_up[1] nic_down[9] pcie_down[9]");
  const Path same = n.path(1, 9), other_rail = n.path(1, 10), other_pod = n.path(1, 8 * 39 + 1);
  EXPECT_EQ(same.kind, PathKind::network);
  EXPECT_DOUBLE_EQ(same.bytes_per_s, 50e9 * 0.94 < 63e9 * 0.775 ? 50e9 * 0.94 : 63e9 * 0.775);
  EXPECT_DOUBLE_EQ(same.latency_s, 2.8e-6);
  EXPECT_DOUBLE_EQ(other_rail.latency_s, 3.7e-6);  // through the spine, which is non-blocking: no link of its own
  EXPECT_DOUBLE_EQ(other_pod.latency_s, 3.7e-6);
  EXPECT_EQ(join(other_pod.links, " "), "pcie_up[1] nic_up[1] nic_down[313] pcie_down[313]");
}

TEST(Routes, OversubscribedLeaves) {
  const ClusterNetwork n(make_cluster("dgx-h100", 12, "ndr400-leaf-spine-2to1"));  // 5 nodes a leaf
  EXPECT_EQ(links(n, 0, 8 * 4), "pcie_up[0] nic_up[0] nic_down[32] pcie_down[32]");
  EXPECT_EQ(links(n, 0, 8 * 5), "pcie_up[0] nic_up[0] leaf_up[0] leaf_down[1] nic_down[40] pcie_down[40]");
  for (LinkId i = 0; i < n.link_count(); ++i)
    if (n.link_name(i) == "leaf_up[0]") EXPECT_DOUBLE_EQ(n.link_bytes_per_s(i), 5 * 8 * 50e9 * 0.94 / 2);
}

TEST(Routes, BridgesBetweenPairs) {
  const ClusterNetwork n(make_cluster("a100-pcie-4"));
  EXPECT_EQ(links(n, 0, 1), "pair[0.0-1]");
  EXPECT_EQ(links(n, 1, 0), "pair[0.1-0]");
  EXPECT_DOUBLE_EQ(n.path(0, 1).bytes_per_s, 300e9 * 0.63);
  EXPECT_EQ(links(n, 0, 2), "pcie_up[0] socket_out[0] pcie_down[2]");
  EXPECT_DOUBLE_EQ(n.path(0, 2).bytes_per_s, 31.5e9 * 0.76);
  EXPECT_EQ(n.path(0, 2).kind, PathKind::pcie);
}

TEST(Routes, ThroughHostMemory) {
  const ClusterNetwork two(make_cluster("rtx-4090-2")), eight(make_cluster("rtx-4090-8"));
  EXPECT_EQ(links(two, 0, 1), "pcie_up[0] memory_write[0] memory_read[0] pcie_down[1]");
  EXPECT_EQ(two.path(0, 1).kind, PathKind::host);
  EXPECT_DOUBLE_EQ(two.path(0, 1).latency_s, 10e-6);  // in and out again
  EXPECT_EQ(links(eight, 0, 7), "pcie_up[0] socket_out[0] memory_write[0] memory_read[0] pcie_down[7]");
}

TEST(Routes, MeshOfEqualLinks) {
  const ClusterNetwork n(make_cluster("mi300x-8"));
  EXPECT_EQ(links(n, 2, 7), "pair[0.2-7]");
  EXPECT_DOUBLE_EQ(n.path(2, 7).bytes_per_s, 64e9 * 0.70);
}

TEST(Routes, HybridCubeMesh) {
  const ClusterNetwork n(make_cluster("v100-8"));
  EXPECT_DOUBLE_EQ(n.path(0, 1).bytes_per_s, 25e9 * 0.85);  // one link
  EXPECT_DOUBLE_EQ(n.path(0, 3).bytes_per_s, 50e9 * 0.85);  // two
  // No NVLink between 0 and 7: PCIe, two switches, and the link between the sockets.
  EXPECT_EQ(links(n, 0, 7), "pcie_up[0] switch_up[0] socket_out[0] switch_down[3] pcie_down[7]");
  // Every GPU has six links.
  for (EndpointId a = 0; a < 8; ++a) {
    double sum = 0;
    for (EndpointId b = 0; b < 8; ++b)
      if (a != b && n.path(a, b).kind == PathKind::nvlink) sum += n.path(a, b).bytes_per_s;
    EXPECT_NEAR(sum, 150e9 * 0.85, 1) << a;
  }
}

TEST(Routes, PcieSwitchesAndHostMemory) {
  const ClusterNetwork n(make_cluster("dgx-a100", 2, "hdr200-rail"));
  EXPECT_EQ(links(n, n.host(1), n.gpu(9)), "memory_read[1] switch_down[4] pcie_down[9]");
  EXPECT_EQ(links(n, n.gpu(9), n.host(1)), "pcie_up[9] switch_up[4] memory_write[1]");
  EXPECT_EQ(links(n, n.host(0), n.host(1)), "memory_read[0] nic_up[0] nic_down[8] memory_write[1]");
}

TEST(Routes, TcpGoesThroughHostMemoryAndSharesOneNic) {
  const ClusterNetwork n(make_cluster("a40-4", 2, "eth10"));
  EXPECT_EQ(
      links(n, 1, 6),
      "pcie_up[1] memory_write[0] memory_read[0] nic_up[0] nic_down[1] memory_write[1] memory_read[1] pcie_down[6]");
  EXPECT_DOUBLE_EQ(n.path(1, 6).bytes_per_s, 1.25e9 * 0.9415);
  EXPECT_DOUBLE_EQ(n.path(1, 6).latency_s, 30e-6 + 2 * 5e-6);
}

TEST(Routes, NvlinkAcrossTheTraysOfARack) {
  const ClusterNetwork n(make_cluster("gb200-nvl72-tray", 20, "nvl72"));
  EXPECT_EQ(links(n, 0, 71), "nvlink_up[0] nvlink_down[71]");  // tray 17, the rack's last
  EXPECT_EQ(links(n, 0, 72), "pcie_up[0] nic_up[0] nic_down[72] pcie_down[72]");
}

TEST(Routes, FewerGpusThanThereAreUseTheirOwnNics) {
  const ClusterNetwork n(make_cluster("dgx-h100", 2, "ndr400-rail", 4));  // two GPUs a node
  EXPECT_EQ(links(n, 1, 3), "pcie_up[1] nic_up[1] nic_down[9] pcie_down[3]");
}

}  // namespace
}  // namespace dssim
