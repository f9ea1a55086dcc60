// SPDX-License-Identifier: Apache-2.0
#include "sim/training/memory.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/training/schedule.hpp"

namespace dssim {
namespace {

double value(int64_t count) {
  return static_cast<double>(count);
}

// One layer's parameters on one GPU: everything but the feed-forward of experts, and that.
StageParameters layer_parameters_per_gpu(const TrainingJob& job, LayerKind kind) {
  const Architecture& m = job.model;
  const int t = job.tensor_parallel;
  const auto feed_forward = [&](int64_t width) { return parameters_of(feed_forward_matrices(m, width, t)); };
  StageParameters p;
  p.shared = parameters_of(attention_matrices(m, t)) + 4 * value(m.hidden);  // norms are replicated
  if (kind == LayerKind::moe) {
    p.shared += value(m.hidden) * value(m.experts) + feed_forward(m.shared_ffn);
    p.experts = feed_forward(m.ffn) * value(m.experts) / job.expert_parallel;
  } else {
    p.shared += feed_forward(m.ffn_of(kind));
  }
  return p;
}

double largest_layer_parameters(const TrainingJob& job) {
  double largest = 0;
  for (const auto kind : {LayerKind::dense, LayerKind::moe})
    if (job.model.layers_of(kind) > 0) largest = std::max(largest, layer_parameters_per_gpu(job, kind).total());
  return largest;
}

StageParameters layers_parameters(const TrainingJob& job, const PositionLayers& layers) {
  StageParameters sum;
  for (const auto kind : {LayerKind::dense, LayerKind::moe}) {
    if (layers.of(kind) == 0) continue;
    const auto layer = layer_parameters_per_gpu(job, kind);
    sum.shared += layers.of(kind) * layer.shared;
    sum.experts += layers.of(kind) * layer.experts;
  }
  // A prediction module's own product; embedding and head are the model's.
  sum.shared += layers.mtp * (2 * value(job.model.hidden) / job.tensor_parallel + 3) * value(job.model.hidden);
  return sum;
}

int position_count(const TrainingJob& job) {
  const auto& schedule = find_schedule(job.schedule);
  return schedule.positions(job.pipeline_parallel, schedule.chunks_per_stage(job.virtual_stages));
}

double logits_bytes(const TrainingJob& job, const TrainingStack& stack) {
  return job.micro_batch_tokens() * value(vocabulary_per_gpu(job.model, job.tensor_parallel)) * stack.logit_bytes;
}

}  // namespace

StageParameters position_parameters(const TrainingJob& job, const PositionLayers& layers, bool first, bool last) {
  const Architecture& m = job.model;
  const double outer = value(vocabulary_per_gpu(m, job.tensor_parallel)) * value(m.hidden);
  StageParameters sum = layers_parameters(job, layers);
  if (first) sum.shared += outer;
  if (first && m.positions == Positions::learned) sum.shared += value(m.max_positions) * value(m.hidden);
  // Tied embeddings are kept on both ends of a pipeline.
  if (last && !m.is_encoder() && !(m.tied_embeddings && first)) sum.shared += outer;
  return sum;
}

StageParameters stage_parameters(const TrainingJob& job, int stage) {
  const auto& schedule = find_schedule(job.schedule);
  const auto split = position_layers(job, position_count(job));
  const int last = position_count(job) - 1;
  StageParameters sum;
  for (const int p :
       schedule.positions_on(stage, job.pipeline_parallel, schedule.chunks_per_stage(job.virtual_stages))) {
    const auto held = position_parameters(job, split[static_cast<size_t>(p)], p == 0, p == last);
    sum.shared += held.shared;
    sum.experts += held.experts;
  }
  return sum;
}

double layer_activation_bytes(const TrainingJob& job, const TrainingStack& stack) {
  return layer_activation_bytes(job, stack, last_kind(job.model));
}

double layer_activation_bytes(const TrainingJob& job, const TrainingStack& stack, LayerKind kind) {
  const Architecture& m = job.model;
  const double tokens = job.micro_batch_tokens(), t = job.tensor_parallel, hidden = value(m.hidden);
  const double w = job.parameter_bytes() == 4 ? 4 : 2;        // activations stay in 16 bits under fp8
  const double in = job.precision == Precision::fp8 ? 1 : w;  // but for what its products read
  const double outside = job.sequence_parallel ? t : 1;       // what tensor parallelism leaves whole
  if (job.recompute == Recompute::full) return w * tokens * hidden / outside;
  const bool drops = m.linear_bias && stack.dropout_values > 0, moe = kind == LayerKind::moe;
  const AttentionWidths a = attention_widths(m, job.tensor_parallel);
  const double copies = moe ? value(m.experts_per_token) : 1;
  const double ffn = (moe ? value(m.ffn) * copies + value(m.shared_ffn) : value(m.ffn_of(kind))) / t;

  // Selective recomputation: with scores in memory, those; else what norms and activation functions made, and of latent
  // attention the queries, keys and values. Tokens that came from other GPUs are kept.
  const bool light = job.recompute == Recompute::selective && job.attention != TrainingAttention::unfused;
  double bytes = 2 * (light ? w : stack.norm_bytes * w / 2) * hidden / outside;  // inputs of the two norms
  if (!light) bytes += 2 * in * hidden / outside;  // inputs of the first products of each half
  if (moe) bytes += in * (copies - (light ? 0 : 1)) * hidden / outside;
  if (drops) bytes += 2 * hidden / outside;  // two dropout masks of one byte
  bytes += w * (light && m.is_mla() ? a.latent : a.all() + a.latent);
  bytes += w * a.result;
  const double kept = m.activation == Activation::gated ? stack.ffn_values : 2;
  const double kept_bytes = job.kept_precision == Precision::fp8 ? 1 : w;
  bytes += kept_bytes * ffn * (light ? std::min(kept, m.activation == Activation::gated ? 2.0 : 1.0) : kept);
  double sum = tokens * bytes;
  if (job.attention == TrainingAttention::unfused && job.recompute == Recompute::none) {
    const double scores = value(m.heads) / t * tokens * value(job.sequence);
    sum += scores * (2 * w + (drops ? 1 : 0));  // softmax's result, dropout's result and mask
  } else if (job.attention != TrainingAttention::unfused) {
    sum += 4 * tokens * value(m.heads) / t;  // the softmax's logarithm of each row
  }
  return sum;
}

double optimizer_bytes_per_parameter(const TrainingJob& job) {
  double bytes = 0;
  if (job.optimizer == Optimizer::adamw || job.optimizer == Optimizer::adam) bytes = 2 * bytes_of(job.state_precision);
  if (job.optimizer == Optimizer::adamw_8bit) bytes = 2;
  if (job.master_weights && job.parameter_bytes() < 4) bytes += 4;
  return bytes;
}

std::vector<int> in_flight_chunks(const TrainingJob& job) {
  const auto& schedule = find_schedule(job.schedule);
  const int stages = job.pipeline_parallel, chunks = schedule.chunks_per_stage(job.virtual_stages);
  const std::vector<PositionTime> unit(static_cast<size_t>(position_count(job)), {1, 2, 1});
  return run_pipeline_collapsed(schedule, stages, static_cast<int>(job.micro_batches()), chunks, unit, 0)
      .peak_in_flight;
}

TrainingMemory plan_training_memory(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes,
                                    const std::vector<int>& in_flight) {
  const auto split = position_layers(job, position_count(job));
  TrainingJob whole = job;
  whole.recompute = Recompute::none;
  double per_chunk = 0,
         recomputed = 0;  // of the position that keeps most, and one layer in full while it is recomputed
  for (const auto& layers : split) {
    double chunk = 0;
    for (const auto kind : {LayerKind::dense, LayerKind::moe}) {
      if (layers.of(kind) == 0) continue;
      chunk += layers.of(kind) * layer_activation_bytes(job, stack, kind);
      if (job.recompute == Recompute::full)
        recomputed = std::max(recomputed, layer_activation_bytes(whole, stack, kind));
    }
    per_chunk = std::max(per_chunk, chunk);
  }

  TrainingMemory plan;
  plan.gpu_bytes = gpu_bytes;
  for (int s = 0; s < job.pipeline_parallel; ++s) {
    const auto parameters = stage_parameters(job, s);
    const double ranks = job.gradient_ranks(), expert_ranks = ranks / job.expert_parallel;
    // Shared and expert parameters are sharded over as many ranks as hold copies of them.
    const auto sharded = [&](Sharding from) {
      return job.sharding >= from ? parameters.shared / ranks + parameters.experts / expert_ranks : parameters.total();
    };
    TrainingStageMemory m;
    m.weights_bytes = sharded(Sharding::zero3) * job.parameter_bytes();
    m.gradient_bytes = sharded(Sharding::zero2) * bytes_of(job.gradient_precision);
    m.optimizer_bytes = sharded(Sharding::zero1) * optimizer_bytes_per_parameter(job);
    if (job.exchange == GradientExchange::parameter_server) m.optimizer_bytes = 0;
    m.activation_bytes = in_flight[static_cast<size_t>(s)] * per_chunk + recomputed;
    if (s == job.pipeline_parallel - 1) m.activation_bytes += logits_bytes(job, stack);
    m.reserved_bytes = stack.reserved_bytes;
    // Buckets that gradients are copied into hold all of them once more.
    if (stack.bucket_values > 0 && job.sharding == Sharding::none && ranks > 1) m.gradient_bytes *= 2;
    if (job.sharding == Sharding::zero3)  // two layers' parameters gathered at a time
      m.reserved_bytes += 2 * largest_layer_parameters(job) * job.parameter_bytes();
    if (s == 0 || m.total_bytes() > plan.total_bytes()) {
      static_cast<TrainingStageMemory&>(plan) = m;
      plan.stage = s;
    }
    plan.stages.push_back(m);
  }
  plan.shortfall_bytes = std::max(0.0, plan.total_bytes() - gpu_bytes);
  plan.fits = plan.shortfall_bytes == 0;
  return plan;
}

namespace {

struct Change {
  std::string key;  // one remedy of each key is enough: the mildest
  std::string text;
  TrainingJob job;
};

std::vector<Change> changes_of(const TrainingJob& job, int gpus_per_node) {
  std::vector<Change> changes;
  const auto add = [&](const std::string& key, const std::string& value, const auto& apply) {
    TrainingJob changed = job;
    apply(changed);
    if (changed.gpus() == job.gpus()) changes.push_back({key, fmt::format("{} = {}", key, value), changed});
  };
  if (job.gradient_ranks() > 1 && job.exchange == GradientExchange::all_reduce)
    for (const auto to : {Sharding::zero1, Sharding::zero2, Sharding::zero3})
      if (to > job.sharding)
        add("sharding", fmt::format("\"{}\"", kShardingNames[static_cast<size_t>(to)]),
            [to](TrainingJob& j) { j.sharding = to; });
  for (const auto to : {Recompute::selective, Recompute::full})
    if (to > job.recompute)
      add("recompute", fmt::format("\"{}\"", kRecomputeNames[static_cast<size_t>(to)]),
          [to](TrainingJob& j) { j.recompute = to; });
  if (job.micro_batch > 1) add("micro_batch", "1", [](TrainingJob& j) { j.micro_batch = 1; });
  for (const int factor : {2, 4, 8}) {
    const auto spread = [factor](int& degree, TrainingJob& j) {
      degree *= factor;
      j.data_parallel /= factor;
    };
    if (job.tensor_parallel * factor <= gpus_per_node)
      add("tensor_parallel", fmt::format("{}", job.tensor_parallel * factor),
          [&](TrainingJob& j) { spread(j.tensor_parallel, j); });
    add("pipeline_parallel", fmt::format("{}", job.pipeline_parallel * factor),
        [&](TrainingJob& j) { spread(j.pipeline_parallel, j); });
  }
  return changes;
}

}  // namespace

std::vector<std::string> training_remedies(const TrainingJob& job, const TrainingStack& stack, double gpu_bytes,
                                           int gpus_per_node) {
  const auto fits = [&](const TrainingJob& changed) {
    return !training_problem(changed) &&
           plan_training_memory(changed, stack, gpu_bytes, in_flight_chunks(changed)).fits;
  };
  std::vector<std::string> remedies, keys;
  const auto offer = [&](const std::string& key, const std::string& text, const TrainingJob& changed) {
    if (std::find(keys.begin(), keys.end(), key) != keys.end() || !fits(changed)) return;
    keys.push_back(key);
    remedies.push_back(text);
  };
  const auto changes = changes_of(job, gpus_per_node);
  for (const auto& change : changes) offer(change.key, change.text, change.job);
  if (!remedies.empty()) return remedies;
  for (const auto& first : changes)
    for (const auto& second : changes_of(first.job, gpus_per_node))
      if (first.key < second.key) offer(first.key + second.key, first.text + " and " + second.text, second.job);
  return remedies;
}

}  // namespace dssim
