// SPDX-License-Identifier: Apache-2.0
// The documents against the program: every scenario key is documented and read, every shipped scenario runs, and the
// README's blocks of output are what its commands print.
#include <gtest/gtest.h>

#include <algorithm>
#include <regex>
#include <set>

#include "support/run_binary.hpp"

namespace dssim {
namespace {

namespace fs = std::filesystem;
const fs::path kSource = DSSIM_SOURCE_DIR;

// Keys that the readers ask for: the union over one scenario of every kind.
std::set<std::string> keys_read() {
  std::set<std::string> keys;
  const std::string head =
      "[cluster]\nnode = \"dgx-h100\"\nnodes = 2\nfabric = \"ndr400-rail\"\nstorage = "
      "\"local-nvme\"\n[serving]\n[slo]\n";
  const test::TemporaryFile csv(".csv", "arrival,input,output\n0,5,5\n1,5,5\n");
  const std::string named = "[model]\nname = \"llama-3-8b\"\n";
  const std::string lengths =
      "prompt = { tokens = { lognormal = { median = 100, sigma = 0.5, max = 1000 } }, shared_prefix = 10, prefixes = "
      "2, distinct = 4 }\n"
      "output = { tokens = { empirical = \"azure-2023-conv\" } }\n";
  const std::string workloads[] = {
      "kind = \"trace\"\ntrace = \"azure-2023-conv\"\nrequests = 5\n",
      "kind = \"csv\"\nfile = \"" + csv.path().string() + "\"\n",
      "kind = \"poisson\"\nrate = \"4/s\"\nduration = \"10 s\"\n" + lengths,
      "kind = \"gamma\"\nburstiness = 0.5\nrate = \"4/s\"\nrequests = 5\n" + lengths,
      "kind = \"closed-loop\"\nusers = 4\nthink_time = \"1 s\"\nrequests = 5\n" + lengths,
  };
  for (const auto& workload : workloads) {
    const Config file =
        Config::parse(head + named + "[workload]\n" + workload, (kSource / "scenarios/x.toml").string());
    read_scenario(file);
    const auto asked = file.asked_keys();
    keys.insert(asked.begin(), asked.end());
  }
  for (const char* table : {"cluster", "model", "serving", "workload", "slo", "workload.prompt", "workload.output"})
    keys.erase(table);
  // Parts of a length distribution, described with it.
  std::erase_if(keys, [](const std::string& key) { return key.find("tokens.") != std::string::npos; });
  return keys;
}

TEST(Documents, ScenarioReferenceListsExactlyTheKeysRead) {
  const std::string page = test::contents(kSource / "docs/scenario.md");
  const std::regex row("\\n\\| `([a-z_0-9.]+)` \\|");
  std::set<std::string> documented;
  for (std::sregex_iterator it(page.begin(), page.end(), row), end; it != end; ++it) documented.insert((*it)[1]);
  std::set<std::string> read = keys_read();
  // `output` takes what `prompt` takes where that makes sense; prefixes are the prompt's alone.
  std::erase_if(read, [&](const std::string& key) {
    return key.starts_with("workload.output.") && key != "workload.output.tokens";
  });
  for (const auto& key : read) EXPECT_TRUE(documented.contains(key)) << key << " is read but not in docs/scenario.md";
  for (const auto& key : documented)
    EXPECT_TRUE(read.contains(key)) << key << " is in docs/scenario.md but nothing reads it";
}

TEST(Documents, EveryScenarioSaysWhatItAsksAndRuns) {
  int scenarios = 0;
  for (const auto& entry : fs::recursive_directory_iterator(kSource / "scenarios")) {
    if (entry.path().extension() != ".toml") continue;
    const std::string text = test::contents(entry.path());
    const std::string first = text.substr(0, text.find('\n'));
    EXPECT_TRUE(first.starts_with("# ") && first.ends_with("?")) << entry.path() << " asks: " << first;
    if (text.find("[workload]") == std::string::npos) continue;
    const auto run = test::dssim(entry.path().string() + " --json -");
    EXPECT_TRUE(run.status == 0 || run.status == 3) << entry.path() << "\n" << run.error;
    ++scenarios;
  }
  EXPECT_GE(scenarios, 5);
}

// Blocks of the README that begin with "$ dssim …" show what that command prints, but for the wall time.
TEST(Documents, ReadmeShowsRealOutput) {
  const std::string readme = test::contents(kSource / "README.md");
  const std::regex block("```(?:text|console)\\n\\$ dssim ([^\\n]*)\\n([^`]*)```");
  int blocks = 0;
  for (std::sregex_iterator it(readme.begin(), readme.end(), block), end; it != end; ++it) {
    const std::string command = (*it)[1];
    const auto run =
        test::dssim(std::regex_replace(command, std::regex("scenarios/"), (kSource / "scenarios/").string()));
    const auto comparable = [](const std::string& text) {
      return std::regex_replace(text, std::regex("simulated in [^\\n]*real time"), "simulated in … real time");
    };
    EXPECT_EQ(comparable(run.out), comparable((*it)[2])) << command;
    ++blocks;
  }
  EXPECT_GE(blocks, 2);
}

TEST(Documents, HelpNamesEveryCommand) {
  const auto help = test::dssim("--help");
  EXPECT_EQ(help.status, 0);
  for (const char* command : {"dssim step", "dssim fit", "dssim catalogue", "--requests", "--json"})
    EXPECT_NE(help.out.find(command), std::string::npos) << command;
  for (const char* command : {"--help", "step --help", "fit --help", "catalogue --help", "--version"})
    EXPECT_EQ(test::dssim(command).status, 0);
}

TEST(Documents, CatalogueShowsEverySection) {
  const auto overview = test::dssim("catalogue");
  EXPECT_EQ(overview.status, 0);
  for (const char* section : {"gpus", "nodes", "fabrics", "nics", "cpus", "storage", "models", "traces", "stacks"}) {
    EXPECT_NE(overview.out.find(section), std::string::npos);
    const auto list = test::dssim(std::string("catalogue ") + section);
    EXPECT_EQ(list.status, 0) << section;
    EXPECT_GE(std::count(list.out.begin(), list.out.end(), '\n'), 2) << section;
  }
  EXPECT_NE(test::dssim("catalogue gpus h100-sxm").out.find("datasheet"), std::string::npos);
  EXPECT_NE(test::dssim("catalogue models llama-3-8b").out.find("8030261248"), std::string::npos);
  EXPECT_EQ(test::dssim("catalogue stacks vllm-0.14").status, 0);
  EXPECT_EQ(test::dssim("catalogue traces azure-2023-conv").status, 0);
}

}  // namespace
}  // namespace dssim
