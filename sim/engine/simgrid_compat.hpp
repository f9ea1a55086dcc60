// SPDX-License-Identifier: Apache-2.0
#pragma once

// What differs between SimGrid 3.32 (Debian 12) and 4.x, in one place. Included by sim/engine/*.cpp alone.

#include <simgrid/version.h>
#include <simgrid/kernel/resource/NetworkModelIntf.hpp>
#include <simgrid/kernel/routing/NetPoint.hpp>
#include <simgrid/kernel/routing/NetZoneImpl.hpp>
#include <simgrid/s4u/Comm.hpp>
#include <simgrid/s4u/Engine.hpp>
#include <simgrid/s4u/Host.hpp>
#include <simgrid/s4u/Link.hpp>
#include <simgrid/s4u/NetZone.hpp>

#include <functional>
#include <string>
#include <unordered_set>
#include <vector>

namespace dssim::compat {

namespace s4u = simgrid::s4u;

// The first zone made is the root in 3.x; 4.x has a root already.
inline void attach_to_root([[maybe_unused]] s4u::Engine& engine,
                           [[maybe_unused]] simgrid::kernel::routing::NetZoneImpl& zone) {
#if SIMGRID_VERSION >= 40000
  zone.set_parent(engine.get_netzone_root()->get_impl());
#endif
}

inline s4u::Host* add_host(s4u::NetZone& zone, const std::string& name) {
#if SIMGRID_VERSION >= 40000
  return zone.add_host(name, 1e9);
#else
  return zone.create_host(name, 1e9);
#endif
}

inline s4u::Link* add_link(s4u::NetZone& zone, const std::string& name, double bytes_per_s) {
#if SIMGRID_VERSION >= 40000
  return zone.add_link(name, bytes_per_s);
#else
  return zone.create_link(name, bytes_per_s);
#endif
}

// The factor is multiplied by the latency that the route reported.
inline void set_latency_factor(s4u::NetZone& zone, double (*factor)(const s4u::Host*, const s4u::Host*)) {
  auto callback = [factor](double, const s4u::Host* source, const s4u::Host* destination,
                           const std::vector<s4u::Link*>&,
                           const std::unordered_set<s4u::NetZone*>&) { return factor(source, destination); };
#if SIMGRID_VERSION >= 33400
  zone.set_latency_factor_cb(callback);
#else
  zone.get_network_model()->set_lat_factor_cb(callback);
#endif
}

inline void on_transfer_end(void (*callback)(const void* activity)) {
#if SIMGRID_VERSION >= 33400
  s4u::Comm::on_completion_cb([callback](const s4u::Comm& comm) { callback(&comm); });
#else
  s4u::Activity::on_completion_cb([callback](const s4u::Activity& activity) { callback(&activity); });
#endif
}

}  // namespace dssim::compat
