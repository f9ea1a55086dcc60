// SPDX-License-Identifier: Apache-2.0
#pragma once

// Holds a scenario against a measured run of the same deployment.
//
// `requests`: CSV with arrival,input,output,first_token,done (seconds, tokens; what --requests and a measured engine
// write). Its arrivals and lengths are replayed in place of the scenario's workload, and the latencies compared.
// `iterations`: CSV with seconds,decode_seqs,prefill_tokens,decode_kv_tokens,prefill_kv_tokens, one engine iteration a
// row: the KV sums count the tokens after the step; a prefill is taken as one chunk. Each is priced alone and compared.

#include <filesystem>
#include <optional>

#include "sim/results/validation_report.hpp"
#include "sim/study/scenario.hpp"

namespace dssim {

ValidationReport validate(Scenario& scenario, const std::optional<std::filesystem::path>& requests,
                          const std::optional<std::filesystem::path>& iterations);

}  // namespace dssim
