// SPDX-License-Identifier: Apache-2.0
#include "platforms/node.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "sim/base/error.hpp"

namespace dssim {
namespace {

constexpr std::array<std::string_view, 7> kInterconnects{"nvswitch", "nvlink-mesh", "nvlink-pairs", "xgmi-mesh",
                                                         "pcie-p2p", "pcie-host",   "none"};

Interconnect interconnect_named(const std::string& name) {
  const auto found = std::find(kInterconnects.begin(), kInterconnects.end(), name);
  return static_cast<Interconnect>(found - kInterconnects.begin());
}

int whole(const Entry& entry, std::string_view key, int fallback = 0) {
  return static_cast<int>(entry.figure(key, fallback));
}

// n rows of n digits, symmetric, nothing on the diagonal.
bool is_mesh(const std::string& mesh, int gpus) {
  const size_t n = static_cast<size_t>(gpus);
  if (mesh.size() != n * (n + 1) - 1) return false;
  const auto digit = [&](size_t row, size_t column) { return mesh[row * (n + 1) + column]; };
  for (size_t i = 0; i < n; ++i) {
    if (i + 1 < n && digit(i, n) != ' ') return false;
    for (size_t j = 0; j < n; ++j)
      if (digit(i, j) < '0' || digit(i, j) > '9' || digit(i, j) != digit(j, i) || (i == j && digit(i, j) != '0'))
        return false;
  }
  return true;
}

}  // namespace

std::string_view name_of(Interconnect interconnect) {
  return kInterconnects[static_cast<size_t>(interconnect)];
}

Gpu load_gpu(Catalogue& catalogue, const std::string& name) {
  const Entry& entry = catalogue.entry(CatalogueKind::gpu, name);
  Gpu gpu;
  gpu.name = name;
  gpu.title = entry.title;
  gpu.architecture = entry.word("architecture");
  gpu.memory_bytes = entry.figure("memory");
  gpu.memory_bytes_per_s = entry.figure("memory_bandwidth");
  gpu.l2_bytes = entry.figure("l2_cache");
  gpu.sms = whole(entry, "sms");
  gpu.clock_hz = entry.figure("clock");
  for (size_t p = 0; p < kPrecisionNames.size(); ++p) gpu.dense_flops_per_s[p] = entry.figure(kPrecisionNames[p]);
  gpu.sustained_share = entry.figure("sustained_share");
  gpu.nvlink_bytes_per_s = entry.figure("nvlink");
  gpu.pcie_bytes_per_s = entry.figure("pcie");
  gpu.tdp_w = entry.figure("tdp");
  gpu.price_usd = entry.figure("price");
  return gpu;
}

Gpu load_gpu(const std::string& name) {
  Catalogue catalogue;
  return load_gpu(catalogue, name);
}

Node load_node(Catalogue& catalogue, const std::string& name) {
  const Entry& entry = catalogue.entry(CatalogueKind::node, name);
  Node node;
  node.name = name;
  node.title = entry.title;
  node.gpu = entry.word("gpu");
  node.cpu = entry.word("cpu");
  node.nic = entry.word("nic");
  node.drive = entry.word("drive");
  node.mesh = entry.word("mesh");
  node.gpus = whole(entry, "gpus");
  node.interconnect = interconnect_named(entry.word("interconnect"));
  node.link_efficiency = entry.figure("link_efficiency", 1);
  node.link_latency_s = entry.figure("link_latency");
  node.pcie_efficiency = entry.figure("pcie_efficiency");
  node.pcie_latency_s = entry.figure("pcie_latency");
  node.gpus_per_switch = whole(entry, "gpus_per_switch");
  node.sockets = whole(entry, "sockets");
  node.socket_link_bytes_per_s = entry.figure("socket_link");
  node.host_memory_bytes = entry.figure("host_memory");
  node.nics = whole(entry, "nics");
  node.drives = whole(entry, "drives");
  node.power_w = entry.figure("power");
  node.price_usd = entry.figure("price");
  if (!node.cpu.empty()) {
    const Entry& cpu = catalogue.entry(CatalogueKind::cpu, node.cpu);
    node.cpu_cores = whole(cpu, "cores") * node.sockets;
    node.host_memory_bytes_per_s = cpu.figure("memory_bandwidth") * node.sockets;
  }
  if (!node.nic.empty()) node.nic_bytes_per_s = catalogue.entry(CatalogueKind::nic, node.nic).figure("rate");
  constexpr int kMostGpus = 1024;
  if (node.gpus > kMostGpus)
    throw bad_input(fmt::format("{}: gpus: {} are more than {}", entry.file, node.gpus, kMostGpus));
  if (node.interconnect == Interconnect::none && node.gpus > 1)
    throw bad_input(fmt::format("{}: interconnect: 'none' is for one GPU, this node has {}", entry.file, node.gpus));
  if (!node.mesh.empty() && !is_mesh(node.mesh, node.gpus))
    throw bad_input(fmt::format("{}: mesh: must be {} rows of as many digits, parted by one space and symmetric",
                                entry.file, node.gpus));
  return node;
}

Fabric load_fabric(Catalogue& catalogue, const std::string& name) {
  const Entry& entry = catalogue.entry(CatalogueKind::fabric, name);
  Fabric fabric;
  fabric.name = name;
  fabric.title = entry.title;
  const std::string topology = entry.word("topology");
  fabric.topology = topology == "rail-optimised" ? FabricTopology::rail_optimised
                    : topology == "torus"        ? FabricTopology::torus
                    : topology == "dragonfly"    ? FabricTopology::dragonfly
                                                 : FabricTopology::leaf_spine;
  fabric.protocol = entry.word("protocol");
  fabric.nic_bytes_per_s = entry.figure("port");
  fabric.efficiency = entry.figure("efficiency");
  fabric.nics_per_node = whole(entry, "nics_per_node");
  fabric.nodes_per_leaf = whole(entry, "nodes_per_leaf");
  fabric.leaves_per_group = std::max(1, whole(entry, "leaves_per_group", 1));
  fabric.dimensions = std::max(1, whole(entry, "dimensions", 3));
  fabric.oversubscription = entry.figure("oversubscription");
  fabric.same_leaf_latency_s = entry.figure("same_leaf_latency");
  fabric.cross_leaf_latency_s = entry.figure("cross_leaf_latency");
  fabric.gpu_direct = fabric.protocol != "tcp";
  fabric.nvlink_domain_nodes = std::max(1, whole(entry, "nvlink_domain_nodes", 1));
  return fabric;
}

Storage load_storage(Catalogue& catalogue, const std::string& name) {
  const Entry& entry = catalogue.entry(CatalogueKind::storage, name);
  Storage storage;
  storage.name = name;
  storage.title = entry.title;
  storage.scope = entry.word("scope");
  storage.read_bytes_per_s = entry.figure("read");
  storage.write_bytes_per_s = entry.figure("write");
  storage.client_read_bytes_per_s = entry.figure("client_read");
  storage.client_write_bytes_per_s = entry.figure("client_write");
  storage.latency_s = entry.figure("latency");
  storage.read_iops = entry.figure("read_iops");
  storage.write_iops = entry.figure("write_iops");
  return storage;
}

}  // namespace dssim
