// SPDX-License-Identifier: Apache-2.0
#pragma once

// Everything a serving run, a step query or a memory fit found out, as plain data for the printers of sim/report. SI
// units.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/results/serving_summary.hpp"
#include "workloads/memory_plan.hpp"
#include "workloads/step_model.hpp"

namespace dssim {

// What was asked, in the words a reader needs to recognise it.
struct Setup {
  std::string scenario, title;
  uint64_t seed = 0;
  std::string model;       // "Llama 3 8B, bf16 weights, bf16 KV cache"
  std::string hardware;    // "1 of 8 × NVIDIA H100 SXM5 80 GB (dgx-h100)"
  std::string deployment;  // "1 replica, tensor-parallel 1, chunked-prefill"
  std::string stack;       // "vllm-0.14"
};

struct FitReport {
  Setup setup;
  MemoryPlan memory;
  Deployment deployment;
  int64_t context_tokens = 0;  // what has to fit at least
  int64_t model_positions = 0;
  std::vector<std::string> remedies;  // where it does not fit
  std::optional<double> load_s;  // from the cluster's storage to the GPUs, cold; where the scenario names a storage
};

// How far the run's GPU time rests on measurements of this very GPU and stack: shares of time, summing to 1.
struct Trust {
  double inside = 0, edge = 0, outside = 0;
  std::vector<std::string> sources;
  // What the profile's kernel times are off by on shapes that are in no table: the operators' figures weighted by their
  // shares of GPU time. Absent where the profile was not judged, or was measured on another GPU.
  struct KernelError {
    double median = 0, p90 = 0;
    double share = 0;  // of the GPU time, in operators that were judged
  };
  std::optional<KernelError> kernel_error = {};
};

// What limits the run, in words, with the figures that say so.
struct Bottleneck {
  std::string name;  // "memory bandwidth in decode"
  std::vector<std::string> evidence;
};

struct Utilisation {
  double gpu = 0;       // share of the makespan in which a replica was inside a step
  double kv_cache = 0;  // mean share of KV blocks held, over the time in steps
  double kv_cache_peak = 0;
  double memory_bandwidth = 0;  // of the mean decode step: bytes that must move ÷ time ÷ the GPU's bandwidth
  double compute = 0;           // of the mean decode step: FLOPs ÷ time ÷ the matrix rate
  double mean_decode_sequences = 0;
  double prefill_tokens = 0;  // processed in all, those recomputed after preemptions included
};

struct ServingReport {
  FitReport fit;
  ServingSummary summary;
  std::array<double, kOperatorClasses>
      breakdown{};  // share of step time by operator class, host time included; sums to 1
  Utilisation utilisation;
  Bottleneck bottleneck;
  Trust trust;
  std::vector<std::string> notes;  // what a reader should know before believing the figures
  uint64_t steps = 0, flows = 0;
  double capital_usd = 0;  // 0 where no price is known
  double power_w = 0;      // the most the nodes draw; 0 where unknown
  double simulated_s = 0, wall_s = 0;
  bool partial = false;  // stopped before the last request ended
  int64_t users = 0;     // who ask again once they are answered; 0: arrivals did not wait for answers
};

struct StepReport {
  Setup setup;
  std::string shape;  // "decode of 64 sequences at 1024 KV tokens"
  StepPrice price;
  std::vector<OperatorPrice> operators;
  std::array<double, kOperatorClasses> breakdown{};
  Trust trust;
  double flops_per_s = 0, bytes_per_s = 0;  // achieved, of the operators whose work is counted
  double peak_flops_per_s = 0, peak_bytes_per_s = 0;
};

}  // namespace dssim
