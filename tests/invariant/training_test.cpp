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
  list.back().model = load_model("deepseek-v2-lite");
  list.back().expert_parallel = 32;
  list.back().dispatch = ExpertDispatch::deepep;
  list.back().mtp = 1;
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

// A leaf's uplink carries the traffic of many NICs, at the rate of many: no link is busy for longer than the step.
TEST(TrainingStep, NoLinkIsBusierThanTheStep) {
  for (const char* fabric : {"ndr400-rail", "ndr400-leaf-spine-2to1", "roce100"}) {
    StepPredictor predictor(cluster_of("dgx-h100", 128, 8, fmt::format("fabric = \"{}\"\n", fabric)), "torch-2.11");
    TrainingJob job = job_with_defaults(predictor.stack(), load_model("mixtral-8x7b"));
    job.expert_parallel = 8;
    job.tensor_parallel = 8;
    job.data_parallel = 16;
    job.global_batch = 32;
    job.overlap_gradients = false;  // each kind of traffic is priced by itself: beside each other they may ask for more
    for (const auto dispatch : {ExpertDispatch::all_to_all, ExpertDispatch::deepep}) {
      job.dispatch = dispatch;
      ASSERT_FALSE(training_problem(job)) << training_problem(job).message;
      const auto step = predictor.predict(job);
      EXPECT_GT(step.fabric.bytes, 0) << fabric;
      EXPECT_LE(step.fabric.seconds, step.step_s()) << fabric;
      EXPECT_LE(step.node_link.seconds, step.step_s()) << fabric;
    }
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

// Collectives in chunks beside products: at least one chunk of each shows, and never more than without.
TEST(TrainingStep, OverlappedTensorCollectivesShowAChunk) {
  StepPredictor predictor(cluster_of("dgx-h100", 8, 8), "megatron");
  TrainingJob job = job_with_defaults(predictor.stack(), load_model("llama-3-8b"));
  job.tensor_parallel = 4;
  job.data_parallel = 2;
  job.sequence_parallel = true;
  job.sequence = 4096;
  job.global_batch = 2;
  const auto plain = predictor.predict(job);
  job.overlap_tensor = true;
  const auto overlapped = predictor.predict(job);
  EXPECT_LT(overlapped.parts.tensor_s, 0.7 * plain.parts.tensor_s);
  EXPECT_GT(overlapped.parts.tensor_s, plain.parts.tensor_s / job.tensor_parallel);
  // Products in four pieces are a little slower than whole.
  EXPECT_GT(overlapped.parts.compute_s, plain.parts.compute_s);
  EXPECT_LT(overlapped.parts.compute_s, 1.1 * plain.parts.compute_s);
  EXPECT_LT(overlapped.step_s(), plain.step_s());
  job.sequence_parallel = false;  // whole all-reduces are not cut up
  const auto whole = predictor.predict(job);
  job.overlap_tensor = false;
  EXPECT_DOUBLE_EQ(whole.step_s(), predictor.predict(job).step_s());
}

// What a second micro-batch adds beyond its own passes: 3 passes over the gradients, or nothing that products hide.
TEST(TrainingStep, FusedAccumulationHidesBehindTheProducts) {
  for (const char* stack : {"torch-2.11", "megatron"}) {
    StepPredictor predictor(cluster_of("dgx-h100", 1, 8), stack);
    TrainingJob job = job_with_defaults(predictor.stack(), load_model("llama-3-8b"));
    job.sequence = 8192;
    job.global_batch = 1;
    const double once = predictor.predict(job).parts.compute_s;
    job.global_batch = 2;
    const double added = predictor.predict(job).parts.compute_s - 2 * once;
    const double pass_s = job.model.parameters() * bytes_of(job.gradient_precision) /
                          (predictor.cluster().gpu.memory_bytes_per_s * predictor.stack().memory_efficiency);
    EXPECT_NEAR(added, predictor.stack().fused_accumulation ? 0 : 2 * 3 * pass_s, 1e-3 * pass_s) << stack;
  }
}

// 8-bit products save less than the products do: casts move 4 bytes for every value that no other kernel writes in 8
// bits, transposes in backward 2 bytes for those that some did.
TEST(TrainingStep, EightBitProductsPayForTheirCasts) {
  StepPredictor predictor(cluster_of("dgx-h100", 1, 8), "megatron");
  TrainingJob job = job_with_defaults(predictor.stack(), load_model("llama-3-8b"));
  job.sequence = 8192;
  job.global_batch = 1;
  const auto cost = [&](Precision precision) {
    job.precision = precision;
    const Cluster& cluster = predictor.cluster();
    const ClusterNetwork network(cluster);
    const CollectiveModel collectives(cluster, network);
    GroupNetwork groups(cluster, network, collectives, 1);
    return LayerCost(job, predictor.stack(), predictor.kernels(), groups).layer(LayerKind::dense);
  };
  const auto eight = cost(Precision::fp8), sixteen = cost(Precision::bf16);
  const double pass_s = 8192 * 4.0 / (predictor.cluster().gpu.memory_bytes_per_s * predictor.stack().memory_efficiency);
  const auto rest = [](const PassCost& pass) { return pass.compute_s - pass.product_s; };
  EXPECT_NEAR(rest(eight.forward) - rest(sixteen.forward), 4096 * pass_s, 1e-9);
  EXPECT_NEAR(rest(eight.backward) - rest(sixteen.backward),
              (4096 + 2 * 1024 + 2 * 4096 + (2 * 4096 + 14336) / 2.0) * pass_s, 1e-9);
  EXPECT_LT(eight.forward.product_s, sixteen.forward.product_s);
}

TEST(TrainingNetwork, OneGroupStandsForAllThatShareItsLinks) {
  // Rails of their own; NICs shared by two GPUs; a plain tree with one NIC a node; groups inside the node; PCIe alone;
  // leaves and ports that other nodes' groups pass as well.
  const Cluster clusters[] = {
      cluster_of("dgx-h100", 32, 8, kFabric),
      cluster_of("dgx-a100", 32, 8, "fabric = \"hdr200-fat-tree\"\noverride = { \"fabric.nics_per_node\" = 4 }\n"),
      cluster_of("a40-4", 16, 4, "fabric = \"roce100\"\n"),
      cluster_of("dgx-h100", 64, 8,
                 "fabric = \"ndr400-leaf-spine-2to1\"\noverride = { \"fabric.nodes_per_leaf\" = 2 }\n"),
      cluster_of("dgx-h100", 128, 8, "fabric = \"torus-2d-400\"\n")};
  for (const auto& cluster : clusters) {
    ClusterNetwork network(cluster);
    CollectiveOptions options;
    options.tables = false;
    CollectiveModel model(cluster, network, options);
    GroupNetwork groups(cluster, network, model, cluster.gpus);
    const int per_node = cluster.gpus_per_node();
    for (const auto kind : {CollectiveKind::all_reduce, CollectiveKind::all_gather, CollectiveKind::reduce_scatter})
      for (const Group group : {Group{1, per_node}, Group{per_node, cluster.nodes}, Group{1, cluster.gpus},
                                Group{2, cluster.gpus / 2}, Group{2 * per_node, cluster.nodes / 2}}) {
        const double whole = simulate_all(cluster, kind, group, 256e6), collapsed = groups.seconds(kind, group, 256e6);
        EXPECT_NEAR(collapsed / whole, 1, 0.02)
            << cluster.node.name << " on " << (cluster.fabric ? cluster.fabric->name : "") << " " << name_of(kind)
            << " stride " << group.stride << " size " << group.size;
      }
  }
}

// No link carries more than it can; what goes between nodes shows as the fabric's, whatever its shape.
TEST(TrainingStep, LinksAreBusyForNoLongerThanTheStep) {
  for (const char* fabric : {"ndr400-rail", "ndr400-leaf-spine-2to1", "torus-3d-400", "dragonfly-400", "eth10"}) {
    StepPredictor predictor(cluster_of("dgx-h100", 256, 8, "fabric = \"" + std::string(fabric) + "\"\n"), "megatron");
    TrainingJob job = job_with_defaults(predictor.stack(), load_model("llama-3-8b"));
    job.data_parallel = 256;
    job.global_batch = 256;
    job.sharding = Sharding::zero1;
    const auto step = predictor.predict(job);
    EXPECT_GT(step.fabric.seconds, 0.01 * step.step_s()) << fabric;
    EXPECT_LE(step.fabric.seconds, step.step_s()) << fabric;
    EXPECT_LE(step.node_link.seconds, step.step_s()) << fabric;
  }
}

// Servers take every worker's gradients in: the links are theirs, not an all-reduce's.
TEST(TrainingStep, ParameterServersLoadTheirNics) {
  StepPredictor predictor(cluster_of("a40-4", 32, 4, "fabric = \"eth10\"\n"), "torch-2.11");
  TrainingJob job = job_with_defaults(predictor.stack(), load_model("bert-large"));
  job.sequence = 512;
  job.data_parallel = job.global_batch = 32;
  job.exchange = GradientExchange::parameter_server;
  job.parameter_servers = 2;
  const auto step = predictor.predict(job);
  EXPECT_DOUBLE_EQ(step.fabric.bytes, step.gradient_bytes_sent * 32 / 2);  // one NIC a node; as many bytes come back
  EXPECT_GT(step.fabric.seconds, 0.45 * step.step_s());
  EXPECT_LT(step.fabric.seconds, 0.5 * step.step_s());
}

TEST(TrainingStep, ExposureOfBuckets) {
  EXPECT_EQ(exposed_seconds(0, 1, 4), 0);
  EXPECT_DOUBLE_EQ(exposed_seconds(0.4, 1, 4), 0.1);         // hidden but for the last bucket
  EXPECT_DOUBLE_EQ(exposed_seconds(2, 1, 4), 0.25 + 2 - 1);  // queueing since the first
  EXPECT_DOUBLE_EQ(exposed_seconds(2, 1, 1), 2);             // one bucket: nothing is hidden
}

}  // namespace
}  // namespace dssim
