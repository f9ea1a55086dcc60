// SPDX-License-Identifier: Apache-2.0
#include "sim/results/serving_summary.hpp"

#include <algorithm>

namespace dssim {

void ServingSummary::offered(double arrival_s) {
  if (offered_++ == 0) first_arrival_s_ = arrival_s;
  last_arrival_s_ = std::max(last_arrival_s_, arrival_s);
}

void ServingSummary::finished(const RequestRecord& record) {
  if (record.outcome == Outcome::rejected) {
    ++rejected_;
    return;
  }
  if (record.outcome == Outcome::timed_out) {
    ++timed_out_;
    return;
  }
  ++completed_;
  last_done_s_ = std::max(last_done_s_, record.done_s);
  input_tokens_ += static_cast<double>(record.input_tokens);
  output_tokens_ += static_cast<double>(record.output_tokens);
  cached_tokens_ += static_cast<double>(record.cached_tokens);
  preempted_ += record.preemptions > 0 ? 1 : 0;
  preemptions_ += record.preemptions;
  ttft_.add(record.ttft_s());
  e2e_.add(record.e2e_s());
  queue_.add(record.queue_s());
  if (record.output_tokens > 1) tpot_.add(record.tpot_s());
  const bool slow = (objective_.ttft_p99_s && record.ttft_s() > *objective_.ttft_p99_s) ||
                    (objective_.tpot_p99_s && record.output_tokens > 1 && record.tpot_s() > *objective_.tpot_p99_s) ||
                    (objective_.e2e_p99_s && record.e2e_s() > *objective_.e2e_p99_s);
  good_ += slow ? 0 : 1;
}

bool ServingSummary::objective_met() const {
  return !(objective_.ttft_p99_s && ttft_.quantile(0.99) > *objective_.ttft_p99_s) &&
         !(objective_.tpot_p99_s && tpot_.quantile(0.99) > *objective_.tpot_p99_s) &&
         !(objective_.e2e_p99_s && e2e_.quantile(0.99) > *objective_.e2e_p99_s);
}

}  // namespace dssim
