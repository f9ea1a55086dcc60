// SPDX-License-Identifier: Apache-2.0
#pragma once

// From a scenario to what a run needs: cost model, step model, memory plan, network and placement.

#include <memory>

#include "platforms/cluster_network.hpp"
#include "sim/network/collective.hpp"
#include "sim/results/serving_report.hpp"
#include "sim/serving/placement.hpp"
#include "sim/study/scenario.hpp"
#include "workloads/step_model.hpp"

namespace dssim {

struct DeploymentSetup {
  std::unique_ptr<CostModel> cost;  // stays where it is: the step model refers to it
  std::unique_ptr<ClusterNetwork> network;
  std::unique_ptr<CollectiveModel> collectives;  // null where the stack's own tables price them
  std::unique_ptr<StepModel> steps;
  Placement placement;
  FitReport fit;
  std::vector<std::string> notes;
};

DeploymentSetup set_up(const Scenario& scenario);

// Throws Error(cannot_run) naming the shortfall and the remedies where the plan does not fit.
void require_fit(const FitReport& fit);

// Shares of a usage's GPU time by coverage, where its prices come from, and the kernel error that its operators carry;
// `weights` is their format.
Trust trust_of(const StepUsage& usage, const DeploymentSetup& setup, Precision weights);

}  // namespace dssim
