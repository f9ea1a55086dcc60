// SPDX-License-Identifier: Apache-2.0
#pragma once

// What differs between SimGrid 3.32 (Debian 12) and 4.x, in one place. Included by sim/engine/*.cpp alone.

#include <simgrid/version.h>
#include <simgrid/kernel/routing/NetPoint.hpp>
#include <simgrid/kernel/routing/NetZoneImpl.hpp>
#include <simgrid/s4u/Comm.hpp>
#include <simgrid/s4u/Engine.hpp>
#include <simgrid/s4u/Host.hpp>
#include <simgrid/s4u/Link.hpp>
#include <simgrid/s4u/NetZone.hpp>

#include <string>

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

inline void on_transfer_end(void (*callback)(const void* activity)) {
#if SIMGRID_VERSION >= 33400
  s4u::Comm::on_completion_cb([callback](const s4u::Comm& comm) { callback(&comm); });
#else
  s4u::Activity::on_completion_cb([callback](const s4u::Activity& activity) { callback(&activity); });
#endif
}

}  // namespace dssim::compat
