// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which replica an arriving request goes to. A new router is one class and one line in the table of router.cpp.
//
//   round-robin   each replica in turn
//   random        uniformly, from the "router" substream of the seed
//   least-loaded  the fewest requests waiting and running; among equals, in turn
//   prefix-aware  the replica that holds the longest prefix of the prompt, if that is more than half of it and the
//                 replica at most 32 requests busier than the least busy one; else least-loaded (SGLang's cache-aware
//                 router: cache_threshold 0.5, balance_abs_threshold 32 in its library's defaults; a common system
//                 prompt alone must not draw every request to one replica)

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "workloads/request_stream.hpp"

namespace dssim {

class Replica;

class Router {
 public:
  virtual ~Router() = default;
  virtual size_t choose(const Request& request, const std::vector<std::unique_ptr<Replica>>& replicas) = 0;
};

std::unique_ptr<Router> make_router(std::string_view name, uint64_t seed);  // nullptr where there is none of this name
std::vector<std::string> router_names();

}  // namespace dssim
