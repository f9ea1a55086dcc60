// SPDX-License-Identifier: Apache-2.0
#pragma once

// Simulated time: events in strict (time, insertion) order, and transfers as SimGrid flows that share links.
//
//   Simulation sim(topology);
//   sim.at(1.5, handler, tag);                       // handler.on_event(tag) at 1.5 s
//   sim.transfer(gpu_a, gpu_b, 1e9, handler, tag);   // starts now; on_event(tag) when the last byte is there
//   sim.run();
//
// Model: a flow starts after its route's latency; flows then share every link max-min fairly, whatever their latency
// (SimGrid's CM02 with cross-traffic and TCP window off). Time is double seconds and never goes back.
//
// While no flow is in flight the queue runs by itself and SimGrid's clock stands still; it is brought forward when the
// next flow starts. The platform is built at the first transfer, so a run without any pays nothing for it.
//
// A Simulation without transfers may be made as often as one likes. SimGrid allows one engine per process: the second
// Simulation that needs it throws Error(failure). Many runs are forked children (tests: tests/support/run_forked.hpp).
//
// Errors: an exception leaving a handler leaves run(). When nothing is left to happen while the on_idle callback names
// unfinished work, run() throws Error(failure) ("deadlock").

#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>

#include "sim/engine/event_queue.hpp"
#include "sim/engine/topology.hpp"

namespace dssim {

// Asks every running Simulation to end at its next event. Safe in a signal handler.
void request_stop() noexcept;
bool stop_requested() noexcept;

class Simulation {
 public:
  Simulation();                                   // events only: transfer() throws Error(failure)
  explicit Simulation(const Topology& topology);  // which must outlive this
  ~Simulation();
  Simulation(const Simulation&) = delete;
  Simulation& operator=(const Simulation&) = delete;

  double now() const { return now_s_; }

  // At `time_s`, or now where that has passed.
  void at(double time_s, EventHandler& handler, uint64_t tag = 0) {
    queue_.push(time_s > now_s_ ? time_s : now_s_, handler, tag);
  }

  // Nothing happens before this date: a caller may work ahead up to it in a plain loop and then say so by advance().
  // Infinity where nothing else is due; now() while flows are in flight, since their end is not known before it comes.
  double next_event_time() const {
    if (flows_in_flight_ > 0) return now_s_;
    return queue_.empty() ? std::numeric_limits<double>::infinity() : queue_.top().time_s;
  }
  void advance(double time_s);  // to a date not after next_event_time()

  // Bytes from one endpoint to another, starting now. To itself: done at once, without cost.
  void transfer(EndpointId source, EndpointId destination, double bytes, EventHandler& done, uint64_t tag = 0);

  // Asked when nothing is left to happen: what is still unfinished ("3 requests"), or "".
  void on_idle(std::function<std::string()> unfinished) { unfinished_ = std::move(unfinished); }

  enum class End { finished, stopped };
  End run();                        // until nothing is left, stop(), or request_stop()
  void stop() { stopped_ = true; }  // ends run() after the current event

  void build_platform();  // now rather than at the first transfer
  uint64_t events() const { return events_; }
  uint64_t flows() const { return flows_; }

 private:
  class Kernel;  // everything that touches SimGrid
  friend class Kernel;

  void dispatch_top();
  bool may_continue() const { return !stopped_ && !stop_requested(); }

  double now_s_ = 0;
  EventQueue queue_;
  uint64_t events_ = 0, flows_ = 0;
  uint32_t flows_in_flight_ = 0;
  bool stopped_ = false;
  const Topology* topology_ = nullptr;
  std::function<std::string()> unfinished_;
  std::unique_ptr<Kernel> kernel_;
};

}  // namespace dssim
