// SPDX-License-Identifier: Apache-2.0
// Training scenarios through the built binary: bad input in one line and exit 2, what does not fit in exit 3 with
// remedies, and the JSON contract.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "sim/study/training_scenario.hpp"
#include "support/run_binary.hpp"

namespace dssim {
namespace {

using test::dssim;

const std::string kScenario = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/llama3-405b-16k.toml";
const std::string kSearch = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/gpt3-175b-search.toml";
const std::string kNode = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/llama3-8b-fsdp.toml";

double number_at(const std::string& json, const std::string& key) {
  std::smatch match;
  if (!std::regex_search(json, match, std::regex("\"" + key + "\": ([-0-9.e+]+)"))) return NAN;
  return std::stod(match[1]);
}

TEST(TrainingCommand, RefusesWhatCannotBe) {
  const std::pair<const char*, const char*> cases[] = {
      {"training.pipeline_parallel=7", "126 layers"},
      {"training.tensor_parallel=3", "attention heads"},
      {"training.tensor_parallel=0", "training.tensor_parallel"},
      {"training.data_parallel=129", "the cluster has 16384"},
      {"training.global_batch=100", "global_batch"},
      {"training.schedule=1f2b", "did you mean '1f1b'?"},
      {"training.sharding=zero4", "training.sharding"},
      {"training.recompute=partial", "training.recompute"},
      {"training.stack=megatorn", "did you mean 'megatron'?"},
      {"training.micro_bach=1", "did you mean 'micro_batch'?"},
      {"training.expert_parallel=2", "has no experts"},
      {"training.context_parallel=5", "data_parallel"},
      {"training.gradient_exchange=parameter-servr", "did you mean 'parameter-server'?"},
      {"training.jitter=-1", "training.jitter"},
      {"training.slow_gpu=0.5", "training.slow_gpu"},
      {"training.gradient_bucket=\"0 MB\"", "training.gradient_bucket"},
      {"serving.replicas=1", "a scenario trains or serves"},
      {"model.weights=int4", "are not trained"},
  };
  for (const auto& [set, expected] : cases) {
    const auto run = dssim(kScenario + " --set '" + set + "'");
    EXPECT_EQ(run.status, 2) << set << "\n" << run.error;
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
    EXPECT_NE(run.error.find(expected), std::string::npos) << set << ": '" << expected << "' is not in\n" << run.error;
    EXPECT_EQ(run.out, "");
  }
}

TEST(TrainingCommand, WhatDoesNotFitSaysWhatWould) {
  const auto run = dssim(kScenario + " --set training.sharding=none --json -");
  EXPECT_EQ(run.status, 3) << run.error;
  EXPECT_NE(run.error.find("short by"), std::string::npos) << run.error;
  EXPECT_NE(run.error.find("sharding = \"zero1\""), std::string::npos) << run.error;
  EXPECT_NE(run.out.find("\"fits\": false"), std::string::npos);
  EXPECT_GT(number_at(run.out, "shortfall_bytes"), 0);
  EXPECT_EQ(dssim("fit " + kScenario + " --set training.sharding=none --quiet").status, 3);
  EXPECT_EQ(dssim("fit " + kScenario + " --quiet").status, 0);
}

TEST(TrainingCommand, JsonPartsSumToTheStep) {
  const auto run = dssim(kScenario + " --json -");
  ASSERT_EQ(run.status, 0) << run.error;
  double sum = 0;
  for (const char* key : {"compute_s", "tensor_s", "pipeline_bubble_s", "data_s", "expert_s", "other_s"})
    sum += number_at(run.out, key);
  const double step = number_at(run.out, "step_s");
  EXPECT_NEAR(sum, step, 1e-6 * step);
  for (const char* key :
       {"tokens_per_s", "tokens_per_s_per_gpu", "mfu", "hfu", "scaling_efficiency", "weights_bytes", "optimizer_bytes"})
    EXPECT_GT(number_at(run.out, key), 0) << key;
  // Meta reports 400 TFLOP/s a GPU on this layout (arXiv 2407.21783, table 4): 6.2 s without attention's FLOPs, 6.7
  // with all.
  EXPECT_NEAR(step, 6.45, 0.65);
  // The same input gives the same bytes, but for the time it took.
  const std::regex wall("\"wall_s\": [^\n]*");
  EXPECT_EQ(std::regex_replace(run.out, wall, ""), std::regex_replace(dssim(kScenario + " --json -").out, wall, ""));
}

// Stages hold unlike shares: the first keeps more micro-batches under 1f1b, the ends embedding and head.
TEST(TrainingCommand, JsonHasTheMemoryOfEveryStage) {
  const std::string pipeline = kScenario + " --set training.schedule=1f1b --set training.virtual_stages=1";
  const auto answer = nlohmann::json::parse(dssim(pipeline + " --json -").out);
  const auto& memory = answer["memory"];
  ASSERT_EQ(memory["stages"].size(), 16U);
  for (const auto& stage : memory["stages"]) {
    double sum = 0;
    for (const char* term :
         {"weights_bytes", "gradient_bytes", "optimizer_bytes", "activation_bytes", "reserved_bytes"})
      sum += stage[term].get<double>();
    EXPECT_DOUBLE_EQ(sum, stage["total_bytes"]);
    EXPECT_LE(stage["total_bytes"], memory["total_bytes"]);
  }
  EXPECT_EQ(memory["stages"][memory["stage"].get<size_t>()]["total_bytes"], memory["total_bytes"]);
  EXPECT_GT(memory["stages"][1]["activation_bytes"], memory["stages"][14]["activation_bytes"]);
  EXPECT_NE(dssim(pipeline).out.find(" of 16 holds "), std::string::npos);
  EXPECT_FALSE(nlohmann::json::parse(dssim(kNode + " --json -").out)["memory"].contains("stages"));
}

TEST(TrainingCommand, ScalingTables) {
  const auto run = dssim(kNode + " --scale 2,4,8,64,7 --json -");
  ASSERT_EQ(run.status, 0) << run.error;
  EXPECT_NE(run.out.find("\"weak_scaling\""), std::string::npos);
  EXPECT_NE(run.out.find("\"strong_scaling\""), std::string::npos);
  EXPECT_EQ(number_at(run.out, "scaling_efficiency"), 1);  // of the first row
  EXPECT_NE(run.out.find("data"), std::string::npos);
  EXPECT_EQ(dssim(kNode + " --scale 2,x").status, 2);
  EXPECT_EQ(dssim(kNode + " --scale 2,,4").status, 2);
}

TEST(TrainingCommand, SearchRanksLayouts) {
  const auto run = dssim("parallelise " + kSearch + " --top 5 --json -");
  ASSERT_EQ(run.status, 0) << run.error;
  EXPECT_GT(number_at(run.out, "examined"), 1000);
  std::vector<double> steps;
  const std::regex step("\"step_s\": ([0-9.e+-]+)");
  for (std::sregex_iterator at(run.out.begin(), run.out.end(), step), end; at != end; ++at)
    steps.push_back(std::stod((*at)[1]));
  EXPECT_EQ(steps.size(), 5U);
  EXPECT_TRUE(std::is_sorted(steps.begin(), steps.end()));
  EXPECT_NE(run.out.find("of memory short per GPU"), std::string::npos);
  const auto none = dssim("parallelise " + kSearch + " --set cluster.nodes=1 --set cluster.gpus=2");
  EXPECT_EQ(none.status, 3) << none.error;
  EXPECT_NE(none.error.find("none of"), std::string::npos) << none.error;
}

// DeepSeek-V3 as DeepSeek trained it: 19.9 s a step (arXiv 2505.09343, table 4).
TEST(TrainingCommand, DeepSeekV3) {
  const std::string scenario = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/deepseek-v3-2048.toml";
  const auto run = dssim(scenario + " --json -");
  ASSERT_EQ(run.status, 0) << run.error;
  EXPECT_NEAR(number_at(run.out, "step_s"), 19.926, 0.1 * 19.926);
  EXPECT_GT(number_at(run.out, "expert_s"), 0);
  // In an all-to-all a token goes to each expert by itself; without the bound to as many nodes as it likes.
  for (const char* slower : {" --set training.expert_dispatch=all-to-all --set training.routed_nodes=0",
                             " --set training.routed_nodes=0", " --set training.dispatch_precision=bf16"}) {
    const auto other = dssim(scenario + slower + " --json -");
    ASSERT_EQ(other.status, 0) << other.error;
    EXPECT_GE(number_at(other.out, "step_s"), number_at(run.out, "step_s")) << slower;
  }
  const auto refused = dssim(scenario + " --set training.expert_dispatch=all-to-all");
  EXPECT_EQ(refused.status, 2);
  EXPECT_NE(refused.error.find("training.routed_nodes"), std::string::npos) << refused.error;
  // Kept in 16 bits, what activation functions need in backward does not fit.
  EXPECT_EQ(dssim(scenario + " --set training.kept_precision=bf16 --quiet").status, 3);
}

// What the file says of a single layout does not decide how the others run.
TEST(TrainingCommand, SearchDoesNotDependOnTheLayoutInTheFile) {
  const std::string mixtral = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/mixtral-moe.toml";
  const auto best = [&](const std::string& set) {
    const auto answer = nlohmann::json::parse(dssim("parallelise " + mixtral + set + " --top 1 --json -").out);
    return answer["feasible"][0];
  };
  const auto given = best(""), other = best(" --set training.tensor_parallel=1 --set training.pipeline_parallel=1");
  EXPECT_EQ(given["layout"], other["layout"]);
  EXPECT_EQ(given["training"]["step_s"], other["training"]["step_s"]);
  EXPECT_EQ(given["layout"]["sequence_parallel"], true);
  EXPECT_EQ(best(" --set training.sequence_parallel=false")["layout"]["sequence_parallel"], false);
}

TEST(TrainingCommand, EachMistakeAboutExpertsIsOneLine) {
  const std::string folder = std::string(DSSIM_SOURCE_DIR) + "/scenarios/training/";
  const auto expect_refused = [&](const std::string& scenario, const std::string& set, const std::string& expected) {
    const auto run = dssim(folder + scenario + " --set " + set + " --quiet");
    EXPECT_EQ(run.status, 2) << set;
    EXPECT_NE(run.error.find("training." + expected), std::string::npos) << set << ": " << run.error;
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  };
  const std::string deepseek = "deepseek-v3-2048.toml", dense = "llama3-8b-fsdp.toml", mixtral = "mixtral-moe.toml";
  for (const char* value : {"nan", "-1", "1.5", "four", "1e9", "9223372036854775807"}) {
    expect_refused(deepseek, std::string("training.routed_nodes=") + value, "routed_nodes");
    expect_refused(deepseek, std::string("training.mtp=") + value, "mtp");
    expect_refused(deepseek, std::string("training.expert_dispatch=") + value, "expert_dispatch");
    expect_refused(deepseek, std::string("training.dispatch_precision=") + value, "dispatch_precision");
    expect_refused(deepseek, std::string("training.kept_precision=") + value, "kept_precision");
  }
  expect_refused(deepseek, "training.routed_nodes=9", "routed_nodes: 9 is more than the 8 nodes");
  expect_refused(deepseek, "training.expert_parallel=512",
                 "expert_parallel: 512 does not divide the model's 256 experts");
  expect_refused(deepseek,
                 "training.pipeline_parallel=61 --set training.data_parallel=32 --set "
                 "training.expert_parallel=32",
                 "pipeline_parallel: dualpipe needs an even number of stages, not 61");
  expect_refused(mixtral, "training.expert_dispatch=deepep --set training.expert_parallel=1",
                 "expert_dispatch: expert_parallel = 1 sends no tokens");
  expect_refused(dense, "training.expert_dispatch=deepep", "expert_dispatch: Llama 3 8B has no experts");
  expect_refused(dense, "model.name=bert-base --set training.sequence=512 --set training.mtp=1", "mtp: BERT base");
}

TEST(TrainingCommand, SearchSpreadsExperts) {
  const auto run = dssim("parallelise " + std::string(DSSIM_SOURCE_DIR) +
                         "/scenarios/training/deepseek-v3-2048.toml --set cluster.nodes=4 --set "
                         "model.name=deepseek-v2-lite --set training.global_batch=256 --top 3 --json -");
  ASSERT_EQ(run.status, 0) << run.error;
  EXPECT_GT(number_at(run.out, "expert_parallel"), 0) << run.out;
  // On one stage every schedule is the same, also one that would need two.
  const auto flat =
      dssim("parallelise " + std::string(DSSIM_SOURCE_DIR) +
            "/scenarios/training/llama3-8b-fsdp.toml --set cluster.gpus=1 --set model.name=bert-base --set "
            "training.sequence=512 --set training.schedule=dualpipe --top 1 --json -");
  ASSERT_EQ(flat.status, 0) << flat.error;
  EXPECT_EQ(number_at(flat.out, "pipeline_parallel"), 1) << flat.out;
}

TEST(TrainingDocuments, ReferenceListsExactlyTheKeysRead) {
  const auto scenario = [](const std::string& training) {
    return Config::parse(
        "[cluster]\nnode = \"dgx-h100\"\nnodes = 2\nfabric = \"ndr400-rail\"\n[model]\nname = "
        "\"llama-3-8b\"\n[training]\n" +
            training,
        "x.toml");
  };
  const Config file = scenario("");
  read_training_scenario(file);
  std::set<std::string> read;
  for (const auto& key : file.asked_keys())
    if (key.starts_with("training.")) read.insert(key);
  const std::string page = test::contents(std::string(DSSIM_SOURCE_DIR) + "/docs/training.md");
  const std::regex row("\\n\\| `(training\\.[a-z_0-9]+)` \\|");
  std::set<std::string> documented;
  for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it) documented.insert((*it)[1]);
  EXPECT_EQ(read, documented);
}

}  // namespace
}  // namespace dssim
