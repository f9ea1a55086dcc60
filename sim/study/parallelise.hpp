// SPDX-License-Identifier: Apache-2.0
#pragma once

// Every way to lay a training job out on a cluster, ranked by predicted step time; those that cannot run with their
// reason.
//
// Examined: tensor degrees up to a node (divisors of it), pipeline degrees that divide the layers, context degrees
// where the scenario has sequences of 16384 tokens or more or asks for one, expert degrees for mixtures, micro-batches
// 1 to 64, sharding none to zero3, recomputation none, selective,
// full, and for pipelines the scenario's schedule or 1f1b and the interleaved schedule with 2 to 8 chunks. Global
// batch, sequence, optimizer and the rest are the scenario's. A layout whose memory does not fit is not priced.

#include "sim/study/training_scenario.hpp"
#include "sim/training/training_report.hpp"

namespace dssim {

struct SearchOptions {
  size_t show = 20;  // feasible layouts kept
  size_t show_infeasible = 20;
  bool progress = false;
};

// Throws Error(cannot_run) where no layout runs.
SearchReport find_layouts(const TrainingScenario& scenario, const SearchOptions& options = {});

}  // namespace dssim
