// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/placement.hpp"

#include <cassert>

namespace dssim {
namespace {

// Tensor-parallel groups that fit into the GPUs in use, and where the g-th starts.
struct Groups {
  int count, per_node, tp, gpus_per_node;
  int first_gpu(int group) const {
    return per_node == 0 ? group * tp : group / per_node * gpus_per_node + group % per_node * tp;
  }
};

Groups groups_of(int gpus, int gpus_per_node, int tp) {
  if (tp > gpus_per_node) return {tp % gpus_per_node == 0 ? gpus / tp : 0, 0, tp, gpus_per_node};
  const int per_node = gpus_per_node / tp;
  const int whole_nodes = gpus / gpus_per_node, rest = gpus % gpus_per_node;
  return {whole_nodes * per_node + rest / tp, per_node, tp, gpus_per_node};
}

}  // namespace

int max_replicas(int gpus, int gpus_per_node, int tensor_parallel, int pipeline_parallel) {
  return groups_of(gpus, gpus_per_node, tensor_parallel).count / pipeline_parallel;
}

Placement place_replicas(int gpus, int gpus_per_node, int tensor_parallel, int pipeline_parallel, int replicas) {
  const Groups groups = groups_of(gpus, gpus_per_node, tensor_parallel);
  assert(replicas * pipeline_parallel <= groups.count);
  Placement placement;
  placement.tensor_groups_span_nodes = tensor_parallel > gpus_per_node;
  for (int replica = 0; replica < replicas; ++replica) {
    auto& stages = placement.stage_gpus.emplace_back();
    for (int stage = 0; stage < pipeline_parallel; ++stage)
      stages.push_back(groups.first_gpu(replica * pipeline_parallel + stage));
  }
  return placement;
}

}  // namespace dssim
