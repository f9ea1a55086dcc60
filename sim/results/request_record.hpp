// SPDX-License-Identifier: Apache-2.0
#pragma once

// What became of one request. Times are seconds on the simulation's clock; arrival is when the client sent it.

#include <cstdint>

namespace dssim {

enum class Outcome : uint8_t { completed, rejected, timed_out };

struct RequestRecord {
  uint64_t id = 0;
  double arrival_s = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  Outcome outcome = Outcome::completed;
  // The rest holds for completed requests.
  double queued_s = 0;       // when the scheduler learned of it: arrival and the front end's latency
  double scheduled_s = 0;    // start of the first iteration that worked on it
  double first_token_s = 0;  // end of the iteration that yielded its first token
  double done_s = 0;
  int64_t cached_tokens = 0;  // prompt tokens found in the prefix cache when it was first scheduled
  uint32_t preemptions = 0;
  uint32_t replica = 0;

  double ttft_s() const { return first_token_s - arrival_s; }
  double e2e_s() const { return done_s - arrival_s; }
  double queue_s() const { return scheduled_s - queued_s; }
  // Time per output token after the first: (done − first token) / (output − 1). Only where output > 1.
  double tpot_s() const { return (done_s - first_token_s) / static_cast<double>(output_tokens - 1); }
};

}  // namespace dssim
