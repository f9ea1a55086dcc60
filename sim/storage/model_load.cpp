// SPDX-License-Identifier: Apache-2.0
#include "sim/storage/model_load.hpp"

#include <algorithm>

namespace dssim {

ModelLoad model_load(const Storage& storage, const Gpu& gpu, double pcie_efficiency, double node_bytes,
                     double gpu_bytes, int nodes) {
  double rate = storage.read_bytes_per_s;
  if (storage.scope == "shared") {
    rate /= nodes;
    if (storage.client_read_bytes_per_s > 0) rate = std::min(rate, storage.client_read_bytes_per_s);
  }
  ModelLoad load;
  load.read_s = storage.latency_s + node_bytes / rate;
  if (gpu.pcie_bytes_per_s > 0) load.copy_s = gpu_bytes / (gpu.pcie_bytes_per_s * pcie_efficiency);
  return load;
}

}  // namespace dssim
