// SPDX-License-Identifier: Apache-2.0
#include "sim/study/deployment_setup.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <map>
#include <numeric>
#include <set>

#include "sim/base/names.hpp"
#include "sim/storage/model_load.hpp"

namespace dssim {
namespace {

Setup describe(const Scenario& scenario, const CostModel& cost) {
  const Cluster& cluster = scenario.cluster;
  const Deployment& d = scenario.deployment;
  Setup setup;
  setup.scenario = scenario.path;
  setup.title = scenario.title;
  setup.seed = scenario.seed;
  setup.model = fmt::format("{}, {} weights, {} KV cache", scenario.model.architecture.title, name_of(d.weights),
                            name_of(d.kv_cache));
  const int sold = cluster.nodes * cluster.node.gpus;
  setup.hardware =
      fmt::format("{}{} × {} ({}{})", cluster.gpus < sold ? fmt::format("{} of ", cluster.gpus) : "", sold,
                  cluster.gpu.title, cluster.nodes > 1 ? fmt::format("{} × ", cluster.nodes) : "", cluster.node.name);
  setup.deployment = fmt::format("{} replica{} of {} GPU{}", scenario.serving.replicas,
                                 scenario.serving.replicas == 1 ? "" : "s", d.gpus(), d.gpus() == 1 ? "" : "s");
  if (d.tensor_parallel > 1) setup.deployment += fmt::format(", tensor parallel {}", d.tensor_parallel);
  if (d.pipeline_parallel > 1) setup.deployment += fmt::format(", pipeline parallel {}", d.pipeline_parallel);
  if (const auto layers = stage_layers(scenario.model.architecture, d);
      std::adjacent_find(layers.begin(), layers.end(), std::not_equal_to<>()) != layers.end())
    setup.deployment += fmt::format(" ({} layers)", fmt::join(layers, " + "));
  if (d.expert_parallel > 1) setup.deployment += fmt::format(", expert parallel {}", d.expert_parallel);
  setup.deployment += fmt::format(", {}", scenario.serving.policy);
  setup.stack = cost.stack().name;
  return setup;
}

// The stacks' collectives were measured over NVSwitch; any other path is priced from its own links.
bool needs_network_collectives(const Scenario& scenario, const Placement& placement) {
  return scenario.deployment.tensor_parallel > 1 &&
         (placement.tensor_groups_span_nodes || scenario.cluster.node.interconnect != Interconnect::nvswitch);
}

// Prices of one group's collectives. Only a group on a switch is like those that the tables were measured on; for any
// other they are left out, so that they are not named as a source. In a node without one NCCL takes its ring: by its own
// estimate a tree keeps 0.46 of the links' rate there, a ring n / 2(n−1) (src/graph/tuning.cc).
std::unique_ptr<CollectiveModel> collectives_of(const Cluster& cluster, const ClusterNetwork& network,
                                                const std::vector<int>& group) {
  CollectiveOptions options;
  auto model = std::make_unique<CollectiveModel>(cluster, network, options);
  if (model->time({CollectiveKind::all_reduce, 1e6, group}).measured) return model;
  options.tables = false;
  if (group.size() <= static_cast<size_t>(cluster.gpus_per_node())) options.algorithm = "ring";
  return std::make_unique<CollectiveModel>(cluster, network, options);
}

std::function<Price(Collective, double)> network_collectives(const CollectiveModel& model, std::vector<int> group) {
  return [&model, group = std::move(group)](Collective kind, double bytes) {
    constexpr CollectiveKind kKinds[] = {CollectiveKind::all_reduce, CollectiveKind::all_gather,
                                         CollectiveKind::reduce_scatter, CollectiveKind::all_to_all};
    const CollectiveTime time = model.time({kKinds[static_cast<size_t>(kind)], bytes, group});
    return Price{time.seconds, time.coverage};
  };
}

// Weights from the cluster's storage, every node that holds a stage reading at once.
double load_time_s(const Scenario& scenario, const Placement& placement, const MemoryPlan& memory) {
  const Cluster& cluster = scenario.cluster;
  std::map<int, std::set<size_t>> stages_of_node;
  for (const auto& stages : placement.stage_gpus)
    for (size_t stage = 0; stage < stages.size(); ++stage)
      for (int rank = 0; rank < scenario.deployment.tensor_parallel; rank += cluster.gpus_per_node())
        stages_of_node[cluster.node_of(stages[stage] + rank)].insert(stage);
  double most_bytes = 0, gpu_bytes = 0;
  for (const auto& [node, stages] : stages_of_node) {
    double bytes = 0;
    for (const size_t stage : stages) {
      bytes += memory.stages[stage].weights_bytes;
      gpu_bytes = std::max(gpu_bytes, memory.stages[stage].weights_bytes);
    }
    most_bytes = std::max(most_bytes, bytes);
  }
  const auto ranks_on_node =
      static_cast<double>(std::min<int64_t>(scenario.deployment.tensor_parallel, cluster.gpus_per_node()));
  return model_load(*cluster.storage, cluster.gpu, cluster.node.pcie_efficiency, most_bytes * ranks_on_node, gpu_bytes,
                    static_cast<int>(stages_of_node.size()))
      .total_s();
}

}  // namespace

DeploymentSetup set_up(const Scenario& scenario) {
  const Deployment& d = scenario.deployment;
  const Cluster& cluster = scenario.cluster;
  DeploymentSetup setup;
  setup.cost = std::make_unique<CostModel>(CostModel::load(cluster.gpu, scenario.serving.stack));
  setup.network = std::make_unique<ClusterNetwork>(cluster);
  setup.placement = place_replicas(cluster.gpus, cluster.gpus_per_node(), static_cast<int>(d.tensor_parallel),
                                   static_cast<int>(d.pipeline_parallel), scenario.serving.replicas);
  StepModelOptions options;
  options.weights = d.weights;
  options.kv_cache = d.kv_cache;
  options.tensor_parallel = static_cast<int>(d.tensor_parallel);
  options.expert_parallel = static_cast<int>(d.expert_parallel);
  if (needs_network_collectives(scenario, setup.placement)) {
    std::vector<int> group(static_cast<size_t>(d.tensor_parallel));
    std::iota(group.begin(), group.end(), setup.placement.stage_gpus[0][0]);
    setup.collectives = collectives_of(cluster, *setup.network, group);
    options.collective = network_collectives(*setup.collectives, std::move(group));
  }
  setup.steps = std::make_unique<StepModel>(scenario.model.architecture, options, *setup.cost);
  if (setup.cost->transferred())
    setup.notes.push_back(
        setup.cost->stack().gpu == cluster.gpu.name
            ? fmt::format("figures of {} are overridden: times measured on it are carried over to them",
                          cluster.gpu.name)
            : fmt::format("no kernels were measured on {}: times are carried over from {}", cluster.gpu.name,
                          setup.cost->stack().gpu));
  if (const Precision w = d.weights; w != Precision::int4 && cluster.gpu.dense_flops_per_s[static_cast<size_t>(w)] == 0)
    setup.notes.push_back(fmt::format("{} has no {} units: products run in the nearest format that it has",
                                      cluster.gpu.name, name_of(w)));
  if (const int64_t idle = cluster.gpus - d.gpus() * scenario.serving.replicas; idle > 0)
    setup.notes.push_back(fmt::format("{} of the cluster's {} GPUs belong to no replica{}", idle, cluster.gpus,
                                      idle >= d.gpus() ? "; serving.replicas = \"max\" takes as many as fit" : ""));

  FitReport& fit = setup.fit;
  fit.setup = describe(scenario, *setup.cost);
  fit.deployment = d;
  fit.context_tokens = d.context_tokens;
  fit.model_positions = scenario.model.architecture.max_positions;
  const StackMemory& memory = setup.cost->stack().memory;
  fit.memory = plan_memory(scenario.model.architecture, d, cluster.gpu.memory_bytes, memory);
  if (cluster.storage) fit.load_s = load_time_s(scenario, setup.placement, fit.memory);
  if (!fit.memory.fits) {
    RemedyOptions remedies;
    remedies.gpu = cluster.gpu.name;
    remedies.gpus_per_node = cluster.node.gpus;
    remedies.gpus = cluster.nodes * cluster.node.gpus;
    Catalogue catalogue;
    for (const auto& name : catalogue.names(CatalogueKind::gpu))
      remedies.catalogue.push_back({name, load_gpu(catalogue, name).memory_bytes});
    fit.remedies = memory_remedies(scenario.model.architecture, d, cluster.gpu.memory_bytes, memory, remedies);
  }
  return setup;
}

void require_fit(const FitReport& fit) {
  if (fit.memory.fits) return;
  const std::string remedies =
      fit.remedies.empty() ? "nothing in this catalogue would make it fit" : "would fit: " + join(fit.remedies, "; ");
  throw cannot_run(fmt::format("{}: does not fit: {}: short by {} per GPU; {}", fit.setup.scenario, fit.setup.model,
                               format_bytes(fit.memory.shortfall_bytes), remedies));
}

namespace {

// The operators of report.toml that a class of a step's operators is made of; more than one count alike.
std::vector<std::string> judged_operators(OperatorClass kind, Precision weights) {
  const std::string format(name_of(weights == Precision::fp16 ? Precision::bf16 : weights));
  switch (kind) {
    case OperatorClass::matmul:
      return {"gemm_" + format};
    case OperatorClass::prefill_attention:
      return {"prefill_attention"};
    case OperatorClass::decode_attention:
      return {"decode_attention"};
    case OperatorClass::moe:
      return {"moe_" + format};
    case OperatorClass::elementwise:
      return {"add_rmsnorm", "silu_mul"};
    case OperatorClass::output_head:
      return {"gemm_bf16"};
    case OperatorClass::all_reduce:
      return {"collectives"};
    case OperatorClass::host:
      break;
  }
  return {};
}

std::optional<Trust::KernelError> kernel_error(const StepUsage& usage, const DeploymentSetup& setup,
                                               Precision weights) {
  Trust::KernelError error;
  double total = 0;
  for (size_t i = 0; i < kOperatorClasses; ++i) {
    const auto kind = static_cast<OperatorClass>(i);
    if (kind == OperatorClass::host) continue;
    total += usage.class_s[i];
    if (kind == OperatorClass::all_reduce && setup.collectives) continue;  // priced apart from the tables
    const auto names = judged_operators(kind, weights);
    for (const auto& name : names)
      if (const auto judged = setup.cost->uncertainty(name)) {
        const double seconds = usage.class_s[i] / static_cast<double>(names.size());
        error.median += seconds * judged->median;
        error.p90 += seconds * judged->p90;
        error.share += seconds;
      }
  }
  if (!(error.share > 0)) return {};
  error.median /= error.share;
  error.p90 /= error.share;
  error.share /= total;
  return error;
}

}  // namespace

Trust trust_of(const StepUsage& usage, const DeploymentSetup& setup, Precision weights) {
  Trust trust;
  const double total = usage.coverage_s[0] + usage.coverage_s[1] + usage.coverage_s[2];
  if (total > 0) {
    trust.inside = usage.coverage_s[static_cast<size_t>(Coverage::inside)] / total;
    trust.edge = usage.coverage_s[static_cast<size_t>(Coverage::edge)] / total;
    trust.outside = usage.coverage_s[static_cast<size_t>(Coverage::outside)] / total;
  }
  trust.sources = setup.cost->sources();
  if (setup.collectives)
    for (auto& source : setup.collectives->sources()) trust.sources.push_back(std::move(source));
  trust.kernel_error = kernel_error(usage, setup, weights);
  return trust;
}

}  // namespace dssim
