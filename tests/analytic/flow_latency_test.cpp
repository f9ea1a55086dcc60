// SPDX-License-Identifier: Apache-2.0

// Flows whose latency ends at the same date share every link of their routes from then on, not only the first.

#include <gtest/gtest.h>

#include "sim/engine/simulation.hpp"
#include "support/run_forked.hpp"

namespace dssim {
namespace {

// A fork: endpoint 0 reaches 1 … n, each over the port of 0 (100 B/s) and a port of its own, one of which is slow.
class Fork final : public Topology {
 public:
  Fork(uint32_t ends, LinkId slow) : ends_(ends), slow_(slow) {}
  uint32_t endpoint_count() const override { return ends_ + 1; }
  uint32_t link_count() const override { return ends_ + 1; }
  double link_bytes_per_s(LinkId link) const override { return link == slow_ ? 10 : 100; }
  std::string link_name(LinkId link) const override { return std::to_string(link); }
  void route(EndpointId, EndpointId destination, Route& into) const override {
    into.links = {0, destination};
    into.latency_s = 1;
  }

 private:
  uint32_t ends_;
  LinkId slow_;
};

// Three flows leave the same port and become active at 1 s: the one to the slow end has 10 B/s, the others 45 each.
TEST(FlowLatency, EndingTogetherLeavesNoLinkUnshared) {
  for (const LinkId slow : {1U, 2U, 3U}) {
    const auto ends = test::run_forked([slow] {
      const Fork fork(3, slow);
      Simulation simulation(fork);
      struct Handler final : EventHandler {
        Simulation* simulation = nullptr;
        std::vector<double> ends{0, 0, 0, 0};
        void on_event(uint64_t tag) override { ends[tag] = simulation->now(); }
      } handler;
      handler.simulation = &simulation;
      for (const EndpointId end : {1U, 2U, 3U}) simulation.transfer(0, end, end == slow ? 100 : 450, handler, end);
      simulation.run();
      return handler.ends;
    });
    for (const size_t end : {1U, 2U, 3U}) EXPECT_NEAR(ends[end], 11, 1e-6) << "slow end " << slow << ", end " << end;
  }
}

}  // namespace
}  // namespace dssim
