// SPDX-License-Identifier: Apache-2.0
// What must hold of every training step: parts sum to it, more bandwidth never slows it, and the network of one group
// that stands for all agrees with all of them simulated as flows.
#include <gtest/gtest.h>

#include "sim/training/sharding.hpp"
#include "sim/training/step.hpp"
#include "support/run_forked.hpp"
#include "support/training.hpp"

namespace dssim {
namespace {

using test::cluster_of;
using test::job_with_defaults;

const std::string kFabric = "fabric = \"ndr400-rail\"\n";

std::vector<TrainingJob> jobs(const TrainingStack& stack) {
  std::vector<TrainingJob> list;
  TrainingJob base = job_with_defaults(stack, load_model("llama-3-8b"));
  base.sequence = 4096;
  base.global_batch = 64;
  base.data_parallel = 32;
  base.sequence_parallel = false;
  list.push_back(base);
  for (const auto sharding : {Sharding::zero1, Sharding::zero2, Sharding::zero3}) {
    list.push_back(base);
    list.back().sharding = sharding;
  }
  list.push_back(base);
  list.back().tensor_parallel = 4;
  list.back().pipeline_parallel = 4;
  list.back().data_parallel = 2;
  list.back().recompute = Recompute::full;
  list.push_back(list.back());
  list.back().sequence_parallel = true;
  list.back().schedule = "interleaved";
  list.back().virtual_stages = 2;
  list.push_back(list.back());
  list.back().virtual_stages = 1;
  list.back().schedule = "zero-bubble";
  list.push_back(list.back());
  list.back().schedule = "dualpipe";
  list.push_back(base);
  list.back().context_parallel = 4;
  list.back().data_parallel = 8;
  list.push_back(base);
  list.back().compression = GradientCompression::four_bit;
  list.push_back(base);
  list.back().exchange = GradientExchange::parameter_server;
  list.back().parameter_servers = 2;
  list.push_back(base);
  list.back().model = load_model("mixtral-8x7b");
  list.back().expert_parallel = 8;
  list.push_back(base);
  list.back().jitter = 0.05;
  list.back().slow_gpu = 1.2;
  list.back().input_sequences_per_s_per_node = 1;
  return list;
}

TEST(TrainingStep, PartsSumToTheStep) {
  StepPredictor predictor(cluster_of("dgx-h100", 32, 8, kFabric), "torch-2.11");
  for (const auto& job : jobs(predictor.stack())) {
    ASSERT_FALSE(training_problem(job)) << training_problem(job).message;
    const auto step = predictor.predict(job);
    const StepParts& p = step.parts;
    EXPECT_NEAR(p.compute_s + p.tensor_s + p.pipeline_bubble_s + p.data_s + p.expert_s + p.other_s(), step.step_s(),
                1e-6 * step.step_s());
    for (const double part : {p.compute_s, p.tensor_s, p.pipeline_bubble_s, p.data_s, p.expert_s, p.context_s,
                              p.recompute_s, p.optimizer_s, p.host_s, p.stragglers_s, p.input_s})
      EXPECT_GE(part, 0);
    EXPECT_GT(step.mfu(), 0);
    EXPECT_LT(step.hfu(), 1);
    EXPECT_GE(step.hfu(), step.mfu());
    EXPECT_NEAR(step.tokens_per_s * step.step_s(), job.tokens_per_step(), 1e-6 * job.tokens_per_step());
  }
}

TEST(TrainingStep, MoreBandwidthIsNeverSlower) {
  const std::string slower[] = {"\"gpu.nvlink\" = \"200 GB/s\"", "\"fabric.port\" = \"100 Gb/s\"",
                                "\"gpu.memory_bandwidth\" = \"1500 GB/s\""};
  StepPredictor sold(cluster_of("dgx-h100", 32, 8, kFabric), "torch-2.11");
  for (const auto& override_text : slower) {
    StepPredictor less(cluster_of("dgx-h100", 32, 8, kFabric + "override = { " + override_text + " }\n"), "torch-2.11");
    bool any = false;
    for (const auto& job : jobs(sold.stack())) {
      const double fast = sold.predict(job).step_s(), slow = less.predict(job).step_s();
      EXPECT_LE(fast, slow * (1 + 1e-9)) << override_text << ", schedule " << job.schedule;
      any = any || fast < slow;
    }
    EXPECT_TRUE(any) << override_text << " changes nothing";
  }
}

TEST(TrainingStep, EachDisturbanceCosts) {
  StepPredictor predictor(cluster_of("dgx-h100", 32, 8, kFabric), "torch-2.11");
  TrainingJob job = jobs(predictor.stack()).front();
  const double base = predictor.predict(job).step_s();
  const auto with = [&](const auto& change) {
    TrainingJob changed = job;
    change(changed);
    return predictor.predict(changed).step_s();
  };
  EXPECT_GT(with([](TrainingJob& j) { j.jitter = 0.05; }), base);
  EXPECT_NEAR(with([](TrainingJob& j) { j.slow_gpu = 1.5; }) / base, 1.5, 0.1);
  EXPECT_GT(with([](TrainingJob& j) { j.overlap_gradients = false; }), base);
  EXPECT_GT(with([](TrainingJob& j) { j.recompute = Recompute::full; }), base);
  EXPECT_GT(with([](TrainingJob& j) { j.master_weights = true; }), base);
  EXPECT_GT(with([](TrainingJob& j) { j.precision = Precision::tf32; }), base);
  EXPECT_LT(with([](TrainingJob& j) { j.precision = Precision::fp8; }), base);
  // 64 sequences at one a second on each of four nodes.
  EXPECT_NEAR(with([](TrainingJob& j) { j.input_sequences_per_s_per_node = 1; }), 16, 1e-6);
}

struct Ends final : EventHandler {
  Simulation* simulation = nullptr;
  double last_s = 0;
  void on_event(uint64_t) override { last_s = simulation->now(); }
};

// Every group of this stride and size at once, as flows on the whole network.
double simulate_all(const Cluster& cluster, CollectiveKind kind, Group group, double bytes) {
  return test::run_forked([&] {
    ClusterNetwork network(cluster);
    CollectiveOptions options;
    options.tables = false;
    CollectiveModel model(cluster, network, options);
    Simulation simulation(network);
    CollectiveTraffic traffic(simulation, model);
    Ends ends;
    ends.simulation = &simulation;
    std::vector<std::vector<int>> groups;
    for (int block = 0; block < cluster.gpus; block += group.block())
      for (int first = block; first < block + group.stride; ++first) {
        groups.emplace_back();
        for (int i = 0; i < group.size; ++i) groups.back().push_back(first + i * group.stride);
      }
    for (const auto& members : groups) traffic.start({kind, bytes, members}, ends);
    simulation.run();
    return ends.last_s;
  });
}

TEST(TrainingNetwork, OneGroupStandsForAllThatShareItsLinks) {
  // Rails of their own; NICs shared by two GPUs; a plain tree with one NIC a node; groups inside the node; PCIe alone.
  const Cluster clusters[] = {
      cluster_of("dgx-h100", 32, 8, kFabric),
      cluster_of("dgx-a100", 32, 8, "fabric = \"hdr200-fat-tree\"\noverride = { \"fabric.nics_per_node\" = 4 }\n"),
      cluster_of("a40-4", 16, 4, "fabric = \"roce100\"\n")};
  for (const auto& cluster : clusters) {
    ClusterNetwork network(cluster);
    CollectiveOptions options;
    options.tables = false;
    CollectiveModel model(cluster, network, options);
    GroupNetwork groups(cluster, network, model, cluster.gpus);
    const int per_node = cluster.gpus_per_node();
    for (const auto kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter})
      for (const Group group :
           {Group{1, per_node}, Group{per_node, cluster.nodes}, Group{1, cluster.gpus}, Group{2, cluster.gpus / 2}}) {
        const double whole = simulate_all(cluster, kind, group, 256e6), collapsed = groups.seconds(kind, group, 256e6);
        EXPECT_NEAR(collapsed / whole, 1, 0.02)
            << cluster.node.name << " " << name_of(kind) << " stride " << group.stride << " size " << group.size;
      }
  }
}

TEST(TrainingStep, ExposureOfBuckets) {
  EXPECT_EQ(exposed_seconds(0, 1, 4), 0);
  EXPECT_DOUBLE_EQ(exposed_seconds(0.4, 1, 4), 0.1);         // hidden but for the last bucket
  EXPECT_DOUBLE_EQ(exposed_seconds(2, 1, 4), 0.25 + 2 - 1);  // queueing since the first
  EXPECT_DOUBLE_EQ(exposed_seconds(2, 1, 1), 2);             // one bucket: nothing is hidden
}

}  // namespace
}  // namespace dssim
