// SPDX-License-Identifier: Apache-2.0
#include "sim/study/collective_run.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <limits>

#include "sim/base/error.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

constexpr size_t kMostSizes = 1000;

struct CollectiveScenario {
  std::string title;
  Cluster cluster;
  CollectiveOptions options;
};

CollectiveScenario read_collective_scenario(const std::string& path, std::span<const std::string> assignments) {
  const Config file = Config::load(path, assignments);
  CollectiveScenario scenario;
  scenario.title = file.text("title", std::filesystem::path(path).stem().string());
  const Config cluster = file.table("cluster");
  scenario.cluster = read_cluster(cluster);
  cluster.finish();
  scenario.options.eager = true;
  if (const auto network = file.find_table("network")) {
    const bool chosen = network->has("launch");
    scenario.options = read_collective_options(*network);
    network->finish();
    if (!chosen) scenario.options.eager = true;
  }
  for (const char* job : {"training", "serving"})
    if (const auto table = file.find_table(job); table && scenario.options.stack.empty())
      scenario.options.stack = table->text("stack", "");
  return scenario;
}

std::vector<int> group_of(const Cluster& cluster, const CollectiveQuery& query) {
  const int most = (cluster.gpus + query.stride - 1) / query.stride;
  const int gpus = query.gpus > 0 ? query.gpus : most;
  if (gpus > most)
    throw bad_input(fmt::format("--gpus {}: the cluster has {}{}", gpus, most,
                                query.stride > 1 ? fmt::format(" with --stride {}", query.stride) : ""));
  if (gpus < 2)
    throw bad_input(fmt::format("a collective needs at least 2 GPUs; this cluster has {}{}", cluster.gpus,
                                query.stride > 1 ? fmt::format(", --stride {} leaves {}", query.stride, most) : ""));
  std::vector<int> group;
  for (int i = 0; i < gpus; ++i) group.push_back(i * query.stride);
  return group;
}

std::string hardware_text(const Cluster& cluster) {
  std::string text = fmt::format("{} × {}", cluster.nodes, cluster.node.name);
  if (cluster.fabric && cluster.nodes > 1) text += fmt::format(", {}", cluster.fabric->name);
  return text;
}

// The sizes one after the other, each alone on the network.
class SimulatedSizes final : public EventHandler {
 public:
  SimulatedSizes(Simulation& simulation, CollectiveTraffic& traffic, CollectiveKind kind, std::span<const int> group,
                 std::vector<CollectiveRow>& rows)
      : simulation_(simulation), traffic_(traffic), kind_(kind), group_(group), rows_(rows) {}

  void start_next() {
    if (next_ == rows_.size()) return;
    begin_s_ = simulation_.now();
    traffic_.start({kind_, rows_[next_].bytes, group_}, *this);
  }
  void on_event(uint64_t) override {
    rows_[next_++].simulated_s = simulation_.now() - begin_s_;
    start_next();
  }

 private:
  Simulation& simulation_;
  CollectiveTraffic& traffic_;
  CollectiveKind kind_;
  std::span<const int> group_;
  std::vector<CollectiveRow>& rows_;
  size_t next_ = 0;
  double begin_s_ = 0;
};

double size_of(std::string_view text) {
  try {
    return parse_quantity(text, Dimension::bytes);
  } catch (const Error& e) {
    throw bad_input(fmt::format("--bytes: {}", e.what()));
  }
}

void add_sizes(std::string_view text, std::vector<double>& sizes) {
  double factor = 2;
  if (const auto star = text.find('*'); star != std::string_view::npos) {
    const auto digits = text.substr(star + 1);
    const auto [end, code] = std::from_chars(digits.data(), digits.data() + digits.size(), factor);
    if (code != std::errc() || end != digits.data() + digits.size() || !(factor > 1))
      throw bad_input(fmt::format("--bytes {}: '{}' must be a factor above 1, e.g. 1MiB..4GiB*4", text, digits));
    text = text.substr(0, star);
  }
  const auto dots = text.find("..");
  const double first = size_of(text.substr(0, dots));
  const double last = dots == std::string_view::npos ? first : size_of(text.substr(dots + 2));
  if (first < 1 || last < first)
    throw bad_input(fmt::format("--bytes {}: sizes go upwards from at least 1 B, e.g. 1MiB..4GiB", text));
  // A hair above, so that a range whose end is a whole number of steps away keeps its end.
  for (double bytes = first; bytes <= last * (1 + 1e-9); bytes *= factor) {
    if (sizes.size() == kMostSizes) throw bad_input(fmt::format("--bytes {}: more than {} sizes", text, kMostSizes));
    sizes.push_back(bytes);
  }
}

}  // namespace

std::vector<double> parse_sizes(const std::string& text) {
  std::vector<double> sizes;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t comma = std::min(text.find(',', begin), text.size());
    add_sizes(std::string_view(text).substr(begin, comma - begin), sizes);
    begin = comma + 1;
  }
  return sizes;
}

CollectiveKind parse_collective(const std::string& name) {
  const auto names = collective_names();
  const auto found = std::find(names.begin(), names.end(), name);
  if (found == names.end()) throw bad_input("--op: " + unknown_name("collective", name, names));
  return static_cast<CollectiveKind>(found - names.begin());
}

CollectiveReport run_collectives(const std::string& path, std::span<const std::string> assignments,
                                 const CollectiveQuery& query) {
  const CollectiveScenario scenario = read_collective_scenario(path, assignments);
  const Cluster& cluster = scenario.cluster;
  const std::vector<int> group = group_of(cluster, query);
  const ClusterNetwork network(cluster);
  const CollectiveModel model(cluster, network, scenario.options);

  CollectiveReport report;
  report.scenario = path;
  report.title = scenario.title;
  report.hardware = hardware_text(cluster);
  report.kind = query.kind;
  report.gpus = static_cast<int>(group.size());
  report.nodes = cluster.node_of(group.back()) + 1;
  report.group = fmt::format("{} GPUs on {} node{}{}", report.gpus, report.nodes, report.nodes > 1 ? "s" : "",
                             query.stride > 1 ? fmt::format(", every {}th", query.stride) : "");
  report.eager = scenario.options.eager;
  for (const double bytes : query.bytes) {
    CollectiveRow row;
    row.bytes = bytes;
    row.time = model.time({query.kind, bytes, group});
    row.algorithm_bytes_per_s = bytes / row.time.seconds;
    row.bus_bytes_per_s = row.algorithm_bytes_per_s * bus_bandwidth_factor(query.kind, report.gpus);
    report.rows.push_back(row);
  }
  if (query.simulate) {
    Simulation simulation(network);
    CollectiveTraffic traffic(simulation, model);
    SimulatedSizes sizes(simulation, traffic, query.kind, group, report.rows);
    sizes.start_next();
    simulation.run();
    report.flows = traffic.flows();
  }
  report.sources = model.sources();
  return report;
}

}  // namespace dssim
