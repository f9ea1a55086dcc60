// SPDX-License-Identifier: Apache-2.0
#pragma once

// Clusters, models and jobs for tests of training.

#include <fmt/format.h>

#include "platforms/cluster.hpp"
#include "sim/training/training_stack.hpp"

namespace dssim::test {

inline Cluster cluster_of(const std::string& node, int gpus, int per_node, const std::string& fabric = "") {
  const int nodes = (gpus + per_node - 1) / per_node;
  return read_cluster(Config::parse(
      fmt::format("node = \"{}\"\nnodes = {}\ngpus = {}\n{}", node, nodes, gpus, nodes > 1 ? fabric : ""), "cluster"));
}

// GPT as Megatron has it: 4 h wide feed-forward, biases, learned positions, tied embeddings.
inline Architecture gpt(int64_t hidden, int64_t layers, int64_t heads, int64_t vocabulary, int64_t positions) {
  Architecture m;
  m.name = m.title = "gpt";
  m.hidden = hidden;
  m.layers = layers;
  m.heads = m.kv_heads = heads;
  m.head_dim = hidden / heads;
  m.ffn = 4 * hidden;
  m.vocabulary = vocabulary;
  m.max_positions = positions;
  m.activation = Activation::plain;
  m.positions = Positions::learned;
  m.tied_embeddings = true;
  m.linear_bias = true;
  return m;
}

inline TrainingJob job_with_defaults(const TrainingStack& stack, Architecture model) {
  TrainingJob job;
  job.model = std::move(model);
  job.attention = stack.attention;
  job.sequence_parallel = stack.sequence_parallel;
  job.overlap_gradients = stack.overlap_gradients;
  job.overlap_context = stack.overlap_context;
  job.overlap_tensor = stack.overlap_tensor;
  job.overlap_parameters = stack.overlap_parameters;
  job.master_weights = stack.master_weights;
  job.state_precision = stack.state_precision;
  job.gradient_precision = stack.gradient_precision;
  job.bucket_bytes = stack.bucket_bytes;
  return job;
}

}  // namespace dssim::test
