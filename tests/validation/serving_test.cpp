// SPDX-License-Identifier: Apache-2.0
// Whole runs against measured ones: latencies of a replay and of an overloaded server. The bounds are what is reached, a little
// above the errors in docs/validation.md, so that a change for the worse is noticed; a miss of a goal is said there.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>

#include "sim/report/validation_text.hpp"
#include "sim/study/validate.hpp"

namespace dssim {
namespace {

const std::filesystem::path kSource = DSSIM_SOURCE_DIR;

ValidationReport hold(const char* scenario_file, const char* requests) {
  Scenario scenario = read_scenario(kSource / "scenarios/validation" / scenario_file);
  ValidationReport report = validate(scenario, kSource / "tests/validation/data" / requests, std::nullopt);
  std::cout << console_text(report, false);
  return report;
}

double error_of(const ValidationReport& report, const std::string& name) {
  for (const auto& figure : report.figures)
    if (figure.name == name) return std::abs(figure.error());
  ADD_FAILURE() << "no figure " << name;
  return 1;
}

TEST(ServingMeasured, ReplayOnH100) {
  const auto report = hold("replay-h100-llama-3-8b.toml", "replay_llama3-8b_h100_tp1_conv_q4.csv");
  EXPECT_LT(error_of(report, "TTFT p50"), 0.08);
  EXPECT_LT(error_of(report, "TTFT p99"), 0.08);
  EXPECT_LT(error_of(report, "TPOT p50"), 0.04);
  EXPECT_LT(error_of(report, "TPOT p99"), 0.04);
  EXPECT_LT(error_of(report, "e2e mean"), 0.04);
}

TEST(ServingMeasured, OverloadedVllmOnRtx4090) {
  const auto report = hold("vllm-rtx-4090-llama-3.1-8b.toml", "vllm_rtx-4090_llama3.1-8b.csv");
  EXPECT_LT(error_of(report, "TTFT mean"), 0.05);
  EXPECT_LT(error_of(report, "TPOT mean"), 0.03);
  EXPECT_LT(error_of(report, "e2e mean"), 0.03);
  EXPECT_LT(error_of(report, "makespan"), 0.02);
}

}  // namespace
}  // namespace dssim
