// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which GPUs each replica's pipeline stages hold. A tensor-parallel group stays within a node wherever it fits in one
// (a node holds ⌊GPUs per node / tp⌋ groups; the rest stay idle); a larger one takes whole nodes. Stages of a replica
// follow each other, so that neighbours share a node where they can. This is the order in which vLLM and Megatron
// number their ranks.

#include <vector>

namespace dssim {

struct Placement {
  // stage_gpus[replica][stage]: the first of its tp consecutive GPUs.
  std::vector<std::vector<int>> stage_gpus;
  bool tensor_groups_span_nodes = false;
};

// How many replicas of tp × pp GPUs there is room for; 0 where not even one fits, or where tp is larger than a node and
// not a multiple of its GPUs.
int max_replicas(int gpus, int gpus_per_node, int tensor_parallel, int pipeline_parallel);

// `replicas` must not exceed max_replicas().
Placement place_replicas(int gpus, int gpus_per_node, int tensor_parallel, int pipeline_parallel, int replicas);

}  // namespace dssim
