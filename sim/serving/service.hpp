// SPDX-License-Identifier: Apache-2.0
#pragma once

// The whole serving system in simulated time: requests arrive, pass the front end (a fixed latency of the stack: HTTP,
// tokenisation), are routed to a replica, and are reported to the sink when they end. Holds only requests in flight.

#include <memory>
#include <vector>

#include "sim/serving/replica.hpp"
#include "sim/serving/router.hpp"

namespace dssim {

class ServiceObserver {
 public:
  virtual void request_offered(const Request& request) = 0;
  virtual void request_ended(const RequestRecord& record) = 0;

 protected:
  ~ServiceObserver() = default;
};

class Service final : public EventHandler, public RequestSink {
 public:
  Service(Simulation& simulation, RequestStream& stream, std::unique_ptr<Router> router, double frontend_latency_s,
          ServiceObserver& observer);

  void add_replica(const ReplicaShape& shape, Scheduler scheduler, StepModel& steps);
  // Takes in the first request; the simulation's run() does the rest.
  void start() { expect_next(); }

  const std::vector<std::unique_ptr<Replica>>& replicas() const { return replicas_; }
  int64_t outstanding() const;
  ReplicaUsage usage() const;
  StepUsage step_usage() const;

  void on_event(uint64_t tag) override;
  void request_ended(const RequestRecord& record) override;

 private:
  void expect_next();
  void await_expected();

  Simulation& simulation_;
  RequestStream& stream_;
  std::unique_ptr<Router> router_;
  double frontend_latency_s_;
  ServiceObserver& observer_;
  std::vector<std::unique_ptr<Replica>> replicas_;
  Request next_;
  bool expecting_ = false;
  uint64_t awaited_ = 0;          // tag of the event that brings next_; earlier ones are void
  int64_t refusals_at_once_ = 0;  // in a row, without time moving on
  double refused_at_s_ = -1;
};

}  // namespace dssim
