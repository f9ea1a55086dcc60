// SPDX-License-Identifier: Apache-2.0
#include "sim/engine/kernel.hpp"

#include <xbt/log.h>
#include <simgrid/kernel/Timer.hpp>

#include <cmath>
#include <csignal>
#include <unordered_map>

#include "sim/base/error.hpp"
#include "sim/engine/simgrid_compat.hpp"

namespace dssim {
namespace {

namespace s4u = simgrid::s4u;
namespace routing = simgrid::kernel::routing;
using simgrid::kernel::timer::Timer;

// Every host and link in one flat zone, with routes computed by the topology: nested zones cost time quadratic in their
// number, and a routing table memory quadratic in the number of hosts.
class FabricZone final : public routing::NetZoneImpl {
 public:
  explicit FabricZone(const Topology& topology) : NetZoneImpl("fabric"), topology_(topology) {}

  void add_everything() {
    s4u::NetZone& zone = *get_iface();
    hosts_.reserve(topology_.endpoint_count());
    links_.reserve(topology_.link_count());
    for (EndpointId i = 0; i < topology_.endpoint_count(); ++i) {
      s4u::Host* host = compat::add_host(zone, std::to_string(i));
      host->seal();
      const auto vertex = host->get_netpoint()->id();
      if (vertex >= endpoint_of_vertex_.size()) endpoint_of_vertex_.resize(vertex + 1);
      endpoint_of_vertex_[vertex] = i;
      hosts_.push_back(host);
    }
    for (LinkId i = 0; i < topology_.link_count(); ++i) {
      s4u::Link* link = compat::add_link(zone, std::to_string(i), topology_.link_bytes_per_s(i));
      link->seal();
      links_.push_back(link->get_impl());
    }
    zone.seal();
  }

  s4u::Host* host(EndpointId endpoint) const { return hosts_[endpoint]; }

 private:
  // No latency: the solver would weigh a flow by it, so that a near one took ten times the share of a far one.
  void get_local_route(const routing::NetPoint* source, const routing::NetPoint* destination, routing::Route* into,
                       double*) override {
    topology_.route(endpoint(source), endpoint(destination), route_);
    for (const LinkId link : route_.links) into->link_list_.push_back(links_[link]);
  }
  void get_graph(const s_xbt_graph_t*, std::map<std::string, xbt_node_t, std::less<>>*,
                 std::map<std::string, xbt_edge_t, std::less<>>*) override {}

  EndpointId endpoint(const routing::NetPoint* point) const { return endpoint_of_vertex_[point->id()]; }

  const Topology& topology_;
  std::vector<EndpointId> endpoint_of_vertex_;
  std::vector<s4u::Host*> hosts_;
  std::vector<simgrid::kernel::resource::StandardLinkImpl*> links_;
  Route route_;
};

// SimGrid takes plain callbacks that outlive any Simulation, and allows one engine per process: so does this.
std::function<void(const void*)> the_flow_end;
bool engine_was_made = false;

void on_any_flow_end(const void* activity) {
  if (the_flow_end) the_flow_end(activity);
}

// SimGrid takes over Ctrl-C and segmentation faults; dssim has its own use for the first and none for the second.
class KeepSignalHandlers {
 public:
  KeepSignalHandlers() {
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], nullptr, &actions_[i]);
  }
  ~KeepSignalHandlers() {
    for (size_t i = 0; i < std::size(kSignals); ++i) sigaction(kSignals[i], &actions_[i], nullptr);
  }

 private:
  static constexpr int kSignals[] = {SIGINT, SIGSEGV, SIGBUS};
  struct sigaction actions_[std::size(kSignals)];
};

}  // namespace

struct Simulation::Kernel::Flow {
  EndpointId source, destination;
  double bytes;
  EventHandler* done;
  uint64_t tag;
};

struct Simulation::Kernel::SimGrid {
  struct InFlight {
    s4u::CommPtr comm;
    EventHandler* done;
    uint64_t tag;
  };

  std::unique_ptr<s4u::Engine> engine;
  FabricZone* zone = nullptr;  // SimGrid deletes it
  Timer* timer = nullptr;
  std::unordered_map<const void*, InFlight> in_flight;
  s4u::CommPtr ended;  // releasing a flow inside its own completion callback is a use after free
};

Simulation::Kernel::Kernel(Simulation& simulation, const Topology& topology)
    : simulation_(simulation), topology_(topology), simgrid_(std::make_unique<SimGrid>()) {
  if (engine_was_made) throw failure("SimGrid runs one simulation per process; fork one child for each");
  engine_was_made = true;
  const KeepSignalHandlers keep;
  xbt_log_control_set("root.thres:critical");
  simgrid_->engine = std::make_unique<s4u::Engine>("dssim");
  // A link's figures mean what they say: no TCP slow start or window, no acknowledgements on the way back.
  for (const char* option : {"network/model:CM02", "network/crosstraffic:0", "network/TCP-gamma:0"})
    s4u::Engine::set_config(option);
  simgrid_->zone = new FabricZone(topology);
  compat::attach_to_root(*simgrid_->engine, *simgrid_->zone);
  simgrid_->zone->add_everything();
  the_flow_end = [this](const void* activity) { on_flow_end(activity); };
  compat::on_transfer_end(on_any_flow_end);
}

Simulation::Kernel::~Kernel() {
  the_flow_end = nullptr;
  disarm();
}

void Simulation::Kernel::start(EndpointId source, EndpointId destination, double bytes, EventHandler& done,
                               uint64_t tag) {
  topology_.route(source, destination, route_);
  uint64_t slot = waiting_.size();
  if (free_slots_.empty()) {
    waiting_.emplace_back();
  } else {
    slot = free_slots_.back();
    free_slots_.pop_back();
  }
  waiting_[slot] = {source, destination, bytes, &done, tag};
  simulation_.at(simulation_.now_s_ + route_.latency_s, *this, slot);
}

void Simulation::Kernel::on_event(uint64_t slot) {
  pending_.push_back(waiting_[slot]);
  free_slots_.push_back(slot);
  if (running_ && s4u::Engine::get_clock() >= simulation_.now_s_) start_pending();
}

void Simulation::Kernel::start_pending() {
  for (const Flow& flow : pending_) {
    s4u::CommPtr comm =
        s4u::Comm::sendto_init(simgrid_->zone->host(flow.source), simgrid_->zone->host(flow.destination));
    comm->set_payload_size(static_cast<uint64_t>(std::llround(flow.bytes)));
    simgrid_->in_flight.emplace(comm.get(), SimGrid::InFlight{comm, flow.done, flow.tag});
    comm->start();
  }
  pending_.clear();
}

template <typename Work>
void Simulation::Kernel::guarded(Work work) {
  if (error_ || !simulation_.may_continue()) return;
  try {
    work();
    start_pending();
  } catch (...) {
    error_ = std::current_exception();
  }
}

void Simulation::Kernel::run() {
  running_ = true;
  arm();
  simgrid_->engine->run();
  running_ = false;
  disarm();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

void Simulation::Kernel::disarm() {
  if (simgrid_->timer != nullptr) simgrid_->timer->remove();
  simgrid_->timer = nullptr;
}

void Simulation::Kernel::arm() {
  double date;
  if (error_ || !simulation_.may_continue())
    return disarm();
  else if (!pending_.empty())
    date = simulation_.now_s_;
  else if (simulation_.flows_in_flight_ > 0 && !simulation_.queue_.empty())
    date = simulation_.queue_.top().time_s;
  else
    return disarm();
  date = std::max(date, s4u::Engine::get_clock());
  if (simgrid_->timer != nullptr && simgrid_->timer->get_date() == date) return;
  disarm();
  simgrid_->timer = Timer::set(date, [this] {
    simgrid_->timer = nullptr;
    on_timer();
    arm();
  });
}

void Simulation::Kernel::on_timer() {
  guarded([this] {
    const double clock_s = s4u::Engine::get_clock();
    simulation_.now_s_ = std::max(simulation_.now_s_, clock_s);
    if (!pending_.empty()) return start_pending();
    while (!simulation_.queue_.empty() && simulation_.queue_.top().time_s <= clock_s && simulation_.may_continue())
      simulation_.dispatch_top();
  });
}

void Simulation::Kernel::on_flow_end(const void* activity) {
  const auto found = simgrid_->in_flight.find(activity);
  if (found == simgrid_->in_flight.end()) return;
  const SimGrid::InFlight flow = std::move(found->second);
  simgrid_->in_flight.erase(found);
  simgrid_->ended = flow.comm;
  --simulation_.flows_in_flight_;
  guarded([&] {
    simulation_.now_s_ = std::max(simulation_.now_s_, s4u::Engine::get_clock());
    ++simulation_.events_;
    flow.done->on_event(flow.tag);
  });
  arm();
}

}  // namespace dssim
