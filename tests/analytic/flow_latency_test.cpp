// SPDX-License-Identifier: Apache-2.0

// Flows whose latency ends at the same date share every link of their routes from then on, not only the first.

#include <gtest/gtest.h>

#include "sim/engine/simulation.hpp"
#include "support/run_forked.hpp"

namespace dssim {
namespace {

// Links: out of 0 (100 B/s), into 1 and into 2 (100 and 10 B/s). Every route has a latency of its own.
class Fork final : public Topology {
 public:
  uint32_t endpoint_count() const override { return 3; }
  uint32_t link_count() const override { return 3; }
  double link_bytes_per_s(LinkId link) const override { return link == 2 ? 10 : 100; }
  std::string link_name(LinkId link) const override { return std::to_string(link); }
  void route(EndpointId, EndpointId destination, Route& into) const override {
    into.links = {0, destination};
    into.latency_s = destination;
  }
};

// Both leave the same port and become active at 2 s. The second has 10 of the port's 100 B/s, the first the other 90.
TEST(FlowLatency, EndingTogetherLeavesNoLinkUnshared) {
  const auto ends = test::run_forked([] {
    const Fork fork;
    Simulation simulation(fork);
    struct Handler final : EventHandler {
      Simulation* simulation = nullptr;
      std::vector<double> ends{0, 0, 0};
      void on_event(uint64_t tag) override {
        if (tag < 3)
          ends[tag] = simulation->now();
        else
          simulation->transfer(0, 1, 900, *this, 1);
      }
    } handler;
    handler.simulation = &simulation;
    simulation.transfer(0, 2, 100, handler, 2);
    simulation.at(1, handler, 3);
    simulation.run();
    return handler.ends;
  });
  EXPECT_NEAR(ends[1], 2 + 900.0 / 90, 1e-6);
  EXPECT_NEAR(ends[2], 2 + 100.0 / 10, 1e-6);
}

}  // namespace
}  // namespace dssim
