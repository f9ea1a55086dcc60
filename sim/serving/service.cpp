// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/service.hpp"

#include <algorithm>

#include "sim/base/error.hpp"

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
  await_expected();
}

void Service::await_expected() {
  simulation_.at(next_.arrival_s + frontend_latency_s_, *this, ++awaited_);
}

void Service::on_event(uint64_t tag) {
  if (tag != awaited_) return;
  const Request request = next_;
  expecting_ = false;
  expect_next();
  observer_.request_offered(request);
  replicas_[router_->choose(request, replicas_)]->submit(request);
}

void Service::request_ended(const RequestRecord& record) {
  observer_.request_ended(record);
  // Users without think time who are refused ask again in the same instant, and time would stand still.
  constexpr int64_t kRefusalsAtOnce = 100'000;
  const bool refused_now = record.outcome == Outcome::rejected && simulation_.now() == refused_at_s_;
  refusals_at_once_ = refused_now ? refusals_at_once_ + 1 : 0;
  refused_at_s_ = simulation_.now();
  if (refusals_at_once_ > kRefusalsAtOnce)
    throw cannot_run(
        "every request is refused at once and its user asks again at once: the requests are too long or the queue too "
        "short for this service; give the users a workload.think_time, or admit more");
  stream_.completed(record.id, std::max(simulation_.now(), record.done_s));
  if (expecting_ && stream_.bring_forward(next_)) await_expected();
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
