// SPDX-License-Identifier: Apache-2.0
#pragma once

// What the engine has to know of a network to carry flows over it: endpoints, links with a capacity, and the route
// between any two endpoints. Routes are computed when asked for, so a topology of any size costs nothing until it is
// built.
//
// A link is one direction of one port: full duplex is two links. Something that can never be a bottleneck (a
// non-blocking switch) is no link; its delay belongs to the route's latency.

#include <cstdint>
#include <string>
#include <vector>

namespace dssim {

using EndpointId = uint32_t;  // 0 … endpoint_count() − 1
using LinkId = uint32_t;      // 0 … link_count() − 1

struct Route {
  double latency_s = 0;
  std::vector<LinkId> links;
};

class Topology {
 public:
  virtual ~Topology() = default;

  virtual uint32_t endpoint_count() const = 0;
  virtual uint32_t link_count() const = 0;
  virtual double link_bytes_per_s(LinkId link) const = 0;  // > 0
  virtual std::string link_name(LinkId link) const = 0;
  // Fills `into`, whose old content is dropped. From an endpoint to itself: no link, no latency.
  virtual void route(EndpointId source, EndpointId destination, Route& into) const = 0;
};

}  // namespace dssim
