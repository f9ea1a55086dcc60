// SPDX-License-Identifier: Apache-2.0

// What must hold of every collective on every cluster.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <numeric>

#include "sim/base/random.hpp"
#include "sim/network/collective.hpp"
#include "support/run_forked.hpp"

namespace dssim {
namespace {

using enum CollectiveKind;
constexpr CollectiveKind kKinds[] = {all_reduce, all_gather, reduce_scatter, all_to_all, broadcast, send_recv};

struct Place {
  const char* node;
  int nodes;
  const char* fabric;
};
constexpr Place kPlaces[] = {{"dgx-h100", 1, ""},
                             {"dgx-h100", 6, "ndr400-rail"},
                             {"dgx-h200", 4, "torus-3d-400"},
                             {"dgx-a100", 5, "hdr200-rail"},
                             {"dgx-b200", 40, "dragonfly-400"},
                             {"a100-pcie-4", 3, "eth10"},
                             {"rtx-4090-4", 2, "eth100"},
                             {"gb200-nvl72-tray", 36, "nvl72"},
                             {"mi300x-8", 3, "roce400-rail"},
                             {"dgx-h100", 12, "ndr400-leaf-spine-2to1"},
                             {"hgx-a100-4", 2, "roce25"}};

std::vector<int> all_of(const Cluster& cluster) {
  std::vector<int> gpus(static_cast<size_t>(cluster.gpus));
  std::iota(gpus.begin(), gpus.end(), 0);
  return gpus;
}

// Of every kind and a few sizes, all GPUs taking part.
std::vector<double> times(const Cluster& cluster) {
  const ClusterNetwork network(cluster);
  const CollectiveModel model(cluster, network);
  const auto gpus = all_of(cluster);
  std::vector<double> seconds;
  for (const auto kind : kKinds)
    for (const double bytes : {1e4, 1e6, 1e8, 1e10}) seconds.push_back(model.seconds({kind, bytes, gpus}));
  return seconds;
}

TEST(CollectiveInvariant, MoreBytesNeverTakeLess) {
  for (const auto& place : kPlaces) {
    const Cluster cluster = make_cluster(place.node, place.nodes, place.fabric);
    const ClusterNetwork network(cluster);
    CollectiveOptions options;
    options.tables = false;
    const CollectiveModel model(cluster, network, options);
    const auto gpus = all_of(cluster);
    for (const auto kind : kKinds) {
      double last = 0;
      for (double bytes = 1; bytes < 1e11; bytes *= 1.3) {
        const CollectiveTime time = model.time({kind, bytes, gpus});
        EXPECT_GE(time.seconds, last * (1 - 1e-9))
            << place.node << " " << place.fabric << " " << name_of(kind) << " " << bytes;
        EXPECT_GT(time.latency_s, 0);
        EXPECT_LE(time.latency_s, time.seconds);
        last = time.seconds;
      }
    }
  }
}

TEST(CollectiveInvariant, MoreBandwidthNeverTakesLonger) {
  for (const auto& place : kPlaces) {
    const Cluster slow = make_cluster(place.node, place.nodes, place.fabric);
    const auto before = times(slow);
    for (const double factor : {1.1, 10.0}) {
      std::vector<Cluster> quicker(3, slow);
      quicker[0].gpu.nvlink_bytes_per_s *= factor;
      quicker[1].gpu.pcie_bytes_per_s *= factor;
      if (quicker[2].fabric) quicker[2].fabric->nic_bytes_per_s *= factor;
      for (const auto& cluster : quicker) {
        const auto after = times(cluster);
        for (size_t i = 0; i < after.size(); ++i) EXPECT_LE(after[i], before[i] * (1 + 1e-9)) << place.node << " " << i;
      }
    }
  }
}

TEST(CollectiveInvariant, ADegradedLinkNeverHelps) {
  const Cluster sound = make_cluster("dgx-h100", 4, "ndr400-rail");
  Cluster degraded = sound;
  degraded.degraded.push_back({"nic_up[7]", 0.5, "test"});
  degraded.degraded.push_back({"nvlink_down[3]", 0.5, "test"});
  const auto before = times(sound), after = times(degraded);
  for (size_t i = 3; i < before.size(); i += 4) {  // the largest size of each kind: every one uses that NIC
    EXPECT_GT(after[i], 1.3 * before[i]) << i;
    EXPECT_LE(after[i], 2.1 * before[i]) << i;
  }
}

// The same GPUs in another rank order, and the same pattern one pod further on.
TEST(CollectiveInvariant, RelabelledGpusTakeTheSame) {
  const Cluster cluster = make_cluster("dgx-h100", 8, "ndr400-rail");
  const ClusterNetwork network(cluster);
  const CollectiveModel model(cluster, network);
  const std::vector<int> group{0, 3, 8, 11, 16, 19};
  auto shuffled = group, moved = group;
  std::reverse(shuffled.begin(), shuffled.end());
  std::swap(shuffled[1], shuffled[4]);
  for (int& gpu : moved) gpu += 32 + 2;
  for (const auto kind : {all_reduce, all_gather, reduce_scatter, all_to_all})
    for (const double bytes : {1e3, 1e6, 1e9}) {
      const double expected = model.seconds({kind, bytes, group});
      EXPECT_EQ(model.seconds({kind, bytes, shuffled}), expected);
      EXPECT_EQ(model.seconds({kind, bytes, moved}), expected);
    }
}

// Random collectives at random times over one cluster, each a flow per edge. On every link the bytes that went over it
// never exceed capacity × the time in which it was in use, and Little's law holds: the flow-seconds seen by an observer
// who counts flows in flight are those that the flows themselves took.
TEST(CollectiveInvariant, LinksCarryNoMoreThanTheyCan) {
  struct Result {
    double worst_use, little_error, bytes_error;
  };
  for (const uint64_t seed : {1U, 2U, 3U}) {
    const Result result = test::run_forked([seed] {
      const Cluster cluster = make_cluster("dgx-h100", 4, "ndr400-rail");
      const ClusterNetwork network(cluster);
      const CollectiveModel model(cluster, network);
      struct Watch final : EventHandler {
        struct Sent {
          CollectiveModel::Flow flow;
          double start_s = 0, latency_s = 0, end_s = 0;
        };
        Simulation* simulation = nullptr;
        const ClusterNetwork* network = nullptr;
        std::vector<Sent> flows;
        double in_flight = 0, flow_seconds = 0, last_s = 0;
        void count(double change) {
          flow_seconds += in_flight * (simulation->now() - last_s);
          last_s = simulation->now();
          in_flight += change;
        }
        void on_event(uint64_t tag) override {
          const size_t flow = tag / 2;
          if (tag % 2 == 0) {
            count(1);
            flows[flow].start_s = simulation->now();
            simulation->transfer(network->gpu(flows[flow].flow.source), network->gpu(flows[flow].flow.destination),
                                 flows[flow].flow.bytes, *this, 2 * flow + 1);
          } else {
            count(-1);
            flows[flow].end_s = simulation->now();
          }
        }
      } watch;
      Simulation simulation(network);
      watch.simulation = &simulation;
      watch.network = &network;
      RandomStream random(seed, "collectives");
      for (int i = 0; i < 12; ++i) {
        const auto kind = kKinds[static_cast<size_t>(random.uniform() * 6)];
        const int stride = 1 << static_cast<int>(random.uniform() * 4);
        std::vector<int> gpus;
        for (int gpu = 0; gpu < 32; gpu += stride) gpus.push_back(gpu);
        const double at_s = random.uniform() * 0.02;
        for (const auto& flow : model.flows({kind, 1e6 + random.uniform() * 1e9, gpus})) {
          watch.flows.push_back({flow});
          simulation.at(at_s, watch, 2 * (watch.flows.size() - 1));
        }
      }
      simulation.run();
      std::map<LinkId, double> bytes, begin_s, end_s;
      double taken = 0, shortest = 1e9;
      Route route;
      for (const auto& sent : watch.flows) {
        taken += sent.end_s - sent.start_s;
        network.route(network.gpu(sent.flow.source), network.gpu(sent.flow.destination), route);
        for (const LinkId link : route.links) {
          bytes[link] += sent.flow.bytes;
          const double from_s = sent.start_s + route.latency_s;
          begin_s[link] = begin_s.contains(link) ? std::min(begin_s[link], from_s) : from_s;
          end_s[link] = std::max(end_s[link], sent.end_s);
          shortest = std::min(shortest, (sent.end_s - from_s) * network.link_bytes_per_s(link) / sent.flow.bytes);
        }
      }
      double worst = 0;
      for (const auto& [link, sum] : bytes)
        worst = std::max(worst, sum / (network.link_bytes_per_s(link) * (end_s[link] - begin_s[link])));
      return Result{worst, watch.flow_seconds / taken - 1, 1 / shortest};
    });
    EXPECT_LE(result.worst_use, 1 + 1e-6);
    EXPECT_GT(result.worst_use, 0.5);  // the load was one
    EXPECT_NEAR(result.little_error, 0, 1e-9);
    EXPECT_LE(result.bytes_error, 1 + 1e-6);  // no flow beat the rate of a link of its route
  }
}

}  // namespace
}  // namespace dssim
