// SPDX-License-Identifier: Apache-2.0
#pragma once

// One serving run: scenario in, report out. Also the two questions that need no simulation, a memory fit and one step.

#include <filesystem>
#include <optional>

#include "sim/results/serving_report.hpp"
#include "sim/study/scenario.hpp"

namespace dssim {

struct RunOptions {
  std::optional<std::filesystem::path> requests_csv;  // one line per request, in order of arrival
  bool progress = false;                              // on stderr
};

// Throws Error(cannot_run) where the model does not fit, Error(bad_input) where there is no [workload]. A stop request
// (Ctrl-C) ends the run with what is known so far, marked partial.
ServingReport run_serving(Scenario& scenario, const RunOptions& options);

// The memory plan, whether it fits or not.
FitReport query_fit(const Scenario& scenario);

// One engine iteration, alone: decode_sequences at decode_kv_tokens each (the new token included), together with
// `prompts` prompts of `prefill_tokens` onto `past_tokens`.
struct StepQuery {
  int64_t decode_sequences = 0, decode_kv_tokens = 0;
  int64_t prompts = 0, prefill_tokens = 0, past_tokens = 0;
};
StepReport query_step(const Scenario& scenario, const StepQuery& query);

}  // namespace dssim
