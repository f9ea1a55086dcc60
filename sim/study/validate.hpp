// SPDX-License-Identifier: Apache-2.0
#pragma once

// Holds a scenario against a measured run of the same deployment.
//
// `requests`: CSV with arrival,input,output,first_token,done (seconds, tokens; what --requests and a measured engine
// write). Its arrivals and lengths are replayed in place of the scenario's workload, and the latencies compared.
// `iterations`: CSV with seconds,decode_seqs,prefill_tokens,decode_kv_tokens,prefill_kv_tokens, one engine iteration a
// row: the KV sums count the tokens after the step. Where it has them too, prefill_seqs (prompts in the step, else one),
// decode_longest_kv (else all decodes are equal) and start (else each step follows the one before) are used. Each is
// priced and compared.

#include <filesystem>
#include <optional>

#include "sim/results/validation_report.hpp"
#include "sim/study/scenario.hpp"

namespace dssim {

ValidationReport validate(Scenario& scenario, const std::optional<std::filesystem::path>& requests,
                          const std::optional<std::filesystem::path>& iterations);

}  // namespace dssim
