// SPDX-License-Identifier: Apache-2.0
#pragma once

// One training step of a scenario, and the same job at other GPU counts.
//
// Weak scaling keeps the sequences a replica works on, so the global batch grows with the GPUs; strong scaling keeps
// the global batch. Both change data_parallel and the number of nodes, nothing else. Efficiency is tokens/s/GPU over
// that of the first count. What was lost is the growth of each part of the step, per token and GPU, as a share of the
// first row's time per token and GPU.

#include <vector>

#include "sim/study/training_scenario.hpp"
#include "sim/training/training_report.hpp"

namespace dssim {

// Throws Error(cannot_run) naming the shortfall and the remedies where the job does not fit; the report is in *partial
// then.
TrainingReport run_training(const TrainingScenario& scenario, TrainingReport* partial = nullptr);

// The same whether it fits or not, with the remedies; and the error that says it does not.
TrainingReport query_training_fit(const TrainingScenario& scenario);
void require_training_fit(const TrainingReport& report);

ScaleReport run_training_scale(const TrainingScenario& scenario, const std::vector<int>& gpu_counts);

// What both, and the search, print at their head.
Setup training_setup(const TrainingScenario& scenario, const TrainingJob& job, const std::string& stack);
std::string layout_text(const TrainingJob& job);

}  // namespace dssim
