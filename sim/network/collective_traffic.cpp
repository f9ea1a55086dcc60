// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include "sim/network/collective.hpp"

namespace dssim {

// A flow starts moving bytes after the latency of its route, so each is started that much before the latency term ends.
class CollectiveTraffic::Impl final : public EventHandler {
 public:
  Impl(Simulation& simulation, const CollectiveModel& model) : simulation_(simulation), model_(model) {}

  void start(const CollectiveCall& call, EventHandler& done, uint64_t tag) {
    ++started_;
    const CollectiveTime time = model_.time(call);
    std::vector<CollectiveModel::Flow> flows = model_.flows(call);
    const double now_s = simulation_.now();
    if (flows.empty()) return simulation_.at(now_s + time.seconds, done, tag);
    const size_t slot = take_slot();
    Operation& operation = operations_[slot];
    operation.done = &done;
    operation.tag = tag;
    operation.begin_s = now_s + time.latency_s;
    for (const auto& flow : flows) operation.flows.push_back({flow, route_latency(flow)});
    std::stable_sort(operation.flows.begin(), operation.flows.end(),
                     [](const Pending& a, const Pending& b) { return a.latency_s > b.latency_s; });
    operation.unfinished = operation.flows.size();
    simulation_.at(operation.begin_s - operation.flows.front().latency_s, *this, 2 * slot);
  }

  void on_event(uint64_t tag) override {
    const size_t slot = tag / 2;
    if (tag % 2 == 0)
      launch(slot);
    else if (--operations_[slot].unfinished == 0)
      finish(slot);
  }

  uint64_t started() const { return started_; }
  uint64_t flows() const { return flows_; }

 private:
  struct Pending {
    CollectiveModel::Flow flow;
    double latency_s = 0;
  };
  struct Operation {
    std::vector<Pending> flows;  // the longest route first
    size_t launched = 0, unfinished = 0;
    double begin_s = 0;  // end of the latency term
    EventHandler* done = nullptr;
    uint64_t tag = 0;
  };

  size_t take_slot() {
    if (free_.empty()) {
      operations_.emplace_back();
      return operations_.size() - 1;
    }
    const size_t slot = free_.back();
    free_.pop_back();
    return slot;
  }

  double route_latency(const CollectiveModel::Flow& flow) {
    const auto& network = model_.network();
    network.route(network.gpu(flow.source), network.gpu(flow.destination), route_);
    return route_.latency_s;
  }

  // All flows with the route latency whose turn it is, then the next shorter one at its date.
  void launch(size_t slot) {
    Operation& operation = operations_[slot];
    const auto& network = model_.network();
    const double latency_s = operation.flows[operation.launched].latency_s;
    while (operation.launched < operation.flows.size() && operation.flows[operation.launched].latency_s == latency_s) {
      const auto& flow = operation.flows[operation.launched++].flow;
      ++flows_;
      simulation_.transfer(network.gpu(flow.source), network.gpu(flow.destination), flow.bytes, *this, 2 * slot + 1);
    }
    if (operation.launched < operation.flows.size())
      simulation_.at(operation.begin_s - operation.flows[operation.launched].latency_s, *this, 2 * slot);
  }

  void finish(size_t slot) {
    EventHandler* done = operations_[slot].done;
    const uint64_t tag = operations_[slot].tag;
    operations_[slot].flows.clear();
    operations_[slot].launched = 0;
    free_.push_back(slot);
    done->on_event(tag);
  }

  Simulation& simulation_;
  const CollectiveModel& model_;
  std::vector<Operation> operations_;
  std::vector<size_t> free_;
  Route route_;
  uint64_t started_ = 0, flows_ = 0;
};

CollectiveTraffic::CollectiveTraffic(Simulation& simulation, const CollectiveModel& model)
    : impl_(std::make_unique<Impl>(simulation, model)) {}
CollectiveTraffic::~CollectiveTraffic() = default;

void CollectiveTraffic::start(const CollectiveCall& call, EventHandler& done, uint64_t tag) {
  impl_->start(call, done, tag);
}
uint64_t CollectiveTraffic::started() const {
  return impl_->started();
}
uint64_t CollectiveTraffic::flows() const {
  return impl_->flows();
}

}  // namespace dssim
