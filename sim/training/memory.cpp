// SPDX-License-Identifier: Apache-2.0
#include "sim/training/memory.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <numeric>

#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

double value(int64_t count) { return static_cast<double>(count); }

// One layer's parameters on one GPU: everything but the feed-forward of experts, and that.
StageParameters layer_parameters_per_gpu(const TrainingJob& job) {
  const Architecture& m = job.model;
  const double t = job.tensor_parallel, hidden = value(m.hidden);
  const double matrices = (m.activation == Activation::gated ? 3 : 2) * hidden * value(m.ffn);
  const double kv = value(kv_heads_per_gpu(m, job.tensor_parallel) * m.head_dim);
  StageParameters p;
  p.shared = 2 * hidden * value(m.q_width()) / t + 2 * hidden * kv + 4 * hidden;  // norms are replicated
  if (m.is_moe()) {
    p.shared += hidden * value(m.experts);
    p.experts = matrices * value(m.experts) / job.expert_parallel / t;
  } else {
    p.shared += matrices / t;
  }
  return p;
}

// Positions of the pipeline that a stage holds weights of.
std::vector<int> positions_of(const TrainingJob& job, int stage) {
  const auto& schedule = find_schedule(job.schedule);
  const int stages = job.pipeline_parallel;
  std::vector<int> held;
  if (schedule.weight_copies() > 1) {
    held = {stage, stages - 1 - stage};
  } else {
    for (int p = stage; p < schedule.positions(stages, schedule.chunks_per_stage(job.virtual_stages)); p += stages) held.push_back(p);
  }
  return held;
}

int position_count(const TrainingJob& job) {
  const auto& schedule = find_schedule(job.schedule);
  return schedule.positions(job.pipeline_parallel, schedule.chunks_per_stage(job.virtual_stages));
}

double logits_bytes(const TrainingJob& job) {
  // Logits in the format of the products, their fp32 copy and its gradient.
  return job.micro_batch_tokens() * value(vocabulary_per_gpu(job.model, job.tensor_parallel)) * (job.parameter_bytes() + 8);
}

}  // namespace

StageParameters stage_parameters(const TrainingJob& job, int stage) {
  const auto split = layers_by_position(job.model.layers, position_count(job));
  const auto layer = layer_parameters_per_gpu(job);
  const double outer = value(vocabulary_per_gpu(job.model, job.tensor_parallel)) * value(job.model.hidden);
  const int last = position_count(job) - 1;
  StageParameters sum;
  for (const int p : positions_of(job, stage)) {
    sum.shared += value(split[static_cast<size_t>(p)]) * layer.shared;
    sum.experts += value(split[static_cast<size_t>(p)]) * layer.experts;
    if (p == 0) {
      sum.shared += outer;
      if (job.model.positions == Positions::learned) sum.shared += value(job.model.max_positions) * value(job.model.hidden);
    }
    // Tied embeddings are kept on both ends of a pipeline.
    if (p == last && !job.model.is_encoder() && !(job.model.tied_embeddings && p == 0)) sum.shared += outer;
  }
  return sum;
}

double layer_activation_bytes(const TrainingJob& job, const TrainingStack& stack) {
  const Architecture& m = job.model;
  const double tokens = job.micro_batch_tokens(), t = job.tensor_parallel, hidden = value(m.hidden);
  const double w = job.parameter_bytes() == 4 ? 4 : 2;  // activations stay in 16 bits under fp8
  const double outside = job.sequence_parallel ? t : 1;  // what tensor parallelism leaves whole
  if (job.recompute == Recompute::full) return w * tokens * hidden / outside;
  const bool drops = m.linear_bias && stack.dropout_values > 0;
  const double q = value(m.q_width()) / t, kv = value(kv_heads_per_gpu(m, job.tensor_parallel) * m.head_dim);
  const double copies = m.is_moe() ? value(m.experts_per_token) : 1;
  const double ffn = value(m.ffn) / t * copies;

  double bytes = 2 * stack.norm_bytes * w / 2 * hidden / outside;      // inputs of the two norms
  bytes += 2 * w * hidden / outside * (m.is_moe() ? (1 + copies) / 2 : 1);  // inputs of the first products of each half
  if (drops) bytes += 2 * hidden / outside;                           // two dropout masks of one byte
  bytes += w * (q + 2 * kv) + w * q;                                  // q, k, v; attention's result
  bytes += w * ffn * (m.activation == Activation::gated ? stack.ffn_values : 2);
  double sum = tokens * bytes;
  if (job.attention == TrainingAttention::unfused && job.recompute == Recompute::none) {
    const double scores = value(m.heads) / t * tokens * value(job.sequence);
    sum += scores * (2 * w + (drops ? 1 : 0));  // softmax's result, dropout's result and mask
  } else if (job.attention == TrainingAttention::flash) {
    sum += 4 * tokens * value(m.heads) / t;  // the softmax's logarithm of each row
  }
  return sum;
}

double optimizer_bytes_per_parameter(const TrainingJob& job) {
  double bytes = 0;
  if (job.optimizer == Optimizer::adamw) bytes = 2 * bytes_of(job.state_precision);
  if (job.optimizer == Optimizer::adamw_8bit) bytes = 2;
  if (job.master_weights && job.parameter_bytes() < 4) bytes += 4;
  return bytes;
}

std::vector<int> in_flight_chunks(const TrainingJob& job) {
  const auto& schedule = find_schedule(job.schedule);
  const int stages = job.pipeline_parallel, chunks = schedule.chunks_per_stage(job.virtual_stages);
  const std::vector<PositionTime> unit(static_cast<size_t>(position_count(job)), {1, 2, 1});
  return run_pipeline_collapsed(schedule, stages, static_cast<int>(job.micro_batches()), chunks, unit, 0).peak_in_flight;
}

TrainingMemory plan_training_memory(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes,
                                    const std::vector<int>& in_flight) {
  const auto split = layers_by_position(job.model.layers, position_count(job));
  const double layers_in_chunk = value(*std::max_element(split.begin(), split.end()));
  const double per_layer = layer_activation_bytes(job, stack);
  TrainingJob whole = job;
  whole.recompute = Recompute::none;
  const double recomputed = job.recompute == Recompute::full ? layer_activation_bytes(whole, stack) : 0;

  TrainingMemory worst;
  for (int s = 0; s < job.pipeline_parallel; ++s) {
    const auto parameters = stage_parameters(job, s);
    const double ranks = job.gradient_ranks(), expert_ranks = ranks / job.expert_parallel;
    // Shared and expert parameters are sharded over as many ranks as hold copies of them.
    const auto sharded = [&](Sharding from) {
      return job.sharding >= from ? parameters.shared / ranks + parameters.experts / expert_ranks : parameters.total();
    };
    TrainingMemory m;
    m.gpu_bytes = gpu_bytes;
    m.stage = s;
    m.weights_bytes = sharded(Sharding::zero3) * job.parameter_bytes();
    m.gradient_bytes = sharded(Sharding::zero2) * bytes_of(job.gradient_precision);
    m.optimizer_bytes = sharded(Sharding::zero1) * optimizer_bytes_per_parameter(job);
    if (job.exchange == GradientExchange::parameter_server) m.optimizer_bytes = 0;
    m.activation_bytes = in_flight[static_cast<size_t>(s)] * layers_in_chunk * per_layer + recomputed;
    if (s == job.pipeline_parallel - 1) m.activation_bytes += logits_bytes(job);
    m.reserved_bytes = stack.reserved_bytes;
    if (job.sharding == Sharding::zero3)  // two layers' parameters gathered at a time
      m.reserved_bytes += 2 * layer_parameters_per_gpu(job).total() * job.parameter_bytes();
    m.shortfall_bytes = std::max(0.0, m.total_bytes() - gpu_bytes);
    m.fits = m.shortfall_bytes == 0;
    if (s == 0 || m.total_bytes() > worst.total_bytes()) worst = m;
  }
  return worst;
}

std::vector<std::string> training_remedies(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes) {
  using Change = std::pair<std::string, std::function<bool(TrainingJob&)>>;
  std::vector<Change> changes;
  for (const auto to : {Sharding::zero1, Sharding::zero2, Sharding::zero3})
    if (to > job.sharding && job.gradient_ranks() > 1 && job.exchange == GradientExchange::all_reduce)
      changes.emplace_back(fmt::format("sharding = \"{}\"", kShardingNames[static_cast<size_t>(to)]), [to](TrainingJob& j) {
        j.sharding = to;
        return true;
      });
  for (const auto to : {Recompute::selective, Recompute::full})
    if (to > job.recompute)
      changes.emplace_back(fmt::format("recompute = \"{}\"", kRecomputeNames[static_cast<size_t>(to)]), [to](TrainingJob& j) {
        j.recompute = to;
        return true;
      });
  if (job.micro_batch > 1)
    changes.emplace_back("micro_batch = 1", [](TrainingJob& j) {
      j.micro_batch = 1;
      return true;
    });
  for (const int factor : {2, 4, 8})
    changes.emplace_back(fmt::format("tensor_parallel = {}", job.tensor_parallel * factor), [factor](TrainingJob& j) {
      j.tensor_parallel *= factor;
      j.data_parallel /= factor;
      return j.data_parallel >= 1 && j.gpus() > 0;
    });
  for (const int factor : {2, 4, 8})
    changes.emplace_back(fmt::format("pipeline_parallel = {}", job.pipeline_parallel * factor), [factor](TrainingJob& j) {
      j.pipeline_parallel *= factor;
      j.data_parallel /= factor;
      return j.data_parallel >= 1;
    });
  const auto fits = [&](TrainingJob changed) {
    return changed.gpus() == job.gpus() && !training_problem(changed) &&
           plan_training_memory(changed, stack, gpu_bytes, in_flight_chunks(changed)).fits;
  };
  std::vector<std::string> remedies;
  for (const auto& [text, apply] : changes)
    if (TrainingJob changed = job; apply(changed) && fits(changed)) remedies.push_back(text);
  if (!remedies.empty()) return remedies;
  for (size_t a = 0; a < changes.size(); ++a)
    for (size_t b = a + 1; b < changes.size() && remedies.size() < 4; ++b)
      if (TrainingJob changed = job; changes[a].second(changed) && changes[b].second(changed) && fits(changed))
        remedies.push_back(changes[a].first + " and " + changes[b].first);
  return remedies;
}

}  // namespace dssim
