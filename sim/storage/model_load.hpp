// SPDX-License-Identifier: Apache-2.0
#pragma once

// How long it takes until every GPU holds its weights, from cold: each node reads what its GPUs need once (replicas on
// one node share the page cache), while the bytes read before are copied to the GPUs over PCIe.
//
//   read    latency + bytes the node needs ÷ min(what the storage gives a node, its share of a shared system)
//   copy    bytes one GPU holds ÷ its PCIe rate
//   load    max(read, copy), since they overlap (safetensors streamed through the page cache)
//
// Not in it: deserialisation on the host, CUDA graph capture, engine start. Units: bytes, seconds.

#include "platforms/cluster.hpp"

namespace dssim {

struct ModelLoad {
  double read_s = 0, copy_s = 0;
  double total_s() const { return read_s > copy_s ? read_s : copy_s; }
};

// `node_bytes`: distinct weights that the fullest node needs; `gpu_bytes`: weights on one GPU; `nodes`: how many read
// at once.
ModelLoad model_load(const Storage& storage, const Gpu& gpu, double pcie_efficiency, double node_bytes,
                     double gpu_bytes, int nodes);

}  // namespace dssim
