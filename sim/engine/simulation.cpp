// SPDX-License-Identifier: Apache-2.0
#include "sim/engine/simulation.hpp"

#include <fmt/format.h>

#include <cassert>
#include <cmath>
#include <csignal>

#include "sim/base/error.hpp"
#include "sim/base/units.hpp"
#include "sim/engine/kernel.hpp"

namespace dssim {
namespace {

volatile std::sig_atomic_t stop_flag = 0;

}  // namespace

void request_stop() noexcept {
  stop_flag = 1;
}
bool stop_requested() noexcept {
  return stop_flag != 0;
}

Simulation::Simulation() = default;
Simulation::Simulation(const Topology& topology) : topology_(&topology) {}
Simulation::~Simulation() = default;

void Simulation::advance(double time_s) {
  assert(time_s >= now_s_ && time_s <= next_event_time());
  now_s_ = time_s;
}

void Simulation::build_platform() {
  if (topology_ == nullptr) throw failure("this simulation was given no network to send bytes over");
  if (!kernel_) kernel_ = std::make_unique<Kernel>(*this, *topology_);
}

void Simulation::transfer(EndpointId source, EndpointId destination, double bytes, EventHandler& done, uint64_t tag) {
  if (topology_ == nullptr) throw failure("this simulation was given no network to send bytes over");
  assert(source < topology_->endpoint_count() && destination < topology_->endpoint_count());
  assert(std::isfinite(bytes) && bytes >= 0);
  ++flows_;
  if (source == destination) return at(now_s_, done, tag);
  // SimGrid moves whole bytes, and starts no flow of none: less than one byte is latency alone.
  if (bytes < 1) {
    Route route;
    topology_->route(source, destination, route);
    return at(now_s_ + route.latency_s, done, tag);
  }
  build_platform();
  ++flows_in_flight_;
  kernel_->start(source, destination, bytes, done, tag);
}

void Simulation::dispatch_top() {
  const EventQueue::Event event = queue_.pop();
  now_s_ = event.time_s > now_s_ ? event.time_s : now_s_;
  ++events_;
  event.handler->on_event(event.tag);
}

Simulation::End Simulation::run() {
  stopped_ = false;
  while (may_continue()) {
    if (flows_in_flight_ > 0) {
      kernel_->run();
    } else if (!queue_.empty()) {
      dispatch_top();
    } else {
      const std::string unfinished = unfinished_ ? unfinished_() : "";
      if (!queue_.empty() || flows_in_flight_ > 0) continue;
      if (unfinished.empty()) return End::finished;
      throw failure(fmt::format("deadlock: nothing is left to happen after {} of simulated time, yet unfinished: {}",
                                format_time(now_s_), unfinished));
    }
  }
  return End::stopped;
}

}  // namespace dssim
