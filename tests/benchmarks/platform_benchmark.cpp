// SPDX-License-Identifier: Apache-2.0

// The event queue, flows, the catalogue and the building of large platforms.
//   build/release/tests/dssim_benchmarks --benchmark_filter='Platform|Events|Flows|Cluster'

#include <benchmark/benchmark.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <vector>

#include "platforms/cluster_network.hpp"
#include "sim/base/random.hpp"
#include "sim/engine/simulation.hpp"
#include "tests/support/run_forked.hpp"

namespace dssim {
namespace {

struct Sleeper : EventHandler {
  Sleeper(Simulation& s, int64_t n) : sim(s), left(n) {
    for (double& pause : pauses) pause = random.exponential(1e-3);
  }
  void on_event(uint64_t tag) override {
    if (--left > 0) sim.at(sim.now() + pauses[static_cast<size_t>(left) % pauses.size()], *this, tag);
  }
  Simulation& sim;
  int64_t left;
  RandomStream random{1, "benchmark"};
  std::vector<double> pauses = std::vector<double>(4096);
};

void Events(benchmark::State& state) {
  int64_t events = 0;
  for (auto _ : state) {
    Simulation sim;
    Sleeper sleeper(sim, 1000000);
    for (int64_t i = 0; i < state.range(0); ++i) sim.at(1e-6 * static_cast<double>(i), sleeper);
    sim.run();
    events += static_cast<int64_t>(sim.events());
  }
  state.SetItemsProcessed(events);
}
BENCHMARK(Events)->Arg(16)->Arg(1024)->Arg(65536)->Unit(benchmark::kMillisecond);

struct Usage {
  double seconds, bytes;
};

// SimGrid runs once per process, so each measurement is a child's.
template <typename Work>
Usage measured(Work work) {
  return test::run_forked([&] {
    struct rusage before, after;
    getrusage(RUSAGE_SELF, &before);
    const auto start = std::chrono::steady_clock::now();
    work();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    getrusage(RUSAGE_SELF, &after);
    return Usage{seconds, 1024.0 * static_cast<double>(after.ru_maxrss - before.ru_maxrss)};
  });
}

// GPUs of 8-GPU nodes, every link of them, as SimGrid holds it. Bar: 65,536 in 2 s and 400 MB.
void PlatformBuild(benchmark::State& state) {
  const Cluster cluster = make_cluster("dgx-h100", static_cast<int>(state.range(0)) / 8, "ndr400-leaf-spine-2to1");
  for (auto _ : state) {
    const Usage usage = measured([&] {
      const ClusterNetwork network(cluster);
      Simulation sim(network);
      sim.build_platform();
    });
    state.SetIterationTime(usage.seconds);
    state.counters["MB"] = usage.bytes / 1e6;
  }
}
BENCHMARK(PlatformBuild)
    ->Arg(8)
    ->Arg(1024)
    ->Arg(16384)
    ->Arg(65536)
    ->UseManualTime()
    ->Unit(benchmark::kMillisecond)
    ->Iterations(1);

struct Relay : EventHandler {
  Relay(Simulation& s, int64_t n) : sim(s), left(n) {}
  void on_event(uint64_t gpu) override {
    if (left-- > 0)
      sim.transfer(static_cast<EndpointId>(gpu), static_cast<EndpointId>((gpu + 8) % 1024),
                   1e6 + 16.0 * static_cast<double>(gpu), *this, gpu);
  }
  Simulation& sim;
  int64_t left;
};

// Flows between neighbouring nodes, so many in flight at once.
void Flows(benchmark::State& state) {
  const Cluster cluster = make_cluster("dgx-h100", 128, "ndr400-rail");
  constexpr int64_t kFlows = 20000;
  for (auto _ : state) {
    const Usage usage = measured([&] {
      const ClusterNetwork network(cluster);
      Simulation sim(network);
      Relay relay(sim, kFlows);
      for (int64_t i = 0; i < state.range(0); ++i) sim.at(0, relay, static_cast<uint64_t>(i));
      sim.run();
    });
    state.SetIterationTime(usage.seconds);
  }
  state.SetItemsProcessed(kFlows * static_cast<int64_t>(state.iterations()));
}
BENCHMARK(Flows)->Arg(1)->Arg(16)->Arg(256)->Arg(1024)->UseManualTime()->Unit(benchmark::kMillisecond)->Iterations(1);

void ClusterRead(benchmark::State& state) {
  for (auto _ : state) benchmark::DoNotOptimize(make_cluster("dgx-h100", 4, "ndr400-rail"));
}
BENCHMARK(ClusterRead)->Unit(benchmark::kMicrosecond);

void PlatformRoute(benchmark::State& state) {
  const ClusterNetwork network(make_cluster("dgx-h100", 8192, "ndr400-leaf-spine-2to1"));
  Route route;
  uint32_t a = 1, b = 7;
  for (auto _ : state) {
    network.route(a, b, route);
    benchmark::DoNotOptimize(route.links.data());
    a = (a * 2654435761u + 1) % 65536;
    b = (b * 40503u + 7) % 65536;
  }
}
BENCHMARK(PlatformRoute);

}  // namespace
}  // namespace dssim
