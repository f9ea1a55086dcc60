// SPDX-License-Identifier: Apache-2.0
// Bad input, driven through the built binary: one line on stderr that names the place, exit status 2, nothing written.
#include <gtest/gtest.h>

#include <algorithm>
#include <random>

#include "support/run_binary.hpp"

namespace dssim {
namespace {

using test::dssim;
using test::TemporaryFile;

const std::string kValid = R"([cluster]
node = "dgx-h100"
gpus = 2
[model]
name = "llama-3-8b"
[serving]
stack = "vllm-0.14"
[workload]
kind = "poisson"
rate = "2/s"
requests = 5
prompt = { tokens = 100 }
output = { tokens = 10 }
)";

void expect_refused(const test::Output& run, const std::string& expected, const std::string& what, int status = 2) {
  EXPECT_EQ(run.status, status) << what << "\n" << run.error;
  EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << what << ": not one line:\n" << run.error;
  EXPECT_NE(run.error.find(expected), std::string::npos) << what << ": '" << expected << "' is not in\n" << run.error;
  EXPECT_EQ(run.out, "") << what;
}

struct Case {
  const char* set;       // --set option
  const char* expected;  // part of the message
};

const Case kCases[] = {
    {"cluster.node=dgx-h10", "did you mean 'dgx-h100'?"},
    {"cluster.nodes=0", "cluster.nodes"},
    {"cluster.gpus=9", "cluster.gpus"},
    {"cluster.gpus=-1", "cluster.gpus"},
    {"cluster.fabric=ndr400-rial", "did you mean 'ndr400-rail'?"},
    {"cluster.override.gpu.memory_bandwith=1 TB/s", "memory_bandwidth"},
    {"cluster.override.gpu.memory_bandwidth=1 TB", "is not a bandwidth"},
    {"cluster.override.gpu.memory_bandwidth=1e-300 TB/s", "must lie between"},
    {"cluster.nod=x", "did you mean 'node' or 'nodes'?"},
    {"model.name=llama-3-8", "did you mean 'llama-3-8b'?"},
    {"model.weights=bf17", "did you mean 'bf16'?"},
    {"model.config=nowhere.json", "model.config"},
    {"serving.stack=vllm-0.1", "serving.stack: unknown value 'vllm-0.1'; did you mean 'vllm-0.14' or 'vllm-0.19'?"},
    {"serving.tensor_parallel=3", "serving.tensor_parallel"},
    {"serving.tensor_parallel=4", "serving.tensor_parallel"},
    {"serving.tensor_parallel=1.5", "must be an integer"},
    {"serving.pipeline_parallel=5", "serving.pipeline_parallel"},
    {"serving.replicas=3", "serving.replicas"},
    {"serving.replicas=most", "must be a number or \"max\""},
    {"serving.policy=chunked", "serving.policy"},
    {"serving.router=round", "serving.router"},
    {"serving.max_batched_tokens=1e9", "must be an integer"},
    {"serving.max_batched_tokens=100", "max_sequences"},
    {"serving.max_sequences=0", "serving.max_sequences"},
    {"serving.gpu_memory_fraction=1.5", "outside"},
    {"serving.gpu_memory_fraction=nan", "serving.gpu_memory_fraction"},
    {"serving.kv_block_tokens=0", "serving.kv_block_tokens"},
    {"serving.kv_tokens=3", "serving.kv_tokens"},
    {"serving.kv_tokens=1600", "1600 do not hold one request of 2048 tokens"},
    {"serving.prefix_cache=1", "must be true or false"},
    {"serving.replica=1", "did you mean 'replicas'?"},
    {"workload.kind=poison", "did you mean 'poisson'?"},
    {"workload.rate=2", "the unit is missing"},
    {"workload.rate=0/s", "workload.rate"},
    {"workload.rate=-2/s", "workload.rate"},
    {"workload.rate=inf/s", "workload.rate"},
    {"workload.requests=0", "workload.requests"},
    {"workload.requests=-1", "workload.requests"},
    {"workload.prompt.tokens=0", "workload.prompt.tokens"},
    {"workload.prompt.tokens=nan", "workload.prompt.tokens"},
    {"workload.prompt.token=5", "did you mean 'tokens'?"},
    {"workload.prompt.tokens={ lognormal = { median = -3, sigma = 1, max = 9 } }", "--set workload.prompt.tokens="},
    {"a.b=1", "--set a.b=1: a: unknown key 'a'"},
    {"workload.users=5", "users"},
    {"workload.timeout=0 s", "workload.timeout"},
    {"slo.ttft_p99=5", "the unit is missing"},
    {"slo.ttft_p9=5 s", "did you mean 'ttft_p99'?"},
    {"seed=-1", "seed"},
    {"workloads.kind=x", "did you mean 'workload'?"},
};

TEST(BadInput, EachMistakeIsOneLine) {
  const TemporaryFile scenario(".toml", kValid);
  ASSERT_EQ(dssim(scenario.path().string() + " --quiet").status, 0);
  for (const Case& c : kCases) {
    const TemporaryFile json(".json"), csv(".csv");
    std::filesystem::remove(json.path());
    std::filesystem::remove(csv.path());
    const auto run = dssim(scenario.path().string() + " --set '" + c.set + "' --json " + json.path().string() +
                           " --requests " + csv.path().string());
    expect_refused(run, c.expected, c.set);
    EXPECT_FALSE(std::filesystem::exists(json.path())) << c.set;
    EXPECT_FALSE(std::filesystem::exists(csv.path())) << c.set;
    EXPECT_FALSE(std::filesystem::exists(csv.path().string() + ".partial")) << c.set;
  }
}

TEST(BadInput, NamesFileAndLine) {
  const TemporaryFile scenario(".toml",
                               "[cluster]\nnode = \"dgx-h100\"\n[model]\nname = \"llama-3-8b\"\nwieghts = \"fp8\"\n");
  expect_refused(dssim("fit " + scenario.path().string()),
                 scenario.path().string() + ":5: model.wieghts: unknown key 'wieghts'; did you mean 'weights'?",
                 "a mistyped key");
  const TemporaryFile broken(".toml", "[cluster]\nnode = \n");
  expect_refused(dssim(broken.path().string()), broken.path().string() + ":2: not valid TOML", "a syntax error");
}

TEST(BadInput, Files) {
  expect_refused(dssim("nowhere.toml"), "no such file", "no scenario");
  expect_refused(dssim("/tmp/"), "is a folder", "a folder");
  expect_refused(dssim("/dev/zero"), "is a device", "a device");
  const TemporaryFile empty(".toml", "");
  expect_refused(dssim(empty.path().string()), "[cluster]", "an empty scenario");
  const auto with_csv = [](const std::string& csv) {
    const TemporaryFile rows(".csv", csv);
    const TemporaryFile scenario(".toml",
                                 "[cluster]\nnode = \"dgx-h100\"\ngpus = 1\n[model]\nname = "
                                 "\"llama-3-8b\"\n[workload]\nkind = \"csv\"\nfile = \"" +
                                     rows.path().string() + "\"\n");
    return dssim(scenario.path().string());
  };
  EXPECT_EQ(with_csv("arrival,input,output\n0,10,5\n").status, 0);
  expect_refused(with_csv("arrival,input\n0,10\n"), "output", "a missing column");
  expect_refused(with_csv("arrival,input,output\n0,10,x\n"), ":2:", "a word for a number");
  expect_refused(with_csv("arrival,input,output\n0,10\n"), ":2:", "a cut-off row");
  expect_refused(with_csv("arrival,input,output\n-1,10,5\n"), ":2:", "a negative arrival");
  expect_refused(with_csv("arrival,input,output\n0,0,5\n"), ":2:", "an empty prompt");
  expect_refused(with_csv("arrival,input,output\n"), ".csv", "no rows");
  expect_refused(with_csv(""), ".csv", "an empty file");
  expect_refused(with_csv("arrival,input,output\n0,10,\x1b[31m5\n"), "'?[31m5'", "a sequence that terminals obey");
}

TEST(BadInput, MeasuredIterations) {
  const TemporaryFile scenario(".toml", kValid);
  const auto with_row = [&](const std::string& row) {
    const TemporaryFile rows(".csv",
                             "seconds,decode_seqs,prefill_tokens,decode_kv_tokens,prefill_kv_tokens,prefill_seqs,"
                             "decode_longest_kv\n" +
                                 row + "\n");
    return dssim("validate " + scenario.path().string() + " --iterations " + rows.path().string());
  };
  EXPECT_EQ(with_row("0.01,4,20,400,30,2,200").status, 0);
  expect_refused(with_row("0,4,0,400,0,0,200"), ":2: seconds", "no time");
  expect_refused(with_row("0.01,0,0,0,0,0,0"), ":2: decode_seqs", "no work");
  expect_refused(with_row("0.01,4,0,3,0,0,1"), ":2: decode_kv_tokens", "fewer tokens than sequences");
  expect_refused(with_row("0.01,4,20,400,30,21,200"), ":2: prefill_seqs", "more prompts than tokens");
  expect_refused(with_row("0.01,4,0,400,0,0,99"), ":2: decode_longest_kv", "a longest below the mean");
  expect_refused(with_row("0.01,4,0,400,0,0,9000000000000000000"), ":2: decode_longest_kv", "a longest beyond the sum");
  expect_refused(with_row("0.01,9000000000000000000,0,9000000000000000000,0,0,1"), ":2: decode_seqs: must be at most",
                 "sequences that no integer counts together");
  expect_refused(with_row("0.01,0,100000000,0,100000000,100000000,0"), ":2: prefill_seqs: must be at most",
                 "prompts that no memory holds");
}

TEST(BadInput, CommandLine) {
  const TemporaryFile scenario(".toml", kValid);
  const std::string s = scenario.path().string();
  expect_refused(dssim(""), "scenario", "nothing");
  expect_refused(dssim("setp " + s), "did you mean 'step'?", "a mistyped command");
  expect_refused(dssim(s + " --jsn x"), "jsn", "a mistyped option");
  expect_refused(dssim(s + " --scale 1,2"), "tables of a training job", "scaling tables of a service");
  expect_refused(dssim("parallelise " + s), "has no [training]", "layouts of a service");
  expect_refused(dssim(s + " --seed x"), "--seed", "a seed that is no number");
  expect_refused(dssim(s + " " + s), "one scenario", "two scenarios");
  expect_refused(dssim(s + " --set cluster"), "key.path=value", "a --set without value");
  const std::string stages = s + " --set cluster.gpus=3 --set serving.pipeline_parallel=3";
  expect_refused(dssim(stages), "3 does not divide the 32 layers", "stages of unlike length that nobody asked for");
  EXPECT_EQ(dssim(stages + " --set 'serving.pipeline_partition=[11, 11, 10]'").status, 0);
  expect_refused(dssim(s + " --json /nonexistent/x.json"), "/nonexistent/x.json", "an output that cannot be written");
  expect_refused(dssim("step " + s), "--decode", "a step without shape");
  expect_refused(dssim("step " + s + " --decode 4"), "--kv", "a decode without KV length");
  expect_refused(dssim("step " + s + " --decode 0 --kv 5"), "--decode", "no sequences");
  expect_refused(dssim("step " + s + " --prefill 99999999999"), "--prefill", "a huge prompt");
  expect_refused(dssim("step " + s + " --prefill 8 --prompts 16777216"), "--prompts", "millions of prompts");
  expect_refused(dssim(s + " --json /tmp"), "/tmp: is a folder", "a folder to write to");
  expect_refused(dssim(s + " --json ''"), "is empty", "an output without a name");
  expect_refused(dssim(s + " --requests -"), "--requests", "a table on standard output");
  expect_refused(dssim("catalogue gpus --all"), "usage", "an option of the catalogue");
  expect_refused(dssim("catalogue gpu"), "did you mean 'gpus'?", "a mistyped section");
  expect_refused(dssim("catalogue gpus h100"), "h100-", "a mistyped GPU");
}

TEST(BadInput, AnAnswerThatCannotBeWrittenIsAFailure) {
  const TemporaryFile scenario(".toml", kValid);
  for (const std::string words : {"catalogue gpus", "fit $S", "$S", "$S --json -", "--help"}) {
    const TemporaryFile error(".err");
    const std::string command =
        "S=" + scenario.path().string() + "; " + DSSIM_BINARY + " " + words + " >/dev/full 2>" + error.path().string();
    EXPECT_EQ(WEXITSTATUS(std::system(command.c_str())), 1) << words;
    EXPECT_NE(test::contents(error.path()).find("standard output: writing failed"), std::string::npos) << words;
  }
}

TEST(BadInput, WhatDoesNotFitSaysWhatWould) {
  const TemporaryFile scenario(".toml",
                               "[cluster]\nnode = \"rtx-4090-1\"\n[model]\nname = \"llama-2-70b\"\n[workload]\nkind = "
                               "\"constant\"\nrate = \"1/s\"\n"
                               "requests = 1\nprompt = { tokens = 10 }\noutput = { tokens = 10 }\n");
  const auto run = dssim(scenario.path().string());
  expect_refused(run, "short by", "70B on one RTX 4090", 3);
  const auto json = dssim("fit " + scenario.path().string() + " --json -");
  EXPECT_EQ(json.status, 3);
  EXPECT_NE(json.out.find("\"fits\": false"), std::string::npos);
  EXPECT_NE(json.out.find("shortfall_bytes"), std::string::npos);
}

TEST(BadInput, UsersWhoAreAllRefusedDoNotStopTime) {
  const TemporaryFile scenario(
      ".toml", test::kLlamaOnH100 +
                   "[serving]\nmax_model_tokens = 100\nstack = \"dssim-1\"\n[workload]\nkind = \"closed-loop\"\n"
                   "users = 4\nduration = \"1 min\"\nprompt = { tokens = 300 }\noutput = { tokens = 5 }\n");
  expect_refused(dssim(scenario.path().string()), "think_time", "a closed loop that is refused", 3);
  EXPECT_EQ(dssim(scenario.path().string() + " --quiet --set 'workload.think_time=1 s'").status, 0);
}

// Seeded mutations of a scenario, through the whole program: it answers, refuses (2) or cannot run (3), and never
// anything else.
TEST(BadInput, MutatedScenarios) {
  std::mt19937 random(3);
  int refused = 0;
  for (int round = 0; round < 60; ++round) {
    std::string text = kValid;
    for (int edits = 1 + static_cast<int>(random() % 3); edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(32 + random() % 95);
          break;
        case 1:
          text.erase(at, 1 + random() % 4);
          break;
        default:
          text.insert(at, 1, "\"[]{}=.,\n#0-e"[random() % 13]);
      }
    }
    const TemporaryFile scenario(".toml", text);
    const auto run = dssim(scenario.path().string() + " --quiet");
    EXPECT_TRUE(run.status == 0 || run.status == 2 || run.status == 3) << run.status << "\n" << run.error << text;
    if (run.status != 0) EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
    refused += run.status == 2 ? 1 : 0;
  }
  EXPECT_GT(refused, 20);
}

}  // namespace
}  // namespace dssim
