// SPDX-License-Identifier: Apache-2.0
#pragma once

// Requests as they arrive: traces, CSV files, Poisson, gamma, constant and closed-loop arrivals, with token lengths and the
// identity of each prompt. Streams hand out one request at a time in arrival order and keep no record of those handed out.
//
//   auto stream = make_request_stream(scenario.table("workload"), seed, scenario_folder);
//   Request r;
//   while (stream->next(r)) ...                      // open kinds: false is the end
//
// A closed loop's next request depends on answers: call completed() for every request that ends, however it ends (answered,
// rejected, timed out); where next() says false and exhausted() is false, ask again after the next completed().
// Randomness comes from named substreams of the seed ("arrivals", "input lengths", "output lengths", "lengths", "prefixes"),
// so that a change of one never shifts another. Times in seconds from the start of the run.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "sim/base/config.hpp"

namespace dssim {

// Which text a prompt is, without the text: `prefix_tokens` of a shared prefix, then a rest; prompts that agree in both ids
// are the same text. A trace that knows its blocks names them instead (Mooncake's hash_ids).
struct PromptRef {
  uint64_t prefix_id = 0;
  int64_t prefix_tokens = 0;
  uint64_t rest_id = 0;
  std::string_view trace_blocks;  // "12, 13, 14": ids of the prompt's blocks; lives as long as its stream
  int64_t trace_block_tokens = 0;
};

struct Request {
  uint64_t id = 0;  // 0, 1, 2, … in arrival order
  double arrival_s = 0;
  int64_t input_tokens = 0, output_tokens = 0;  // both ≥ 1
  PromptRef prompt;
};

// Hash of every full block of `block_tokens` of the prompt, appended: equal hashes mean the same tokens at the same place with
// the same tokens before them, which is what a prefix cache asks. Allocates nothing but the vector's growth.
void append_block_hashes(const Request& request, int64_t block_tokens, std::vector<uint64_t>& hashes);

class RequestStream {
 public:
  virtual ~RequestStream() = default;

  // The next request, in order of arrival. False where none is known now.
  virtual bool next(Request& request) = 0;
  // No request will ever come again.
  virtual bool exhausted() const = 0;
  // A request ended at `time_s` (calls in order of time). Only a closed loop listens.
  virtual void completed(uint64_t id, double time_s);
  // How many requests will come in all, and how long they arrive, where that is known beforehand (for progress).
  virtual std::optional<uint64_t> expected_requests() const { return std::nullopt; }
  virtual std::optional<double> expected_duration_s() const { return std::nullopt; }
};

// The scenario's [workload] table (docs/workloads.md lists its keys). `base_folder` is where relative `file` paths start.
std::unique_ptr<RequestStream> make_request_stream(const Config& workload, uint64_t seed,
                                                   const std::filesystem::path& base_folder);

}  // namespace dssim
