// SPDX-License-Identifier: Apache-2.0
#include "platforms/cluster.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

constexpr int64_t kMostNodes = 100000;

std::string entry_name(const Config& table, std::string_view key, const Catalogue& catalogue, CatalogueKind kind) {
  const std::string name = table.text(key);
  const auto names = catalogue.names(kind);
  if (!std::binary_search(names.begin(), names.end(), name))
    throw table.error(key, unknown_name(name_of(kind), name, names));
  return name;
}

void finish(Cluster& cluster, Catalogue& catalogue) {
  cluster.gpu = load_gpu(catalogue, cluster.node.gpu);
  for (const Entry* entry : catalogue.entries_in_use()) cluster.entries.push_back(*entry);
}

}  // namespace

int Cluster::nics_per_node() const {
  if (!fabric) return 0;
  return fabric->nics_per_node > 0 ? fabric->nics_per_node : std::max(1, node.nics);
}

double Cluster::power_w() const {
  return nodes * (node.power_w > 0 ? node.power_w : node.gpus * gpu.tdp_w);
}

double Cluster::price_usd() const {
  return nodes * (node.price_usd > 0 ? node.price_usd : node.gpus * gpu.price_usd);
}

Cluster read_cluster(const Config& table) {
  Catalogue catalogue;
  if (const auto changes = table.find_table("override")) catalogue.override_with(*changes);
  Cluster cluster;
  cluster.node = load_node(catalogue, entry_name(table, "node", catalogue, CatalogueKind::node));
  cluster.nodes = static_cast<int>(table.integer("nodes", {1, kMostNodes}, 1));
  const int64_t installed = static_cast<int64_t>(cluster.nodes) * cluster.node.gpus;
  const int64_t gpus = table.integer("gpus", {1, kMostNodes * 1024}, installed);
  if (gpus > installed)
    throw table.error("gpus", fmt::format("{} GPUs asked for, but {} × {} has {}", gpus, cluster.nodes,
                                          cluster.node.name, installed));
  if (gpus < cluster.nodes)
    throw table.error(
        "gpus", fmt::format("{} GPUs on {} nodes leaves nodes empty; use at most {} nodes", gpus, cluster.nodes, gpus));
  cluster.gpus = static_cast<int>(gpus);
  if (table.find_text("fabric"))
    cluster.fabric = load_fabric(catalogue, entry_name(table, "fabric", catalogue, CatalogueKind::fabric));
  else if (cluster.nodes > 1)
    throw table.error("fabric", fmt::format("is missing: {} nodes need one, e.g. {}", cluster.nodes,
                                            join(catalogue.names(CatalogueKind::fabric), ", ")));
  if (table.find_text("storage"))
    cluster.storage = load_storage(catalogue, entry_name(table, "storage", catalogue, CatalogueKind::storage));
  if (const auto degraded = table.find_table("degraded"))
    for (const std::string& link : degraded->keys()) {
      const double share = degraded->quantity(link, Dimension::ratio);
      if (share <= 0 || share > 1) throw degraded->error(link, "is the share of its rate that the link has left, e.g. 0.5");
      cluster.degraded.push_back({link, share, degraded->where(link)});
    }
  finish(cluster, catalogue);
  catalogue.refuse_unused_overrides();
  return cluster;
}

Cluster make_cluster(const std::string& node, int nodes, const std::string& fabric, int gpus) {
  Catalogue catalogue;
  Cluster cluster;
  cluster.node = load_node(catalogue, node);
  cluster.nodes = nodes;
  cluster.gpus = gpus > 0 ? gpus : nodes * cluster.node.gpus;
  if (!fabric.empty()) cluster.fabric = load_fabric(catalogue, fabric);
  finish(cluster, catalogue);
  return cluster;
}

}  // namespace dssim
