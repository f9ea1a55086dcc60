// SPDX-License-Identifier: Apache-2.0
#pragma once

// What a profile's tables say of themselves: how well they predict, and the plain laws behind them.
//
//   errors  predicted against measured seconds on the shapes of the check_ tables, which were drawn at random and are in
//           no other table, by operator. They are the profile's uncertainty: written to report.toml, a run's trust
//           weighs them by the operators' shares of its GPU time.
//   laws    least squares of relative errors (kernels/fit.hpp), with their residuals: seconds = latency + bytes /
//           bandwidth of each collective and copy; latency + FLOPs / rate + bytes / bandwidth of matrix products by
//           format; latency + bytes / bandwidth of element-wise kernels; the block times of dssim's own attention
//           kernels (kernels/attention_launch.hpp). For people: prices are read from the tables.
//
// Needs no GPU. Units: SI. Throws where a table is damaged. Tested by tests/validation/kernels_test.cpp.

#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace dssim {

// Operators: gemm_bf16, gemm_fp8, gemm_int8, decode_attention, prefill_attention, moe_bf16, moe_fp8, add_rmsnorm,
// silu_mul and other element-wise kernels by their name, collectives.
struct OperatorError {
  std::string name;
  size_t shapes = 0;
  double median = 0, p90 = 0, worst = 0;
};

struct FittedLaw {
  std::string name;
  size_t rows = 0;
  std::vector<std::pair<std::string, std::string>> terms;  // "bandwidth", "3.1 TB/s"
  double median = 0, p90 = 0;                              // of the law against the rows it was fitted to
};

struct ProfileReport {
  std::string title;
  std::vector<OperatorError> errors;
  std::vector<FittedLaw> laws;
};

// `folder` is a profile's: …/<gpu>/<stack>.
ProfileReport report_on_profile(const std::filesystem::path& folder);
std::string profile_report_text(const ProfileReport& report);
std::string profile_report_toml(const ProfileReport& report);
// Writes report.toml into the profile's folder.
void write_profile_report(const std::filesystem::path& folder, const ProfileReport& report);

}  // namespace dssim
