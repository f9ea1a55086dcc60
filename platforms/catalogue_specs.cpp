// SPDX-License-Identifier: Apache-2.0

// What every kind of catalogue entry may say. Keys are relied on by [cluster.override]; keep them.

#include "platforms/catalogue.hpp"
#include "platforms/node.hpp"

namespace dssim {

std::span<const FigureSpec> figure_specs(CatalogueKind kind) {
  using enum Dimension;
  static const std::vector<FigureSpec> gpu{
      {"memory", bytes, true, "as the driver reports it, where known; else as the maker prints it"},
      {"memory_bandwidth", bandwidth, true, "peak"},
      {"l2_cache", bytes, false, "last-level cache on the chip"},
      {"sms", count, false, "streaming multiprocessors or compute units"},
      {"clock", frequency, false, "boost"},
      {"fp64", compute_rate, false, "dense; the best unit of the chip"},
      {"fp32", compute_rate, false, "vector units"},
      {"tf32", compute_rate, false, "dense, matrix units"},
      {"bf16", compute_rate, false, "dense, matrix units, FP32 accumulation"},
      {"fp16", compute_rate, false, "dense, matrix units, FP32 accumulation"},
      {"fp8", compute_rate, false, "dense, matrix units"},
      {"int8", compute_rate, false, "dense, matrix units"},
      {"fp4", compute_rate, false, "dense, matrix units"},
      {"sustained_share", ratio, false, "of the 16-bit matrix rate, kept up by large products under the power cap"},
      {"int8_sparse_with_dla", compute_rate, false, "Jetson's headline figure; shown, never used"},
      {"nvlink", bandwidth, false, "NVLink or Infinity Fabric, all links, one direction"},
      {"pcie", bandwidth, false, "one direction"},
      {"tdp", power, false, "of the card or module"},
      {"price", money, false, "of one GPU"},
  };
  static const std::vector<FigureSpec> node{
      {"gpus", count, true, "GPUs in it"},
      {"link_efficiency", ratio, false, "of the NVLink or Infinity Fabric rate, one large transfer"},
      {"link_latency", time, false, "GPU to GPU over NVLink or Infinity Fabric"},
      {"pcie_efficiency", ratio, true, "of the PCIe rate, one large copy"},
      {"pcie_latency", time, true, "GPU to GPU, or to host memory, over PCIe"},
      {"gpus_per_switch", count, false, "that share a PCIe switch's uplink; none: each on the CPU's own lanes"},
      {"sockets", count, true, "CPUs"},
      {"socket_link", bandwidth, false, "between two sockets, one direction"},
      {"host_memory", bytes, true, "in all"},
      {"nics", count, false, "for the fabric between GPUs"},
      {"drives", count, false, "for data, in RAID 0"},
      {"power", Dimension::power, false, "the most the node draws"},
      {"price", money, false, "of the whole node"},
  };
  static const std::vector<FigureSpec> fabric{
      {"port", bandwidth, true, "line rate of one NIC port"},
      {"efficiency", ratio, true, "payload over line rate, one large transfer"},
      {"nics_per_node", count, false, "none: as many as the node is sold with"},
      {"nodes_per_leaf", count, true, "nodes under one leaf switch"},
      {"leaves_per_group", count, false, "dragonfly: leaf switches of one group"},
      {"dimensions", count, false, "torus: 2 or 3; a port to each neighbour"},
      {"oversubscription", ratio, true, "a leaf's ports down over its ports up; 1 is non-blocking"},
      {"same_leaf_latency", time, true, "GPU to GPU, 64 bytes, under one leaf switch"},
      {"cross_leaf_latency", time, true, "the same across the spine"},
      {"nvlink_domain_nodes", count, false, "neighbouring nodes that share one NVLink switch"},
  };
  static const std::vector<FigureSpec> nic{
      {"rate", bandwidth, true, "of all ports used together, one direction"},
      {"power", Dimension::power, false, "typical, passive cables"},
      {"price", money, false, "of one card"},
  };
  static const std::vector<FigureSpec> cpu{
      {"cores", count, true, "of one socket"}, {"memory_bandwidth", bandwidth, true, "of one socket, all channels"},
      {"clock", frequency, false, "boost"},    {"tdp", Dimension::power, false, "of one socket"},
      {"price", money, false, "of one"},
  };
  static const std::vector<FigureSpec> storage{
      {"read", bandwidth, true, "of one drive or array (scope node), or of the whole system (scope shared)"},
      {"write", bandwidth, true, "the same"},
      {"client_read", bandwidth, false, "the most one node gets of a shared system"},
      {"client_write", bandwidth, false, "the same"},
      {"latency", time, true, "of one small read"},
      {"read_iops", count, false, "small random reads a second"},
      {"write_iops", count, false, "small random writes a second"},
      {"capacity", bytes, false, "usable"},
      {"price", money, false, "of all of it"},
  };
  switch (kind) {
    case CatalogueKind::gpu:
      return gpu;
    case CatalogueKind::node:
      return node;
    case CatalogueKind::fabric:
      return fabric;
    case CatalogueKind::nic:
      return nic;
    case CatalogueKind::cpu:
      return cpu;
    case CatalogueKind::storage:
      return storage;
  }
  return {};
}

std::span<const WordSpec> word_specs(CatalogueKind kind) {
  static const std::vector<WordSpec> gpu{
      {"architecture", true, {}, "generation: hopper, ampere, cdna3, …"},
      {"vendor", true, {}, "maker"},
      {"note", false, {}, "what a reader should know"},
  };
  static const std::vector<WordSpec> node{
      {"gpu", true, {}, "a GPU of the catalogue"},
      {"interconnect",
       true,
       {"nvswitch", "nvlink-mesh", "nvlink-pairs", "xgmi-mesh", "pcie-p2p", "pcie-host", "none"},
       "how its GPUs reach each other"},
      {"mesh", false, {}, "links of each pair, one row of digits a GPU; none: one each"},
      {"cpu", false, {}, "a CPU of the catalogue"},
      {"nic", false, {}, "a NIC of the catalogue"},
      {"drive", false, {}, "a storage entry of the catalogue, scope node"},
      {"note", false, {}, "what a reader should know"},
  };
  static const std::vector<WordSpec> fabric{
      {"topology",
       true,
       {"rail-optimised", "leaf-spine", "torus", "dragonfly"},
       "what hangs on one leaf switch, or what joins the nodes"},
      {"protocol", true, {"infiniband", "roce", "tcp"}, "tcp goes through host memory"},
      {"note", false, {}, "what a reader should know"},
  };
  static const std::vector<WordSpec> nic{
      {"protocol", true, {"infiniband", "ethernet"}, "what it speaks"},
      {"note", false, {}, "what a reader should know"},
  };
  static const std::vector<WordSpec> cpu{
      {"vendor", true, {}, "maker"},
      {"note", false, {}, "what a reader should know"},
  };
  static const std::vector<WordSpec> storage{
      {"scope", true, {"node", "shared"}, "each node has its own, or one for all"},
      {"note", false, {}, "what a reader should know"},
  };
  switch (kind) {
    case CatalogueKind::gpu:
      return gpu;
    case CatalogueKind::node:
      return node;
    case CatalogueKind::fabric:
      return fabric;
    case CatalogueKind::nic:
      return nic;
    case CatalogueKind::cpu:
      return cpu;
    case CatalogueKind::storage:
      return storage;
  }
  return {};
}

}  // namespace dssim
