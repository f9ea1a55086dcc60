// SPDX-License-Identifier: Apache-2.0
#pragma once

// Requests as they arrive: traces, CSV files, Poisson, gamma, constant and closed-loop arrivals, with token lengths
// (token_lengths.hpp) and the identity of each prompt (prompt.hpp). Streams hand out one request at a time in arrival
// order and keep no record of those handed out.
//
//   auto stream = make_request_stream(scenario.table("workload"), seed, scenario_folder);
//   Request r; while (stream->next(r)) ...                      // open kinds: false is the end
//
// A closed loop's next request depends on answers: call completed() for every request that ends, however it ends
// (answered, rejected, timed out); where next() says false and exhausted() is false, ask again after the next
// completed(). Randomness comes from named substreams of the seed ("arrivals", "input lengths", "output lengths",
// "lengths", "prefixes", "think times"), so that a change of one never shifts another. Times in seconds from the start of the run.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>

#include "sim/base/config.hpp"
#include "workloads/prompt.hpp"

namespace dssim {

class RequestStream {
 public:
  virtual ~RequestStream() = default;

  // The next request, in order of arrival. False where none is known now.
  virtual bool next(Request& request) = 0;
  // No request will ever come again. Known at the latest when next() has said false.
  virtual bool exhausted() const = 0;
  // A request ended at `time_s` (calls in order of time). Only a closed loop listens.
  virtual void completed(uint64_t id, double time_s);
  // After completed(): whether somebody now asks before `expected`, the last request handed out, which has not arrived
  // yet. Then it takes that user's time of arrival. Users are alike, so requests stay numbered in order of arrival.
  virtual bool bring_forward(Request& expected);
  // Users who ask again once they are answered, so that the load follows the service; 0: arrivals do not wait.
  virtual int64_t users() const { return 0; }
  // How many requests will come in all, and for how long they arrive, where that is known beforehand (for progress).
  virtual std::optional<uint64_t> expected_requests() const { return std::nullopt; }
  virtual std::optional<double> expected_duration_s() const { return std::nullopt; }
};

// The scenario's [workload] table (docs/workloads.md lists its keys). `base_folder` is where relative `file` paths
// start.
std::unique_ptr<RequestStream> make_request_stream(const Config& workload, uint64_t seed,
                                                   const std::filesystem::path& base_folder);

}  // namespace dssim
