// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/service.hpp"

namespace dssim {

Service::Service(Simulation& simulation, RequestStream& stream, std::unique_ptr<Router> router,
                 double frontend_latency_s, ServiceObserver& observer)
    : simulation_(simulation),
      stream_(stream),
      router_(std::move(router)),
      frontend_latency_s_(frontend_latency_s),
      observer_(observer) {}

void Service::add_replica(const ReplicaShape& shape, Scheduler scheduler, StepModel& steps) {
  replicas_.push_back(std::make_unique<Replica>(simulation_, shape, std::move(scheduler), steps, *this));
}

void Service::expect_next() {
  if (expecting_ || !stream_.next(next_)) return;
  expecting_ = true;
  simulation_.at(next_.arrival_s + frontend_latency_s_, *this);
}

void Service::on_event(uint64_t) {
  const Request request = next_;
  expecting_ = false;
  expect_next();
  observer_.request_offered(request);
  replicas_[router_->choose(request, replicas_)]->submit(request);
}

void Service::request_ended(const RequestRecord& record) {
  observer_.request_ended(record);
  stream_.completed(record.id, simulation_.now());
  expect_next();
}

int64_t Service::outstanding() const {
  int64_t sum = 0;
  for (const auto& replica : replicas_) sum += replica->outstanding();
  return sum;
}

ReplicaUsage Service::usage() const {
  ReplicaUsage sum;
  for (const auto& replica : replicas_) sum.add(replica->usage());
  return sum;
}

StepUsage Service::step_usage() const {
  StepUsage sum;
  for (const auto& replica : replicas_) sum.add(replica->step_usage());
  return sum;
}

}  // namespace dssim
