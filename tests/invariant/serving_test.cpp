// SPDX-License-Identifier: Apache-2.0
// What must hold whatever the figures are: repeatability, conservation, monotonicity, and that working ahead changes
// nothing.
#include <gtest/gtest.h>

#include "sim/base/files.hpp"
#include "sim/serving/policy.hpp"
#include "sim/serving/service.hpp"
#include "sim/study/deployment_setup.hpp"
#include "support/run_forked.hpp"
#include "support/scenario.hpp"

namespace dssim {
namespace {

using test::run_scenario;

std::string trace_run(const std::string& serving, const std::string& rate, int requests,
                      const std::string& cluster = "gpus = 1\n") {
  return "[cluster]\nnode = \"dgx-h100\"\n" + cluster +
         "[model]\nname = \"llama-3-8b\"\n[serving]\nstack = \"vllm-0.14\"\n" + serving +
         "[workload]\nkind = \"trace\"\ntrace = \"azure-2023-conv\"\nrate = \"" + rate +
         "\"\nrequests = " + std::to_string(requests) + "\n";
}

// The same service, stepping through the event queue at every iteration.
class Recorder final : public ServiceObserver {
 public:
  void request_offered(const Request&) override {}
  void request_ended(const RequestRecord& record) override { records.push_back(record); }
  std::vector<RequestRecord> records;
};
std::vector<RequestRecord> simulate(const std::string& toml, bool work_ahead, double frontend_token_s = 0) {
  const test::TemporaryFile file(".toml", toml);
  Scenario scenario = read_scenario(file.path());
  DeploymentSetup setup = set_up(scenario);
  Simulation simulation(*setup.network);
  Recorder recorder;
  Service service(simulation, *scenario.requests, make_router(scenario.serving.router, scenario.seed), 0.01, recorder);
  for (const auto& stages : setup.placement.stage_gpus) {
    ReplicaShape shape;
    shape.stage_gpus = stages;
    shape.work_ahead = work_ahead;
    shape.frontend_token_s = frontend_token_s;
    KvCache kv(setup.fit.memory.kv_tokens / 16, 16, false);
    service.add_replica(shape, Scheduler(scenario.serving.limits, std::move(kv), make_policy(scenario.serving.policy)),
                        *setup.steps);
  }
  service.start();
  simulation.run();
  return recorder.records;
}

// One thread sends the tokens: a lone answer of 20 waits for each token once where steps are longer than that, and for
// all of them where they are shorter. The engine does not notice.
TEST(Serving, TheFrontEndSendsOneTokenAfterTheOther) {
  const std::string lone = test::kLlamaOnH100 +
                           "[workload]\nkind = \"constant\"\nrate = \"1/s\"\nrequests = 1\n"
                           "prompt = { tokens = 100 }\noutput = { tokens = 20 }\n";
  const auto record = [](const std::string& toml, double token_s) { return simulate(toml, true, token_s).front(); };
  const RequestRecord free = record(lone, 0), quick = record(lone, 1e-3), slow = record(lone, 0.1);
  EXPECT_NEAR(quick.first_token_s, free.first_token_s + 1e-3, 1e-12);
  EXPECT_NEAR(quick.done_s, free.done_s + 1e-3, 1e-12);
  EXPECT_NEAR(slow.first_token_s, free.first_token_s + 0.1, 1e-12);
  EXPECT_NEAR(slow.tpot_s(), 0.1, 1e-12);
  EXPECT_EQ(slow.scheduled_s, free.scheduled_s);
  // Two seconds of sending are too long for a client who waits one.
  const RequestRecord late = record(lone + "timeout = \"1 s\"\n", 0.1);
  EXPECT_EQ(late.outcome, Outcome::timed_out);
  EXPECT_NEAR(late.done_s, late.arrival_s + 1, 1e-12);
  // A user of a closed loop asks again when the answer is there, not when the engine is done.
  const auto loop = simulate(test::kLlamaOnH100 +
                                 "[workload]\nkind = \"closed-loop\"\nusers = 1\nrequests = 2\n"
                                 "prompt = { tokens = 100 }\noutput = { tokens = 20 }\n",
                             true, 0.1);
  EXPECT_EQ(loop[1].arrival_s, loop[0].done_s);
}

// 16,100 tokens a second leave vLLM's API server; the GPU could make more of them.
TEST(Serving, TheFrontEndCanBeTheBottleneck) {
  const std::string toml =
      "[cluster]\nnode = \"dgx-h100\"\n[model]\nname = \"llama-3-8b\"\nweights = \"fp8\"\n[serving]\nstack = "
      "\"vllm-0.14\"\n"
      "max_sequences = 512\n[workload]\nkind = \"closed-loop\"\nusers = 512\nrequests = 2000\n"
      "prompt = { tokens = 200 }\noutput = { tokens = { uniform = { min = 150, max = 250 } } }\n";
  const auto one = run_scenario(toml).report, two = run_scenario(toml, {"serving.replicas=2"}).report;
  const auto tokens_per_s = [](const ServingReport& r) { return r.summary.output_tokens() / r.summary.makespan_s(); };
  EXPECT_EQ(one.bottleneck.name, "front end");
  EXPECT_LT(tokens_per_s(one), 1 / 62e-6);
  EXPECT_GT(tokens_per_s(one), 0.8 / 62e-6);
  EXPECT_GT(tokens_per_s(two), tokens_per_s(one));
}

TEST(Serving, WorkingAheadChangesNothing) {
  for (const char* serving : {"", "replicas = 3\n", "policy = \"prefill-first\"\nkv_tokens = 20000\n"}) {
    const std::string toml = trace_run(serving, "12/s", 1500, "gpus = 3\n");
    const auto ahead = simulate(toml, true), stepped = simulate(toml, false);
    ASSERT_EQ(ahead.size(), 1500u);
    ASSERT_EQ(stepped.size(), ahead.size());
    for (size_t i = 0; i < ahead.size(); ++i) {
      ASSERT_EQ(ahead[i].id, stepped[i].id) << serving << i;
      ASSERT_EQ(ahead[i].first_token_s, stepped[i].first_token_s) << serving << i;
      ASSERT_EQ(ahead[i].done_s, stepped[i].done_s) << serving << i;
    }
  }
}

TEST(Serving, TwoRunsAreByteIdentical) {
  const test::TemporaryFile file(".toml", trace_run("replicas = 4\nrouter = \"random\"\n", "30/s", 2000, "gpus = 4\n"));
  std::string csv[2];
  for (auto& text : csv) {
    const test::TemporaryFile rows(".csv");
    Scenario scenario = read_scenario(file.path());
    RunOptions options;
    options.requests_csv = rows.path();
    run_serving(scenario, options);
    text = read_file(rows.path());
  }
  EXPECT_EQ(csv[0], csv[1]);
  EXPECT_GT(csv[0].size(), 2000u * 20);
}

TEST(Serving, EveryOfferedRequestEndsOnce) {
  struct Case {
    const char *serving, *timeout;
  };
  for (const auto& [serving, timeout] : {
           Case{"", "60 s"},
           {"max_queue = 5\n", "60 s"},
           {"kv_tokens = 9000\n", "60 s"},
           {"replicas = 2\nprefix_cache = true\n", "60 s"},
           {"policy = \"static-batch\"\n", "60 s"},
           {"policy = \"static-batch\"\n", "4 s"},
           {"max_queue = 30\n", "4 s"},
       }) {
    const auto run =
        run_scenario(trace_run(serving, "40/s", 1500, "gpus = 2\n"), {std::string("workload.timeout=") + timeout});
    const ServingSummary& s = run.report.summary;
    EXPECT_EQ(s.offered_count(), 1500u) << serving << timeout;
    EXPECT_EQ(s.completed() + s.rejected(), 1500u) << serving << timeout;
    EXPECT_EQ(s.unfinished(), 0u) << serving;
    EXPECT_EQ(run.rows.size(), s.completed());
    if (s.completed() > 0) {
      EXPECT_LE(s.e2e().max(), std::stod(timeout) + 1e-9) << serving;
    }
    double share = 0;
    for (const double part : run.report.breakdown) share += part;
    EXPECT_NEAR(share, 1, 1e-9);
    EXPECT_NEAR(run.report.trust.inside + run.report.trust.edge + run.report.trust.outside, 1, 1e-9);
    EXPECT_LE(run.report.utilisation.gpu, 1.0);
    EXPECT_LE(run.report.utilisation.kv_cache_peak, 1.0);
  }
}

TEST(Serving, TimeoutsOfAPipelineAreAllReported) {
  const double unfinished = test::run_forked([] {
    const auto run =
        run_scenario(trace_run("pipeline_parallel = 2\n", "40/s", 1500, "gpus = 2\n"), {"workload.timeout=4 s"});
    EXPECT_GT(run.report.summary.timed_out(), 0u);
    return static_cast<double>(run.report.summary.unfinished());
  });
  EXPECT_EQ(unfinished, 0);
}

// Users who start one after the other: who is answered asks again at once, though the next user is expected later.
TEST(Serving, AnsweredUsersDoNotWaitForThoseWhoStartLater) {
  const auto run = run_scenario(test::kLlamaOnH100 +
                                "[workload]\nkind = \"closed-loop\"\nusers = 4\nramp_up = \"40 s\"\nrequests = 60\n"
                                "prompt = { tokens = 200 }\noutput = { tokens = 100 }\n");
  ASSERT_EQ(run.rows.size(), 60u);
  EXPECT_EQ(run.rows[1].arrival_s, run.rows[0].done_s);
  for (size_t i = 1; i < run.rows.size(); ++i) {
    EXPECT_GE(run.rows[i].arrival_s, run.rows[i - 1].arrival_s);
    size_t under_way = 0;  // never more than users who have started
    for (size_t j = 0; j < i; ++j) under_way += run.rows[j].done_s > run.rows[i].arrival_s;
    EXPECT_LE(under_way, static_cast<size_t>(run.rows[i].arrival_s / 10)) << i;
  }
}

TEST(Serving, MoreOfAnythingNeverHurts) {
  const auto mean_latency = [](const std::string& toml, const std::vector<std::string>& set = {}) {
    return run_scenario(toml, set).report.summary.e2e().mean();
  };
  const std::string loaded = trace_run("", "14/s", 1200, "gpus = 4\n");
  const double one = mean_latency(loaded);
  EXPECT_LT(mean_latency(loaded, {"serving.replicas=2"}), one);
  EXPECT_LT(mean_latency(loaded, {"serving.replicas=4"}), mean_latency(loaded, {"serving.replicas=2"}));
  EXPECT_LT(mean_latency(loaded, {"cluster.override.gpu.memory_bandwidth=5 TB/s"}), one);
  EXPECT_LT(one, mean_latency(loaded, {"cluster.override.gpu.memory_bandwidth=2 TB/s"}));
  // Throughput under overload grows with the batch limit.
  const auto throughput = [](const std::vector<std::string>& set) {
    const auto run = run_scenario(trace_run("", "60/s", 1500), set);
    return static_cast<double>(run.report.summary.completed()) / run.report.summary.makespan_s();
  };
  EXPECT_LT(throughput({"serving.max_sequences=8"}), throughput({"serving.max_sequences=32"}));
  EXPECT_LT(throughput({"serving.max_sequences=32"}), throughput({"serving.max_sequences=128"}));
}

// The layers of a lone request's steps add up to the same whatever the stages hold; many requests wait for the slowest
// stage.
TEST(Serving, UnevenStagesAddUpAndTheSlowestSetsThePace) {
  const auto run = [](const std::string& cluster, const std::string& partition, int requests) {
    const std::string toml =
        "[cluster]\nnode = \"dgx-h200\"\n" + cluster +
        "[model]\nname = \"llama-3-405b\"\nweights = \"fp8\"\n[serving]\nstack = \"vllm-0.19\"\n"
        "tensor_parallel = 2\npipeline_parallel = 4\n" +
        partition + "[workload]\nkind = \"constant\"\nrate = \"1000/s\"\nrequests = " + std::to_string(requests) +
        "\nprompt = { tokens = 500 }\noutput = { tokens = 20 }\n";
    return test::run_forked([&] {
      const auto result = run_scenario(toml);
      EXPECT_EQ(result.report.summary.completed(), static_cast<uint64_t>(requests));
      EXPECT_EQ(result.report.fit.memory.stages.size(), 4u);
      EXPECT_GT(result.report.flows, 0u);
      return result.report.summary.makespan_s();
    });
  };
  const std::string dealt = "pipeline_partition = [31, 32, 32, 31]\n";
  const std::string skewed = "pipeline_partition = [20, 20, 66, 20]\n";
  const double lone = run("", dealt, 1);
  EXPECT_NEAR(run("", skewed, 1), lone, 1e-9 * lone);
  // Busy all the time, the stage of 66 layers takes as long as more than two of 32: 66 / 32 of the layers' time, less
  // what every stage takes besides.
  const double slowdown = run("", skewed, 400) / run("", dealt, 400);
  EXPECT_GT(slowdown, 1.7);
  EXPECT_LT(slowdown, 66.0 / 32);
  // Four nodes, a stage on each: the same steps, and activations over the fabric.
  const double across = run("nodes = 4\ngpus = 8\nfabric = \"ndr400-rail\"\n", dealt, 1);
  EXPECT_GT(across, lone);
  EXPECT_LT(across, 1.05 * lone);
}

// Pipeline stages on two nodes hand activations over the fabric: slower links, never faster answers; and the flows are
// there.
TEST(Serving, PipelineStagesCrossTheFabric) {
  const std::string toml =
      "[cluster]\nnode = \"dgx-h100\"\nnodes = 2\ngpus = 16\nfabric = \"ndr400-rail\"\n[model]\nname = "
      "\"llama-3-70b\"\n[serving]\n"
      "stack = \"vllm-0.14\"\ntensor_parallel = 8\npipeline_parallel = 2\n[workload]\nkind = \"poisson\"\nrate = "
      "\"3/s\"\n"
      "requests = 60\nprompt = { tokens = 2000 }\noutput = { tokens = 50 }\n";
  const auto mean_e2e = [&](const std::vector<std::string>& set) {
    return test::run_forked([&] {
      const auto run = run_scenario(toml, set);
      EXPECT_GT(run.report.flows, 1000u);
      return run.report.summary.e2e().mean();
    });
  };
  const auto bottleneck = [&](const std::vector<std::string>& set) {
    return test::run_forked([&] {
      const auto run = run_scenario(toml, set);
      return run.report.bottleneck.name == "links between pipeline stages";
    });
  };
  EXPECT_FALSE(bottleneck({}));
  EXPECT_TRUE(bottleneck({"cluster.fabric=eth10", "cluster.override.fabric.port=1 Gb/s"}));
  // A prompt's activations, hidden state and residual of 2000 × 8192 values in 16 bits each, take 52 ms at 10 Gb/s.
  EXPECT_GT(mean_e2e({"cluster.fabric=eth10"}), mean_e2e({}) + 2000 * 8192 * 4 / 1.25e9);
}

}  // namespace
}  // namespace dssim
