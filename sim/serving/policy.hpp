// SPDX-License-Identifier: Apache-2.0
#pragma once

// How a batch's next step is put together. A new policy is one class here and one line in the table of policy.cpp.
//
//   chunked-prefill  vLLM V1 and Sarathi-Serve: every decoding sequence, then prompt chunks, within one token budget
//   prefill-first    vLLM V0 (default) and Orca-like: whole prompts as soon as any can start, else one decode step
//   static-batch     a batch is formed when the last one is done; all its answers return together

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

class Scheduler;

class SchedulerPolicy {
 public:
  virtual ~SchedulerPolicy() = default;
  virtual void plan(Scheduler& scheduler, int batch, double now_s) const = 0;
};

std::unique_ptr<SchedulerPolicy> make_policy(std::string_view name);  // nullptr where there is none of this name
std::vector<std::string> policy_names();

}  // namespace dssim
