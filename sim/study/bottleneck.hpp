// SPDX-License-Identifier: Apache-2.0
#pragma once

// What limits a serving run, in words, from the run's own figures: is work queueing, and for what; which class of
// operators takes the GPU's time; and is that class held back by memory bandwidth, compute, links or the host.
//
// Rules, in this order (the evidence lists the figures each rests on):
//   1. The front end's thread is at work on tokens more of the time than the GPUs are, and most of it → the front end.
//   2. Requests queue for KV blocks (blocks in use ≥ 90 % on average, or preemptions) → KV cache capacity.
//   3. Requests queue for sequence slots (mean decode batch ≥ 90 % of max_sequences) → the sequence limit.
//   4. Activations take longer between two pipeline stages than a stage takes → the links between stages.
//   5. The class with the largest share of step time: all-reduce, host, or GPU work; GPU work is bound by memory
//      bandwidth where decoding takes more of it than prefill (by compute if the decode step comes closer to the matrix
//      rate), by compute in prefill otherwise.
//   Refused and timed-out requests are evidence of overload whatever limits.
//   "Queueing" is a mean queue time above both 10 % of the mean end-to-end latency and one mean step.

#include "sim/results/serving_report.hpp"

namespace dssim {

struct BottleneckInput {
  const ServingSummary& summary;
  const std::array<double, kOperatorClasses>& breakdown;
  const Utilisation& utilisation;
  int64_t max_sequences = 0;
  int64_t stages = 1;
  double mean_step_s = 0;        // all stages together
  double mean_hand_over_s = 0;   // of a step, between all stages together
  double frontend_share = 0;     // of the makespan, its thread at work on tokens to send
  double decode_only_share = 0;  // of step time, spent in steps without prefill
  double gpu_bytes_per_s = 0;
};

Bottleneck find_bottleneck(const BottleneckInput& input);

}  // namespace dssim
