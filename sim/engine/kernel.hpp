// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of Simulation that touches SimGrid: builds the platform from a Topology, starts flows and hears of their
// end. Private to sim/engine; free of SimGrid headers so that only kernel.cpp pays for them.
//
// A flow waits out its route's latency in the queue and is then handed to SimGrid as one without latency: when two
// flows that share their first link come out of SimGrid's own latency phase at the same date, its solver (3.32) leaves
// the other links of the second unconstrained until the next change.
//
// How the two clocks go together: while flows are in flight SimGrid runs, and one of its timers stands at the date of
// the queue's first event; its callback dispatches that event and re-arms it. When the last flow ends, SimGrid has
// nothing left to do, returns, and Simulation works through its queue alone. Flows asked for meanwhile start from the
// timer, at their exact date.

#include <cstdint>
#include <exception>
#include <memory>
#include <vector>

#include "sim/engine/simulation.hpp"

namespace dssim {

class Simulation::Kernel final : public EventHandler {
 public:
  Kernel(Simulation& simulation, const Topology& topology);
  ~Kernel();

  // Now; the bytes move after the latency of the route.
  void start(EndpointId source, EndpointId destination, double bytes, EventHandler& done, uint64_t tag);
  // Until no flow is in flight, or the simulation is to stop. An exception out of a handler leaves from here.
  void run();

 private:
  struct Flow;
  struct SimGrid;

  void on_event(uint64_t slot) override;  // a flow's latency is over
  void on_timer();
  void on_flow_end(const void* activity);
  void start_pending();
  void arm();
  void disarm();
  template <typename Work>
  void guarded(Work work);

  Simulation& simulation_;
  const Topology& topology_;
  Route route_;
  std::unique_ptr<SimGrid> simgrid_;
  std::vector<Flow> waiting_;  // for their latency, by slot
  std::vector<uint64_t> free_slots_;
  std::vector<Flow> pending_;  // ready while SimGrid stood still
  std::exception_ptr error_;   // what a handler threw
  bool running_ = false;
};

}  // namespace dssim
