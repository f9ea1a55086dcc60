// SPDX-License-Identifier: Apache-2.0
#pragma once

// The part of Simulation that touches SimGrid: builds the platform from a Topology, starts flows and hears of their
// end. Private to sim/engine; free of SimGrid headers so that only kernel.cpp pays for them.
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

class Simulation::Kernel {
 public:
  Kernel(Simulation& simulation, const Topology& topology);
  ~Kernel();

  void start(EndpointId source, EndpointId destination, double bytes, EventHandler& done, uint64_t tag);
  // Until no flow is in flight, or the simulation is to stop. An exception out of a handler leaves from here.
  void run();

 private:
  struct Flow;
  struct SimGrid;

  void on_timer();
  void on_flow_end(const void* activity);
  void start_pending();
  void arm();
  void disarm();
  template <typename Work>
  void guarded(Work work);

  Simulation& simulation_;
  std::unique_ptr<SimGrid> simgrid_;
  std::vector<Flow> pending_;  // asked for while SimGrid stood still
  std::exception_ptr error_;   // what a handler threw
  bool running_ = false;
};

}  // namespace dssim
