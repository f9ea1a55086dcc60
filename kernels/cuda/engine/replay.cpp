// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/replay.hpp"

#include <fmt/format.h>

#include <boost/program_options.hpp>
#include <csignal>
#include <cstdio>
#include <iostream>
#include <string>

#include "kernels/cuda/engine/host_times.hpp"
#include "kernels/cuda/measure/gpu.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "sim/base/error.hpp"
#include "sim/engine/simulation.hpp"
#include "sim/serving/policy.hpp"
#include "sim/study/deployment_setup.hpp"
#include "sim/study/requests_csv.hpp"
#include "sim/study/scenario.hpp"

namespace dssim::cuda {
namespace {

namespace po = boost::program_options;

// A request may be longer than the model's positions, as in the simulator; rotary positions have no end.
constexpr int64_t kLongestContext = 32768;

struct Options {
  std::string scenario, requests, iterations;
};

void stop_on_signal(int) {
  request_stop();
}

bool parse(int argc, char** argv, Options& options) {
  po::options_description shown(
      "dssim-calibrate replay SCENARIO.toml --requests FILE --iterations FILE\n"
      "Serves the scenario's requests in real time on this machine's GPUs and writes what `dssim validate` reads.");
  auto add = shown.add_options();
  add("help,h", "print this");
  add("requests", po::value(&options.requests), "CSV to write: one line per request");
  add("iterations", po::value(&options.iterations), "CSV to write: one line per engine step");
  po::options_description all;
  all.add(shown).add_options()("scenario", po::value(&options.scenario));
  po::positional_options_description position;
  position.add("scenario", 1);
  po::variables_map values;
  po::store(po::command_line_parser(argc, argv).options(all).positional(position).run(), values);
  po::notify(values);
  if (values.count("help") > 0) {
    std::cout << shown;
    return false;
  }
  if (options.scenario.empty()) throw po::error("replay: name a scenario file");
  if (options.requests.empty() || options.iterations.empty())
    throw po::error("replay: give --requests FILE and --iterations FILE");
  return true;
}

// What this engine cannot run, said before anything is allocated.
void require_supported(const Scenario& scenario) {
  const Architecture& m = scenario.model.architecture;
  const Deployment& d = scenario.deployment;
  const auto refuse = [&](const std::string& what) {
    throw bad_input(fmt::format("{}: the measured engine cannot run this: {}", scenario.path, what));
  };
  if (!scenario.requests) throw bad_input(fmt::format("{}:1: [workload]: this table is missing", scenario.path));
  if (m.is_encoder() || m.is_moe() || m.is_mla() || m.activation != Activation::gated ||
      m.positions != Positions::rotary || m.attention_bias || m.linear_bias || m.qk_norm || m.embedding_norm ||
      !m.final_norm)
    refuse(m.name + " is no dense Llama-style decoder (RMSNorm, rotary positions, gated feed-forward, no biases)");
  if (m.head_dim != 64 && m.head_dim != 128) refuse(fmt::format("heads of {}; 64 and 128 are supported", m.head_dim));
  if (d.weights != Precision::bf16 || d.kv_cache != Precision::bf16) refuse("weights and KV cache have to be bf16");
  if (d.pipeline_parallel > 1 || d.expert_parallel > 1 || scenario.serving.replicas > 1)
    refuse("one replica, cut by tensor_parallel alone");
  if (d.kv_block_tokens != kPageTokens) refuse(fmt::format("kv_block_tokens has to be {}", kPageTokens));
  if (scenario.serving.policy != "chunked-prefill") refuse("policy has to be chunked-prefill");
  if (scenario.serving.prefix_cache) refuse("prefix_cache has to be false");
}

void require_gpus(const Scenario& scenario, const MemoryPlan& plan) {
  GpuInfo gpu = find_gpu(0);
  if (gpu.profile_folder != scenario.cluster.gpu.name)
    throw Unavailable(scenario.path + " is for " + scenario.cluster.gpu.name + ", this machine has " + gpu.name);
  auto gpus = static_cast<int>(scenario.deployment.tensor_parallel);
  if (gpu.count < gpus)
    throw Unavailable(scenario.path + " needs " + std::to_string(gpus) + " GPUs, this machine has " +
                      std::to_string(gpu.count));
  double needed = plan.weights_bytes + plan.activation_bytes + plan.kv_bytes;
  for (int g = 0; g < gpus; ++g) {
    std::size_t free = 0, total = 0;
    DSSIM_CUDA(cudaSetDevice(g));
    DSSIM_CUDA(cudaMemGetInfo(&free, &total));
    if (static_cast<double>(free) < needed)
      throw Unavailable(fmt::format("GPU {} has {:.1f} GiB free, {:.1f} GiB are needed (is another program using it?)",
                                    g, static_cast<double>(free) / 1073741824.0, needed / 1073741824.0));
  }
  DSSIM_CUDA(cudaSetDevice(0));
}

ModelShape shape_of(const Scenario& scenario) {
  const Architecture& m = scenario.model.architecture;
  int64_t tp = scenario.deployment.tensor_parallel;
  ModelShape s;
  s.layers = static_cast<int>(m.layers);
  s.hidden = static_cast<int>(m.hidden);
  s.heads = static_cast<int>(m.heads / tp);
  s.kv_heads = static_cast<int>(kv_heads_per_gpu(m, tp));
  s.head_dim = static_cast<int>(m.head_dim);
  s.ffn = static_cast<int>(m.ffn / tp);
  s.vocabulary = static_cast<int>(vocabulary_per_gpu(m, tp));
  s.gpus = static_cast<int>(tp);
  return s;
}

// Graphs for the stack's batch sizes, as far as the scenario can need them, and for contexts in steps of a third to a
// half, since a graph's decode attention splits the KV for the context it was captured with.
GraphSizes graph_sizes(const Stack& stack, int64_t max_sequences, int64_t longest) {
  GraphSizes sizes;
  for (int64_t batch : stack.graph_batch_sizes) {
    sizes.batches.push_back(static_cast<int>(batch));
    if (batch >= max_sequences) break;
  }
  for (int64_t context = 256; !sizes.batches.empty(); context *= 2) {
    sizes.contexts.push_back(static_cast<int>(std::min(context, longest)));
    if (context >= longest) break;
    if (context * 3 / 2 < longest) sizes.contexts.push_back(static_cast<int>(context * 3 / 2));
  }
  return sizes;
}

Scheduler scheduler_for(const Scenario& scenario, int64_t blocks) {
  SchedulerLimits limits = scenario.serving.limits;
  limits.max_request_tokens = std::min(limits.max_request_tokens, kLongestContext);
  return Scheduler(limits, KvCache(blocks, kPageTokens, false), make_policy(scenario.serving.policy));
}

void write_iterations(AtomicFile& file, std::span<const Iteration> iterations) {
  std::string text =
      "start,seconds,decode_seqs,prefill_tokens,decode_kv_tokens,prefill_kv_tokens,prefill_seqs,gpu_seconds,"
      "decode_longest_kv\n";
  for (const Iteration& i : iterations)
    text += fmt::format("{:.6f},{:.7f},{},{},{},{},{},{:.7f},{}\n", i.start_s, i.seconds, i.decodes, i.prefill_tokens,
                        i.decode_kv_tokens, i.prefill_kv_tokens, i.chunks, i.gpu_s, i.decode_longest);
  file.write(text);
  file.commit();
}

void replay(const Options& options) {
  Scenario scenario = read_scenario(options.scenario);
  require_supported(scenario);
  DeploymentSetup setup = set_up(scenario);
  require_fit(setup.fit);
  const MemoryPlan& plan = setup.fit.memory;
  require_gpus(scenario, plan);
  // Opened first: a name that cannot be written to shows before minutes of work.
  RequestsCsv requests(options.requests);
  AtomicFile iterations(options.iterations);

  const int64_t blocks = plan.kv_tokens / kPageTokens;
  const int64_t longest = std::min({kLongestContext, scenario.serving.limits.max_request_tokens, plan.kv_tokens});
  const SchedulerLimits& limits = scenario.serving.limits;
  double before = now_seconds();
  EngineLimits engine{static_cast<int>(limits.max_batched_tokens), static_cast<int>(limits.max_sequences),
                      static_cast<int>(blocks) + 1, static_cast<int>(longest)};
  GpuGroup group(shape_of(scenario), engine, graph_sizes(setup.cost->stack(), limits.max_sequences, longest));
  std::printf("%s\nengine ready in %.1f s: %ld KV blocks\n", options.scenario.c_str(), now_seconds() - before,
              static_cast<long>(blocks));

  Server warm_up(group, scheduler_for(scenario, blocks), blocks);
  HostTimeRequests batches(std::min(limits.max_sequences, blocks / 4),
                           std::min(limits.max_batched_tokens, longest / 2));
  warm_up.serve(batches, [](const RequestRecord&) {});
  HostTimes times = host_times(warm_up.iterations(), group.model(0).shape().layers);
  const auto gaps = group.layer_gaps();
  times.layer_gap_s = gaps.graph_s;
  times.eager_gap_s = gaps.eager_s;
  std::printf("host times, measured on %zu steps before the replay:\n%s", warm_up.iterations().size(),
              times.toml().c_str());
  std::fflush(stdout);

  Server server(group, scheduler_for(scenario, blocks), blocks);
  std::size_t ended = 0;
  server.serve(*scenario.requests, [&](const RequestRecord& record) {
    requests.add(record);
    ++ended;
  });
  requests.commit();
  write_iterations(iterations, server.iterations());
  const auto& all = server.iterations();
  std::printf("%s%zu requests, %zu steps, %.1f s\n", stop_requested() ? "stopped: " : "", ended, all.size(),
              all.empty() ? 0.0 : all.back().start_s + all.back().seconds);
}

}  // namespace

int replay_command(int argc, char** argv) {
  Options options;
  if (!parse(argc, argv, options)) return 0;
  std::signal(SIGINT, stop_on_signal);
  std::signal(SIGTERM, stop_on_signal);
  try {
    replay(options);
    return 0;
  } catch (const Error& e) {
    std::fprintf(stderr, "dssim-calibrate: %s\n", e.what());
    return e.exit_status();
  }
}

}  // namespace dssim::cuda
