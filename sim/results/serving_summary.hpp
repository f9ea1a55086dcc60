// SPDX-License-Identifier: Apache-2.0
#pragma once

// Request records in, the figures of a serving run out, in memory that does not grow with the number of requests.
//
// Conservation: offered = completed + rejected + unfinished. A request that its client gave up on counts as rejected,
// and as timed out besides. Rates are over the makespan, from the first arrival to the last completion.

#include <cstdint>
#include <optional>

#include "sim/base/quantiles.hpp"
#include "sim/results/request_record.hpp"

namespace dssim {

// Limits that a completed request must keep to count as goodput; absent = no limit. The names are those of the
// scenario: the percentile itself is judged on the whole run.
struct ServiceObjective {
  std::optional<double> ttft_p99_s, tpot_p99_s, e2e_p99_s;
  bool any() const { return ttft_p99_s || tpot_p99_s || e2e_p99_s; }
};

class ServingSummary {
 public:
  explicit ServingSummary(ServiceObjective objective = {}) : objective_(objective) {}

  void offered(double arrival_s);
  void finished(const RequestRecord& record);

  uint64_t offered_count() const { return offered_; }
  // Requests a second between the first and the last arrival; 0 where all came at once.
  double offered_per_s() const {
    const double span_s = last_arrival_s_ - first_arrival_s_;
    return span_s > 0 ? static_cast<double>(offered_ - 1) / span_s : 0;
  }
  uint64_t completed() const { return completed_; }
  uint64_t rejected() const { return rejected_ + timed_out_; }
  uint64_t timed_out() const { return timed_out_; }
  uint64_t unfinished() const { return offered_ - completed() - rejected(); }
  uint64_t preempted() const { return preempted_; }      // completed requests that were preempted at least once
  uint64_t preemptions() const { return preemptions_; }  // how often, in all
  const Quantiles& ttft() const { return ttft_; }
  const Quantiles& tpot() const { return tpot_; }
  const Quantiles& e2e() const { return e2e_; }
  const Quantiles& queue() const { return queue_; }
  double makespan_s() const { return completed_ == 0 ? 0 : last_done_s_ - first_arrival_s_; }
  double input_tokens() const { return input_tokens_; }    // of completed requests
  double output_tokens() const { return output_tokens_; }  // of completed requests
  double cached_tokens() const { return cached_tokens_; }
  // Completed requests that kept every limit.
  uint64_t good() const { return good_; }
  const ServiceObjective& objective() const { return objective_; }
  // Whether the run's percentiles keep the objective.
  bool objective_met() const;

 private:
  ServiceObjective objective_;
  uint64_t offered_ = 0, completed_ = 0, rejected_ = 0, timed_out_ = 0, preempted_ = 0, preemptions_ = 0, good_ = 0;
  double first_arrival_s_ = 0, last_arrival_s_ = 0, last_done_s_ = 0;
  double input_tokens_ = 0, output_tokens_ = 0, cached_tokens_ = 0;
  Quantiles ttft_, tpot_, e2e_, queue_;
};

}  // namespace dssim
