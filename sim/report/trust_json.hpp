// SPDX-License-Identifier: Apache-2.0
#pragma once

// The object `trust`, which every answer's JSON has (docs/json.md).

#include <nlohmann/json.hpp>

#include "sim/results/serving_report.hpp"

namespace dssim {

inline nlohmann::ordered_json trust_json(const Trust& trust) {
  nlohmann::ordered_json json = {
      {"inside", trust.inside}, {"edge", trust.edge}, {"outside", trust.outside}, {"sources", trust.sources}};
  if (const auto& error = trust.kernel_error)
    json["kernel_error"] = {{"median", error->median}, {"p90", error->p90}, {"share", error->share}};
  return json;
}

}  // namespace dssim
