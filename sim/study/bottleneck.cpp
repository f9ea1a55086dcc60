// SPDX-License-Identifier: Apache-2.0
#include "sim/study/bottleneck.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace dssim {
namespace {

double share(const BottleneckInput& in, OperatorClass c) {
  return in.breakdown[static_cast<size_t>(c)];
}

std::string percent(double ratio) {
  return fmt::format("{:.0f} %", 100 * ratio);
}

void add_decode_evidence(const BottleneckInput& in, Bottleneck& found) {
  const Utilisation& u = in.utilisation;
  if (u.mean_decode_sequences == 0) return;
  found.evidence.push_back(fmt::format("the mean decode step ({:.0f} sequence{}) moves {}, {} of the GPU's {}",
                                       u.mean_decode_sequences, u.mean_decode_sequences < 1.5 ? "" : "s",
                                       format_bandwidth(u.memory_bandwidth * in.gpu_bytes_per_s),
                                       percent(u.memory_bandwidth), format_bandwidth(in.gpu_bytes_per_s)));
}

void add_overload_evidence(const BottleneckInput& in, Bottleneck& found) {
  const uint64_t timed_out = in.summary.timed_out(), refused = in.summary.rejected() - timed_out;
  if (in.summary.rejected() == 0) return;
  const double offered = static_cast<double>(in.summary.offered_count());
  std::string lost;
  if (timed_out > 0) lost = fmt::format("{} of requests time out", percent(static_cast<double>(timed_out) / offered));
  if (refused > 0)
    lost += fmt::format("{}{} {}", lost.empty() ? "" : ", ", percent(static_cast<double>(refused) / offered),
                        lost.empty() ? "of requests are refused" : "are refused");
  found.evidence.push_back(lost);
}

void add_hand_over_evidence(const BottleneckInput& in, Bottleneck& found) {
  if (in.stages > 1)
    found.evidence.push_back(fmt::format("a step takes {} in its {} stages and {} on the links between them",
                                         format_time(in.mean_step_s), in.stages, format_time(in.mean_hand_over_s)));
}

std::string gpu_work_name(const BottleneckInput& in) {
  if (in.utilisation.mean_decode_sequences == 0) return "compute in prefill";
  const double decode = in.decode_only_share;
  if (decode >= 0.5)
    return in.utilisation.compute > in.utilisation.memory_bandwidth ? "compute in decode"
                                                                    : "memory bandwidth in decode";
  return "compute in prefill";
}

}  // namespace

Bottleneck find_bottleneck(const BottleneckInput& in) {
  Bottleneck found;
  if (in.summary.completed() == 0) {
    found.name = "nothing completed";
    return found;
  }
  const double queue_s = in.summary.queue().mean(), e2e_s = in.summary.e2e().mean();
  const bool queueing = queue_s > 0.1 * e2e_s && queue_s > in.mean_step_s;
  if (queueing)
    found.evidence.push_back(fmt::format("requests wait {} in the queue on average, {} of their latency",
                                         format_time(queue_s), percent(queue_s / e2e_s)));
  add_overload_evidence(in, found);
  if (in.frontend_share > std::max(0.5, in.utilisation.gpu)) {
    found.name = "front end";
    found.evidence.push_back(
        fmt::format("its one thread is at work on tokens {} of the time, the GPUs {}; more replicas would share it",
                    percent(in.frontend_share), percent(in.utilisation.gpu)));
    return found;
  }
  if (queueing && (in.utilisation.kv_cache >= 0.9 || in.summary.preemptions() > 0)) {
    found.name = "KV cache capacity";
    found.evidence.push_back(fmt::format("{} of the KV blocks are in use on average; {} preemptions",
                                         percent(in.utilisation.kv_cache), in.summary.preemptions()));
    add_decode_evidence(in, found);
    return found;
  }
  if (queueing && in.utilisation.mean_decode_sequences >= 0.9 * static_cast<double>(in.max_sequences)) {
    found.name = "sequence limit (max_sequences)";
    found.evidence.push_back(fmt::format("{:.0f} of at most {} sequences decode on average",
                                         in.utilisation.mean_decode_sequences, in.max_sequences));
    add_decode_evidence(in, found);
    return found;
  }
  add_hand_over_evidence(in, found);
  const auto stages = static_cast<double>(in.stages);
  const double reduce = share(in, OperatorClass::all_reduce), host = share(in, OperatorClass::host);
  const double gpu_work = 1 - reduce - host;
  if (in.stages > 1 && in.mean_hand_over_s / (stages - 1) > in.mean_step_s / stages) {
    found.name = "links between pipeline stages";
  } else if (reduce > gpu_work && reduce >= host) {
    found.name = "all-reduce between tensor-parallel GPUs";
    found.evidence.push_back(fmt::format("all-reduce takes {} of step time", percent(reduce)));
  } else if (host > gpu_work) {
    found.name = "host (scheduling and launches)";
    found.evidence.push_back(fmt::format("the GPU waits for the host during {} of step time", percent(host)));
  } else {
    found.name = gpu_work_name(in);
    found.evidence.push_back(
        fmt::format("{} of step time is pure decode; {} prefill attention, {} decode attention, {} matrix products",
                    percent(in.decode_only_share), percent(share(in, OperatorClass::prefill_attention)),
                    percent(share(in, OperatorClass::decode_attention)),
                    percent(share(in, OperatorClass::matmul) + share(in, OperatorClass::moe))));
    add_decode_evidence(in, found);
  }
  if (!queueing && in.summary.rejected() == 0)
    found.evidence.push_back(
        fmt::format("requests hardly wait; replicas are at work {} of the time", percent(in.utilisation.gpu)));
  return found;
}

}  // namespace dssim
