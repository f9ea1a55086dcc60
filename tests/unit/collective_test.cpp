// SPDX-License-Identifier: Apache-2.0

// The parts of the collectives: bus bandwidth, trees, groups, measured curves, what a user can write.

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>

#include "kernels/cost_model.hpp"
#include "sim/base/files.hpp"
#include "sim/network/collective_algorithm.hpp"
#include "sim/network/collective_tables.hpp"
#include "sim/network/double_tree.hpp"
#include "sim/study/collective_run.hpp"
#include "support/bad_input.hpp"

namespace dssim {
namespace {

using test::bad_input_of;
using enum CollectiveKind;

TEST(BusBandwidth, FactorsAreThoseOfNcclTests) {
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(all_reduce, 8), 1.75);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(all_gather, 8), 0.875);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(reduce_scatter, 4), 0.75);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(all_to_all, 2), 0.5);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(broadcast, 8), 1);
  EXPECT_DOUBLE_EQ(bus_bandwidth_factor(send_recv, 8), 1);
}

// Each tree reaches every node, no node has more than two children, and none has children in both trees.
TEST(DoubleTree, IsTwoBinaryTreesWithDisjointInnerNodes) {
  for (int n = 2; n <= 70; ++n) {
    const DoubleTree tree = double_tree(n);
    std::vector<std::set<int>> inner;
    for (const auto* parents : {&tree.first, &tree.second}) {
      ASSERT_EQ(parents->size(), static_cast<size_t>(n));
      std::vector<int> children(static_cast<size_t>(n));
      int roots = 0;
      for (int i = 0; i < n; ++i) {
        int at = i, steps = 0;
        while ((*parents)[static_cast<size_t>(at)] >= 0 && steps <= n) {
          at = (*parents)[static_cast<size_t>(at)];
          ++steps;
        }
        ASSERT_LE(steps, n) << "a cycle in the tree of " << n;
        const int parent = (*parents)[static_cast<size_t>(i)];
        if (parent < 0)
          ++roots;
        else
          ++children[static_cast<size_t>(parent)];
      }
      EXPECT_EQ(roots, 1) << n;
      inner.emplace_back();
      for (int i = 0; i < n; ++i) {
        EXPECT_LE(children[static_cast<size_t>(i)], 2) << n;
        if (children[static_cast<size_t>(i)] > 0) inner.back().insert(i);
      }
    }
    std::vector<int> both;
    std::set_intersection(inner[0].begin(), inner[0].end(), inner[1].begin(), inner[1].end(), std::back_inserter(both));
    EXPECT_LE(both.size(), n % 2 == 0 ? 0U : 1U) << n;  // in an odd count one node is inner twice
  }
}

TEST(CollectiveGroupOf, FindsDomainsAndRails) {
  const Cluster cluster = make_cluster("dgx-h100", 4, "ndr400-rail");
  const ClusterNetwork network(cluster);
  const std::vector<int> gpus{9, 0, 1, 8, 25, 24};
  const CollectiveGroup group = make_group(cluster, network, gpus);
  ASSERT_EQ(group.domain_count(), 3);
  EXPECT_EQ(group.domains[2], (std::vector<int>{24, 25}));
  EXPECT_EQ(group.rails, 2);  // every DGX H100 GPU has a NIC of its own
  EXPECT_EQ(group.heads[1], (std::vector<int>{8, 9}));
  EXPECT_TRUE(group.nvlink);
  EXPECT_TRUE(group.switched);
  EXPECT_FALSE(group.domain_spans_nodes);
}

TEST(CollectiveGroupOf, CountsAnNvl72RackAsOneDomain) {
  const Cluster cluster = make_cluster("gb200-nvl72-tray", 36, "nvl72");
  const ClusterNetwork network(cluster);
  std::vector<int> gpus(144);
  for (int i = 0; i < 144; ++i) gpus[static_cast<size_t>(i)] = i;
  const CollectiveGroup group = make_group(cluster, network, gpus);
  EXPECT_EQ(group.domain_count(), 2);
  EXPECT_EQ(group.largest_domain, 72);
  EXPECT_EQ(group.rails, 72);
  EXPECT_TRUE(group.domain_spans_nodes);
}

TEST(CollectiveGroupOf, RefusesWhatIsNoGroup) {
  const Cluster cluster = make_cluster("dgx-h100");
  const ClusterNetwork network(cluster);
  EXPECT_THROW(make_group(cluster, network, std::vector<int>{0, 8}), Error);
  EXPECT_THROW(make_group(cluster, network, std::vector<int>{3, 3}), Error);
  EXPECT_THROW(make_group(cluster, network, std::vector<int>{}), Error);
}

TEST(CollectiveCurve, IsLinearBetweenPointsAndGoesOnBeyondThem) {
  CollectiveCurve curve;
  curve.add(1000, 10e-6);
  curve.add(2000, 12e-6);
  curve.add(4000, 20e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(500), 10e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(1500), 11e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(2000), 12e-6);
  EXPECT_DOUBLE_EQ(curve.seconds(8000), 36e-6);
  EXPECT_EQ(curve.coverage(1500), Coverage::inside);
  EXPECT_EQ(curve.coverage(8000), Coverage::edge);
  EXPECT_EQ(curve.coverage(8001), Coverage::outside);
}

TEST(CollectiveCurve, TakesTheShapeBetweenItsPointsFromAnother) {
  CollectiveCurve curve, other;
  for (const auto& [bytes, seconds] : {std::pair{1000.0, 10e-6}, {16000.0, 40e-6}}) curve.add(bytes, seconds);
  for (const auto& [bytes, seconds] : {std::pair{500.0, 1e-6}, {1000.0, 5e-6}, {4000.0, 20e-6}, {16000.0, 40e-6}})
    other.add(bytes, seconds);
  curve.complete_from(other);
  EXPECT_DOUBLE_EQ(curve.seconds(1000), 10e-6);  // its own stay
  EXPECT_DOUBLE_EQ(curve.seconds(16000), 40e-6);
  EXPECT_NEAR(curve.seconds(4000), 20e-6 * std::sqrt(2), 1e-12);  // twice as slow at one end, as quick at the other
  EXPECT_EQ(curve.points().count(500), 0U);                       // nothing beyond its own range
}

// The H200's own table of all_gather on 8 GPUs has no 32 KiB; the H100's has.
TEST(CollectiveTables, AreFilledInFromTheSameArchitecture) {
  const Profile own(data_root() / "kernels/profiles", "h200-sxm", "vllm-0.19");
  const auto points = [](const CollectiveTables& t) { return t.curves(CollectiveKind::all_gather).at(8).points(); };
  ASSERT_EQ(points(CollectiveTables(own, "h200-sxm")).count(32768), 0U);
  const auto found = CollectiveTables::find(load_gpu("h200-sxm"), "vllm-0.19");
  ASSERT_TRUE(found);
  EXPECT_EQ(points(*found).count(32768), 1U);
  // Whose sizes those are is said where a run names its sources.
  EXPECT_NE(found->completed_from().find("kernels/profiles/h100-sxm/"), std::string::npos) << found->completed_from();
  const Cluster cluster = make_cluster("dgx-h200", 1);
  const ClusterNetwork network(cluster);
  const auto sources = CollectiveModel(cluster, network, {}).sources();
  EXPECT_TRUE(std::any_of(sources.begin(), sources.end(), [&](const std::string& line) {
    return line.find("h100-sxm") != std::string::npos && line.find("step over") != std::string::npos;
  }));
}

// A calibration of a GPU that the catalogue does not know, and one that was cut short or damaged, leave other runs alone.
TEST(CollectiveTables, AreFoundBesideProfilesOfUnknownGpusAndDamagedOnes) {
  const test::ScratchFolder root;
  const std::filesystem::path source = data_root(), profiles = root.path() / "kernels/profiles";
  std::filesystem::create_directories(profiles / "my-gpu");
  std::filesystem::create_directories(profiles / "h100-sxm/broken");
  std::filesystem::create_directory_symlink(source / "platforms", root.path() / "platforms");
  for (const char* own : {"h200-sxm", "my-gpu"})
    std::filesystem::copy(source / "kernels/profiles/h200-sxm", profiles / own,
                          std::filesystem::copy_options::recursive);
  std::ofstream(profiles / "h100-sxm/broken/stack.toml") << "title = [";
  setenv("DSSIM_DATA", root.path().c_str(), 1);
  const auto found = CollectiveTables::find(load_gpu("h200-sxm"), "vllm-0.19");
  const auto names = dssim::profiles();
  unsetenv("DSSIM_DATA");
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->gpu(), "h200-sxm");
  EXPECT_TRUE(std::none_of(names.begin(), names.end(), [](const auto& n) { return n.stack == "broken"; }));
}

TEST(CollectiveSizes, AreReadAsRangesAndLists) {
  EXPECT_EQ(parse_sizes("1MiB..8MiB"), (std::vector<double>{1048576, 2097152, 4194304, 8388608}));
  EXPECT_EQ(parse_sizes("1MiB..16MiB*4"), (std::vector<double>{1048576, 4194304, 16777216}));
  EXPECT_EQ(parse_sizes("1 MB,64KiB"), (std::vector<double>{1e6, 65536}));
  EXPECT_NE(bad_input_of([] { parse_sizes("8MiB..1MiB"); }).find("upwards"), std::string::npos);
  EXPECT_NE(bad_input_of([] { parse_sizes("1MiB..8MiB*1"); }).find("factor above 1"), std::string::npos);
  EXPECT_NE(bad_input_of([] { parse_sizes("lots"); }).find("lots"), std::string::npos);
  EXPECT_NE(bad_input_of([] { parse_sizes("1B..1TB*1.000001"); }).find("more than"), std::string::npos);
}

TEST(CollectiveScenario, RefusesWhatItCannotRead) {
  const test::ScratchFolder folder;
  const auto run = [&](const std::string& text, CollectiveQuery query) {
    query.bytes = {1e6};
    const auto path = folder.write("s.toml", text);
    return bad_input_of([&] { run_collectives(path.string(), {}, query); });
  };
  const std::string cluster = "[cluster]\nnode = \"dgx-h100\"\n";
  EXPECT_EQ(run(cluster, {}), "");
  EXPECT_NE(run(cluster + "[network]\nalgorithm = \"rings\"\n", {}).find("did you mean 'ring'"), std::string::npos);
  EXPECT_NE(run(cluster + "[network]\nsharpe = true\n", {}).find("sharp"), std::string::npos);
  CollectiveQuery query;
  query.gpus = 9;
  EXPECT_NE(run(cluster, query).find("the cluster has 8"), std::string::npos);
  query.gpus = 3;
  query.stride = 4;
  EXPECT_NE(run(cluster, query).find("the cluster has 2 with --stride 4"), std::string::npos);
  EXPECT_NE(bad_input_of([] { parse_collective("allreduce"); }).find("all_reduce"), std::string::npos);
}

}  // namespace
}  // namespace dssim
