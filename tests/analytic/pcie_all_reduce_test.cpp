// SPDX-License-Identifier: Apache-2.0

// All-reduce in boxes without a switch, as a tensor-parallel replica there needs it (NCCL takes its ring): closed forms,
// and against measurements.

#include <gtest/gtest.h>

#include "sim/network/collective.hpp"

namespace dssim {
namespace {

const std::vector<int> kAll{0, 1, 2, 3};

struct Box {
  explicit Box(const char* node) : cluster(make_cluster(node)), network(cluster), model(cluster, network, ring()) {}
  double seconds(double bytes, const std::vector<int>& gpus = kAll) const {
    return model.seconds({CollectiveKind::all_reduce, bytes, gpus});
  }
  static CollectiveOptions ring() {
    CollectiveOptions options;
    options.algorithm = "ring";
    return options;
  }
  Cluster cluster;
  ClusterNetwork network;
  CollectiveModel model;
};

TEST(PcieAllReduce, ClosedForm) {
  // 4 A100 over PCIe and bridges: the ring's slowest link is PCIe at 23.94 GB/s. Large sizes: NCCL's Simple protocol,
  // 8.4 us + 6 steps of 5.7 us + 1.5 bytes / 23.94 GB/s.
  const Box box("a100-pcie-4");
  EXPECT_NEAR(box.seconds(64e6), 8.4e-6 + 6 * 5.7e-6 + 1.5 * 64e6 / (31.5e9 * 0.76), 1e-12);
  // Small ones: LL at half the bandwidth.
  EXPECT_NEAR(box.seconds(8192), 6.6e-6 + 6 * 1.0e-6 + 1.5 * 8192 / (31.5e9 * 0.76 / 2), 1e-12);
  EXPECT_EQ(box.seconds(1e9, {2}), 0);
  EXPECT_EQ(box.seconds(64e6, {2, 0, 3, 1}), box.seconds(64e6));  // NCCL orders a ring by place, not by rank
}

// DGX-1V: every GPU has six links to four others, 25 GB/s each; a ring runs over all of them, and nothing over PCIe,
// though GPUs 3 and 4 have no link.
TEST(PcieAllReduce, AHybridCubeMeshUsesAllItsLinks) {
  const Box box("v100-8");
  const std::vector<int> all{0, 1, 2, 3, 4, 5, 6, 7};
  const double link = box.network.path(box.network.gpu(0), box.network.gpu(1)).bytes_per_s;  // one link
  EXPECT_NEAR(link, 25e9 * box.cluster.node.link_efficiency, 1);
  EXPECT_NEAR(box.seconds(1e9, all), 8.4e-6 + 14 * 3.4e-6 + 1.75 * 1e9 / (6 * link), 1e-9);
  // Four GPUs of one half: four links each, all inside it.
  EXPECT_NEAR(box.seconds(1e9), 8.4e-6 + 6 * 3.4e-6 + 1.5 * 1e9 / (4 * link), 1e-9);
}

// microsoft/vidur data/profiling/network/{a100,h100}_pairwise_nvlink, NCCL by PyTorch, 4 GPUs. The bandwidth at large
// sizes is the catalogue's source for pcie_efficiency; how time rises to it is NCCL's model.
TEST(PcieAllReduce, Measured) {
  struct Row {
    const char* node;
    double bytes, measured_s, tolerance;
  };
  for (const Row& row : std::vector<Row>{{"a100-pcie-4", 1048576, 124e-6, 0.15},
                                         {"a100-pcie-4", 4194304, 317e-6, 0.05},
                                         {"a100-pcie-4", 16777216, 1120e-6, 0.05},
                                         {"a100-pcie-4", 67108864, 4268e-6, 0.03},
                                         {"h100-pcie-4", 1048576, 82e-6, 0.12},
                                         {"h100-pcie-4", 4194304, 178e-6, 0.05},
                                         {"h100-pcie-4", 16777216, 556e-6, 0.03},
                                         {"h100-pcie-4", 67108864, 2063e-6, 0.03}}) {
    const double predicted_s = Box(row.node).seconds(row.bytes);
    EXPECT_NEAR(predicted_s / row.measured_s, 1, row.tolerance) << row.node << " " << row.bytes;
    RecordProperty(std::string(row.node) + "_" + std::to_string(static_cast<int64_t>(row.bytes)),
                   std::to_string(predicted_s * 1e6));
  }
}

}  // namespace
}  // namespace dssim
