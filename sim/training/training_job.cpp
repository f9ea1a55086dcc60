// SPDX-License-Identifier: Apache-2.0
#include "sim/training/training_job.hpp"

#include <fmt/format.h>

#include <limits>

#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

ParallelProblem batch_problem(const TrainingJob& job) {
  const int64_t per_round = job.micro_batch * job.data_parallel;
  if (job.global_batch % per_round != 0)
    return {"global_batch", fmt::format("{} sequences do not divide over data_parallel × micro_batch = {} × {} = {}",
                                        job.global_batch, job.data_parallel, job.micro_batch, per_round)};
  if (job.micro_batches() > std::numeric_limits<int32_t>::max() / 64)
    return {"global_batch",
            fmt::format("{} micro-batches a replica are more than can be simulated", job.micro_batches())};
  if (job.sequence % job.context_parallel != 0)
    return {"context_parallel", fmt::format("{} does not divide sequence = {}", job.context_parallel, job.sequence)};
  if (job.sequence_parallel && (job.sequence / job.context_parallel) % job.tensor_parallel != 0)
    return {"sequence_parallel", fmt::format("tensor_parallel = {} does not divide the {} tokens of a sequence",
                                             job.tensor_parallel, job.sequence / job.context_parallel)};
  if (job.model.positions == Positions::learned && job.sequence > job.model.max_positions)
    return {"sequence", fmt::format("{} tokens are more than the {} positions the model has learned", job.sequence,
                                    job.model.max_positions)};
  return {};
}

ParallelProblem expert_problem(const TrainingJob& job) {
  const int ep = job.expert_parallel;
  if (job.mtp > 0 && job.model.is_encoder())
    return {"mtp", fmt::format("{} is an encoder, which predicts no next token", job.model.title)};
  if (!job.model.is_moe()) {
    const char* key = job.dispatch != ExpertDispatch::all_to_all  ? "expert_dispatch"
                      : job.dispatch_precision != Precision::bf16 ? "dispatch_precision"
                      : job.routed_nodes > 0                      ? "routed_nodes"
                                                                  : nullptr;
    if (key != nullptr) return {key, fmt::format("{} has no experts to send tokens to", job.model.title)};
  }
  if (job.parameter_bytes() > 2 && job.dispatch_precision == Precision::fp8)
    return {"dispatch_precision", "fp8 goes with products of 16 or 8 bits"};
  if (job.parameter_bytes() > 2 && job.kept_precision == Precision::fp8)
    return {"kept_precision", "fp8 goes with products of 16 or 8 bits"};
  if (job.routed_nodes > 0 && job.dispatch != ExpertDispatch::deepep)
    return {"routed_nodes",
            "bounds what expert_dispatch = \"deepep\" sends: an all-to-all sends a token to each expert"};
  if (ep == 1) return {};
  if (!job.model.is_moe()) return {"expert_parallel", fmt::format("{} has no experts to spread", job.model.title)};
  if (job.model.experts % ep != 0)
    return {"expert_parallel", fmt::format("{} does not divide the model's {} experts", ep, job.model.experts)};
  if (job.gradient_ranks() % ep != 0)
    return {"expert_parallel",
            fmt::format("{} does not divide data_parallel × context_parallel = {}", ep, job.gradient_ranks())};
  return {};
}

ParallelProblem pipeline_problem(const TrainingJob& job) {
  const auto& schedule = find_schedule(job.schedule);
  const int stages = job.pipeline_parallel;
  const int positions = schedule.positions(stages, schedule.chunks_per_stage(job.virtual_stages));
  if (layers_by_position(job.model.layers, positions).empty())
    return {job.virtual_stages > 1 ? "virtual_stages" : "pipeline_parallel",
            fmt::format("{} layers do not divide over {} {}", job.model.layers, positions,
                        job.virtual_stages > 1 ? "stages × virtual stages" : "stages")};
  if (const auto text = schedule.problem(stages, static_cast<int>(job.micro_batches()), job.virtual_stages);
      !text.empty()) {
    const auto colon = text.find(": ");
    return {text.substr(0, colon), text.substr(colon + 2)};
  }
  return {};
}

}  // namespace

std::vector<int64_t> layers_by_position(int64_t layers, int positions) {
  for (int missing = 0; missing <= 3; ++missing) {
    if ((layers + missing) % positions != 0) continue;
    std::vector<int64_t> split(static_cast<size_t>(positions), (layers + missing) / positions);
    if (missing >= 1) --split.back();
    if (missing >= 2) --split.front();
    if (missing == 3) --split.back();
    if (split.back() < 0) return {};
    // At most the ends may be left with the embedding or the head alone.
    if (positions > 2 ? split[1] < 1 : split.back() < 1 || split.front() < 1) return {};
    return split;
  }
  return {};
}

ParallelProblem training_problem(const TrainingJob& job) {
  // Heads and widths by the rules every engine has; layers and experts have rules of their own here.
  if (auto problem = parallel_problem(job.model, job.tensor_parallel, 1, 1)) return problem;
  if (auto problem = batch_problem(job)) return problem;
  if (auto problem = expert_problem(job)) return problem;
  if (job.exchange == GradientExchange::parameter_server && job.sharding != Sharding::none)
    return {"sharding", "a parameter server keeps the optimizer's state itself: take sharding = \"none\""};
  if (job.compression != GradientCompression::none && job.sharding == Sharding::zero3)
    return {"gradient_compression",
            "gradients of sharded parameters are reduced to their owners: take sharding none, zero1 or zero2"};
  return pipeline_problem(job);
}

}  // namespace dssim
