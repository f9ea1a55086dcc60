// SPDX-License-Identifier: Apache-2.0
#pragma once

// One machine, the network between machines, and a storage system, resolved from the catalogue (overrides applied). SI
// units; link figures count one direction. 0 means unknown where a comment says so.

#include <string>

#include "platforms/catalogue.hpp"
#include "platforms/gpu.hpp"

namespace dssim {

// How the GPUs of one node reach each other.
//   nvswitch      every GPU at full NVLink rate to every other
//   nvlink_mesh   fixed NVLink links from each GPU to each other one (4-GPU HGX A100; DGX-1)
//   nvlink_pairs  a bridge joins GPUs 2k and 2k+1; other pairs use PCIe
//   xgmi_mesh     AMD Infinity Fabric, fixed links between each two
//   pcie_p2p      directly over the PCIe tree
//   pcie_host     over PCIe into host memory and out again (GeForce cards: the driver allows no peer access)
//   none          a single GPU
enum class Interconnect { nvswitch, nvlink_mesh, nvlink_pairs, xgmi_mesh, pcie_p2p, pcie_host, none };
std::string_view name_of(Interconnect interconnect);

struct Node {
  std::string name, title;
  std::string gpu, cpu, nic, drive;  // catalogue names; cpu, nic and drive may be empty
  std::string mesh;  // links of each pair of GPUs, one row of digits a GPU, parted by spaces; empty: one each
  int gpus = 1;
  Interconnect interconnect = Interconnect::none;
  double link_efficiency = 1;  // share of the NVLink or xGMI rate that one large transfer reaches
  double link_latency_s = 0;   // GPU to GPU over it
  double pcie_efficiency = 1;  // share of the PCIe rate that one large copy reaches
  double pcie_latency_s = 0;   // GPU to GPU, or GPU to host memory, over PCIe
  int gpus_per_switch = 0;     // that share one PCIe switch uplink; 0: each GPU on the CPU's own lanes
  int sockets = 1;
  double socket_link_bytes_per_s = 0;  // between two sockets; 0: no limit modelled
  int cpu_cores = 0;                   // of all sockets
  double host_memory_bytes = 0;
  double host_memory_bytes_per_s = 0;  // of all sockets
  int nics = 0;                        // for the fabric between GPUs; a GPU uses NIC  gpu × nics / gpus
  double nic_bytes_per_s = 0;          // of the NIC sold in it
  int drives = 0;
  double power_w = 0;    // the most the whole node draws; 0 where unknown
  double price_usd = 0;  // whole node; 0 where unknown
};

enum class FabricTopology { rail_optimised, leaf_spine, torus, dragonfly };

struct Fabric {
  std::string name, title;
  FabricTopology topology = FabricTopology::leaf_spine;
  std::string protocol;            // "infiniband", "roce", "tcp"
  double nic_bytes_per_s = 0;      // line rate of one port
  double efficiency = 1;           // payload over line rate, for one large transfer
  int nics_per_node = 0;           // 0: as many as the node is sold with
  int nodes_per_leaf = 1;          // nodes under one leaf switch (a pod, where rail-optimised)
  int leaves_per_group = 1;        // dragonfly
  int dimensions = 3;              // torus: a port of `nic_bytes_per_s` to each of 2 × dimensions neighbours
  double oversubscription = 1;     // leaf ports down over up; 1 = non-blocking
  double same_leaf_latency_s = 0;  // GPU to GPU, 64 bytes; torus: to a neighbour
  double cross_leaf_latency_s = 0;  // torus: two hops; each further one (dragonfly: another group) as much more again
  bool gpu_direct = true;       // the NIC reads GPU memory; else through host memory
  int nvlink_domain_nodes = 1;  // so many neighbouring nodes share one NVLink switch (NVL72: 18)
};

struct Storage {
  std::string name, title;
  std::string scope;            // "node": every node has its own; "shared": one for all
  double read_bytes_per_s = 0;  // of one node's drives, or of the whole shared system
  double write_bytes_per_s = 0;
  double client_read_bytes_per_s = 0;  // the most one node gets of a shared system; 0: no such limit known
  double client_write_bytes_per_s = 0;
  double latency_s = 0;
  double read_iops = 0, write_iops = 0;  // 0 where unknown
};

Gpu load_gpu(Catalogue& catalogue, const std::string& name);
Gpu load_gpu(const std::string& name);  // as sold, no overrides
Node load_node(Catalogue& catalogue, const std::string& name);
Fabric load_fabric(Catalogue& catalogue, const std::string& name);
Storage load_storage(Catalogue& catalogue, const std::string& name);

}  // namespace dssim
