// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/policy.hpp"

#include "sim/serving/scheduler.hpp"

namespace dssim {
namespace {

class ChunkedPrefill : public SchedulerPolicy {
 public:
  void plan(Scheduler& scheduler, int batch, double now_s) const override {
    int64_t budget = scheduler.limits().max_batched_tokens - scheduler.decoding(batch);
    bool preempted = scheduler.decode(batch);
    preempted |= scheduler.continue_prefills(batch, budget);
    if (!preempted) scheduler.admit(batch, budget, false, now_s);
  }
};

class PrefillFirst : public SchedulerPolicy {
 public:
  void plan(Scheduler& scheduler, int batch, double now_s) const override {
    int64_t budget = scheduler.limits().max_batched_tokens;
    scheduler.continue_prefills(batch, budget);
    scheduler.admit(batch, budget, true, now_s);
    if (budget == scheduler.limits().max_batched_tokens) scheduler.decode(batch);
  }
};

class StaticBatch : public SchedulerPolicy {
 public:
  void plan(Scheduler& scheduler, int batch, double now_s) const override {
    scheduler.answer_together();
    if (!scheduler.has_running(batch)) scheduler.admit_static(batch, now_s);
    int64_t budget = scheduler.limits().max_batched_tokens;
    scheduler.continue_prefills(batch, budget);
    if (budget == scheduler.limits().max_batched_tokens) scheduler.decode(batch);
  }
};

template <typename Policy>
std::unique_ptr<SchedulerPolicy> make() {
  return std::make_unique<Policy>();
}

struct Registered {
  std::string_view name;
  std::unique_ptr<SchedulerPolicy> (*create)();
};
constexpr Registered kPolicies[] = {{"chunked-prefill", make<ChunkedPrefill>},
                                    {"prefill-first", make<PrefillFirst>},
                                    {"static-batch", make<StaticBatch>}};

}  // namespace

std::unique_ptr<SchedulerPolicy> make_policy(std::string_view name) {
  for (const auto& policy : kPolicies)
    if (policy.name == name) return policy.create();
  return nullptr;
}

std::vector<std::string> policy_names() {
  std::vector<std::string> names;
  for (const auto& policy : kPolicies) names.emplace_back(policy.name);
  return names;
}

}  // namespace dssim
