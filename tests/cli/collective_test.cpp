// SPDX-License-Identifier: Apache-2.0

// `dssim collective` as a user runs it.

#include <gtest/gtest.h>

#include "support/run_binary.hpp"

namespace dssim {
namespace {

namespace fs = std::filesystem;
const fs::path kScenarios = fs::path(DSSIM_SOURCE_DIR) / "scenarios/network";

TEST(CollectiveCommand, RunsEveryNetworkScenario) {
  int scenarios = 0;
  for (const auto& entry : fs::directory_iterator(kScenarios)) {
    const auto run =
        test::dssim("collective " + entry.path().string() + " --op all_to_all --bytes 1MiB,1GiB --simulate --json -");
    EXPECT_EQ(run.status, 0) << entry.path() << "\n" << run.error;
    EXPECT_NE(run.out.find("\"simulated_s\""), std::string::npos);
    ++scenarios;
  }
  EXPECT_GE(scenarios, 10);
}

TEST(CollectiveCommand, PrintsOneRowForEachSize) {
  const auto run = test::dssim("collective " + (kScenarios / "h100-rail.toml").string() +
                               " --op all_reduce --bytes 1MiB..4GiB --gpus 8");
  ASSERT_EQ(run.status, 0) << run.error;
  for (const char* size : {"      1 MiB  ", "    512 MiB  ", "      4 GiB  "})
    EXPECT_NE(run.out.find(size), std::string::npos) << run.out;
  EXPECT_NE(run.out.find("busbw GB/s"), std::string::npos);
  EXPECT_NE(run.out.find("nvls"), std::string::npos);
}

TEST(CollectiveCommand, SaysInOneLineWhatIsWrong) {
  const std::string scenario = " " + (kScenarios / "h100-rail.toml").string();
  const std::pair<std::string, std::string> cases[] = {{"--op allreduce", "did you mean 'all_reduce'"},
                                                       {"--bytes 4MiB..1MiB", "upwards"},
                                                       {"--gpus 65", "the cluster has 64"},
                                                       {"--gpus 1", "from 2 to"},
                                                       {"--set network.algorithm=rings", "did you mean 'ring'"},
                                                       {"--set cluster.degraded.nic_up[99]=0.5", "no such link"},
                                                       {"--set cluster.degraded.nic_up[9]=2", "share of its rate"}};
  for (const auto& [option, message] : cases) {
    const auto run = test::dssim("collective" + scenario + " '" + option.substr(0, option.find(' ')) + "' '" +
                                 option.substr(option.find(' ') + 1) + "'");
    EXPECT_EQ(run.status, 2) << option;
    EXPECT_NE(run.error.find(message), std::string::npos) << option << ": " << run.error;
    EXPECT_EQ(std::count(run.error.begin(), run.error.end(), '\n'), 1) << run.error;
  }
}

}  // namespace
}  // namespace dssim
