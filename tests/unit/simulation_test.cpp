// SPDX-License-Identifier: Apache-2.0
#include "sim/engine/simulation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <functional>
#include <random>
#include <vector>

#include "sim/base/error.hpp"
#include "tests/support/run_forked.hpp"

namespace dssim {
namespace {

struct Recorder : EventHandler {
  explicit Recorder(Simulation& s) : sim(s) {}
  void on_event(uint64_t tag) override {
    tags.push_back(tag);
    times.push_back(sim.now());
    if (then) then(tag);
  }
  Simulation& sim;
  std::vector<uint64_t> tags;
  std::vector<double> times;
  std::function<void(uint64_t)> then;
};

// Two endpoints, one link each way, 1 GB/s, 1 ms.
struct Wire : Topology {
  uint32_t endpoint_count() const override { return 2; }
  uint32_t link_count() const override { return 2; }
  double link_bytes_per_s(LinkId) const override { return 1e9; }
  std::string link_name(LinkId link) const override { return link == 0 ? "there" : "back"; }
  void route(EndpointId source, EndpointId destination, Route& into) const override {
    into.latency_s = source == destination ? 0 : 1e-3;
    into.links.clear();
    if (source != destination) into.links.push_back(source);
  }
};

TEST(Simulation, RunsEventsInOrderOfTimeThenOfInsertion) {
  Simulation sim;
  Recorder recorder(sim);
  std::mt19937 random(1);
  struct Due {
    double time_s;
    uint64_t tag;
  };
  std::vector<Due> expected;
  for (uint64_t i = 0; i < 5000; ++i) {
    const double time_s = static_cast<double>(random() % 97);  // many ties
    expected.push_back({time_s, i});
    sim.at(time_s, recorder, i);
  }
  std::stable_sort(expected.begin(), expected.end(), [](const Due& a, const Due& b) { return a.time_s < b.time_s; });
  EXPECT_EQ(sim.run(), Simulation::End::finished);
  ASSERT_EQ(recorder.tags.size(), expected.size());
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_EQ(recorder.tags[i], expected[i].tag) << i;
    ASSERT_EQ(recorder.times[i], expected[i].time_s) << i;
  }
}

TEST(Simulation, AnEventOfThePastHappensNowAfterThoseAlreadyDue) {
  Simulation sim;
  Recorder recorder(sim);
  recorder.then = [&](uint64_t tag) {
    if (tag == 0) sim.at(1.0, recorder, 2);
  };
  sim.at(5.0, recorder, 0);
  sim.at(5.0, recorder, 1);
  sim.run();
  EXPECT_EQ(recorder.tags, (std::vector<uint64_t>{0, 1, 2}));
  EXPECT_EQ(recorder.times, (std::vector<double>{5, 5, 5}));
}

TEST(Simulation, WorkAheadUpToTheNextEvent) {
  Simulation sim;
  Recorder recorder(sim);
  EXPECT_EQ(sim.next_event_time(), std::numeric_limits<double>::infinity());
  sim.at(2.0, recorder);
  EXPECT_EQ(sim.next_event_time(), 2.0);
  sim.advance(1.5);
  EXPECT_EQ(sim.now(), 1.5);
  sim.run();
  EXPECT_EQ(recorder.times, std::vector<double>{2.0});
}

TEST(Simulation, AnErrorInAHandlerLeavesRun) {
  Simulation sim;
  Recorder recorder(sim);
  recorder.then = [](uint64_t) { throw failure("broken"); };
  sim.at(1, recorder);
  EXPECT_THROW(sim.run(), Error);
}

TEST(Simulation, StopEndsTheRunAfterTheCurrentEvent) {
  Simulation sim;
  Recorder recorder(sim);
  recorder.then = [&](uint64_t tag) {
    if (tag == 1) sim.stop();
  };
  for (uint64_t i = 0; i < 4; ++i) sim.at(static_cast<double>(i), recorder, i);
  EXPECT_EQ(sim.run(), Simulation::End::stopped);
  EXPECT_EQ(recorder.tags, (std::vector<uint64_t>{0, 1}));
}

TEST(Simulation, NamesWhatIsUnfinishedWhenNothingIsLeftToHappen) {
  Simulation sim;
  Recorder recorder(sim);
  sim.at(1, recorder);
  sim.on_idle([] { return "3 requests"; });
  try {
    sim.run();
    FAIL();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::failure);
    EXPECT_STREQ(e.what(),
                 "deadlock: nothing is left to happen after 1 s of simulated time, yet unfinished: 3 requests");
  }
}

TEST(Simulation, NeedsANetworkToTransfer) {
  Simulation sim;
  Recorder recorder(sim);
  EXPECT_THROW(sim.transfer(0, 1, 1e6, recorder), Error);
}

TEST(SimulationWithFlows, EventsAndFlowsInterleaveAtTheirExactDates) {
  const auto times = test::run_forked([] {
    const Wire wire;
    Simulation sim(wire);
    Recorder events(sim), flows(sim);
    // A first flow at 1000.25 s, long after SimGrid's own clock; a second one while it runs; a third after both.
    for (const double t : {1.0, 1000.3, 1000.5, 3000.0}) sim.at(t, events);
    Recorder starter(sim);
    starter.then = [&](uint64_t tag) { sim.transfer(0, 1, 0.5e9, flows, tag); };
    sim.at(1000.25, starter, 0);
    sim.at(1000.251, starter, 1);
    sim.at(2000.0, starter, 2);
    sim.run();
    std::vector<double> all = events.times;
    all.insert(all.end(), flows.times.begin(), flows.times.end());
    return all;
  });
  ASSERT_EQ(times.size(), 7u);
  EXPECT_EQ(times[0], 1.0);
  EXPECT_EQ(times[1], 1000.3);
  EXPECT_EQ(times[2], 1000.5);
  EXPECT_EQ(times[3], 3000.0);
  // Alone from 1000.251 for 1 ms (latency of the second), then half each: the first has 0.499e9 bytes left at 1000.252.
  EXPECT_NEAR(times[4], 1000.252 + 0.998, 1e-8);
  EXPECT_NEAR(times[5], times[4] + 0.001, 1e-8);
  EXPECT_NEAR(times[6], 2000.501, 1e-8);
}

TEST(SimulationWithFlows, AFlowsEndMayStartTheNext) {
  const double end_s = test::run_forked([] {
    const Wire wire;
    Simulation sim(wire);
    Recorder flows(sim);
    flows.then = [&](uint64_t tag) {
      if (tag < 9) sim.transfer(tag % 2, 1 - tag % 2, 1e6, flows, tag + 1);
    };
    sim.transfer(0, 1, 1e6, flows, 0);
    sim.run();
    return flows.times.size() == 10 ? sim.now() : -1.0;
  });
  EXPECT_NEAR(end_s, 10 * (1e-3 + 1e-3), 1e-9);
}

TEST(SimulationWithFlows, NothingAndToItself) {
  const auto times = test::run_forked([] {
    const Wire wire;
    Simulation sim(wire);
    Recorder flows(sim);
    sim.transfer(0, 1, 0, flows, 0);    // latency alone
    sim.transfer(1, 1, 1e9, flows, 1);  // free
    sim.run();
    return flows.times;
  });
  EXPECT_EQ(times, (std::vector<double>{0, 1e-3}));
}

TEST(SimulationWithFlows, AnErrorWhileFlowsRunLeavesRun) {
  const std::string what = test::run_forked([]() -> std::string {
    const Wire wire;
    Simulation sim(wire);
    Recorder flows(sim), events(sim);
    events.then = [](uint64_t) { throw failure("broken"); };
    sim.transfer(0, 1, 1e9, flows);
    sim.at(0.5, events);
    try {
      sim.run();
    } catch (const Error& e) {
      return std::string(e.what()) + (flows.times.empty() ? "" : ", yet the flow ended");
    }
    return "no error";
  });
  EXPECT_EQ(what, "broken");
}

TEST(SimulationWithFlows, StopsWhileFlowsRun) {
  const std::string what = test::run_forked([]() -> std::string {
    const Wire wire;
    Simulation sim(wire);
    Recorder flows(sim), events(sim);
    events.then = [](uint64_t) { request_stop(); };
    sim.transfer(0, 1, 1e9, flows);
    sim.at(0.5, events);
    sim.at(0.6, events);
    return sim.run() == Simulation::End::stopped && events.times.size() == 1 && sim.now() == 0.5 ? "stopped"
                                                                                                 : "went on";
  });
  EXPECT_EQ(what, "stopped");
}

TEST(SimulationWithFlows, ASecondEngineInOneProcessIsAnError) {
  EXPECT_THROW(test::run_forked([] {
                 const Wire wire;
                 Simulation first(wire), second(wire);
                 first.build_platform();
                 second.build_platform();
                 return 0;
               }),
               std::runtime_error);
}

TEST(SimulationWithFlows, LeavesCtrlCToTheProgram) {
  const bool kept = test::run_forked([] {
    std::signal(SIGINT, [](int) { request_stop(); });
    const Wire wire;
    Simulation sim(wire);
    sim.build_platform();
    std::raise(SIGINT);
    return stop_requested();
  });
  EXPECT_TRUE(kept);
}

}  // namespace
}  // namespace dssim
