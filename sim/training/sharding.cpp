// SPDX-License-Identifier: Apache-2.0
#include "sim/training/sharding.hpp"

#include <algorithm>

namespace dssim {

CompressedGradient compressed_gradient(const TrainingJob& job) {
  const double g = bytes_of(job.gradient_precision);
  switch (job.compression) {
    case GradientCompression::none:
      return {g, 0, 0};
    case GradientCompression::four_bit:
      // Encoding reads the gradient and its error, writes code and error; decoding reads the code and writes the
      // gradient.
      return {0.5 + 2.0 / 64, 4 * g + 2 * 0.5, 4};
    case GradientCompression::powersgd: {
      const double r = job.powersgd_rank;
      const double side = static_cast<double>(std::max<int64_t>(1, job.model.hidden));
      const double other = static_cast<double>(std::max(job.model.hidden, job.model.ffn));
      // P = M Q, orthogonalise, Q = Mᵀ P, M ≈ P Qᵀ, and the error: three products of 2 r each, the gradient read or
      // written 5 times.
      return {g * r * (side + other) / (side * other), 5 * g, 6 * r};
    }
  }
  return {g, 0, 0};
}

std::vector<Exchange> step_exchanges(const TrainingJob& job, double shared, double experts) {
  std::vector<Exchange> list;
  const auto compressed = compressed_gradient(job);
  const double p = job.parameter_bytes(), g = bytes_of(job.gradient_precision);
  const auto add = [&](double parameters, int ranks, bool of_experts) {
    if (parameters <= 0 || ranks <= 1) return;
    switch (job.sharding) {
      case Sharding::none:
        list.push_back({CollectiveKind::all_reduce, ExchangePhase::backward, parameters * compressed.wire_bytes, ranks,
                        of_experts});
        break;
      case Sharding::zero1:
      case Sharding::zero2: {
        const auto when = job.sharding == Sharding::zero1 ? ExchangePhase::backward : ExchangePhase::each_backward;
        list.push_back({CollectiveKind::reduce_scatter, when, parameters * compressed.wire_bytes, ranks, of_experts});
        list.push_back({CollectiveKind::all_gather, ExchangePhase::parameters, parameters * p, ranks, of_experts});
        break;
      }
      case Sharding::zero3:
        list.push_back({CollectiveKind::all_gather, ExchangePhase::each_forward, parameters * p, ranks, of_experts});
        list.push_back({CollectiveKind::all_gather, ExchangePhase::each_backward, parameters * p, ranks, of_experts});
        list.push_back(
            {CollectiveKind::reduce_scatter, ExchangePhase::each_backward, parameters * g, ranks, of_experts});
        break;
    }
  };
  add(shared, job.gradient_ranks(), false);
  add(experts, job.gradient_ranks() / job.expert_parallel, true);
  return list;
}

double bytes_sent(const std::vector<Exchange>& exchanges, int64_t micro_batches) {
  double sum = 0;
  for (const auto& e : exchanges) {
    const bool each = e.phase == ExchangePhase::each_forward || e.phase == ExchangePhase::each_backward;
    sum += e.bytes * bus_bandwidth_factor(e.kind, e.ranks) * (each ? static_cast<double>(micro_batches) : 1.0);
  }
  return sum;
}

}  // namespace dssim
