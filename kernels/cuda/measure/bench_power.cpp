// SPDX-License-Identifier: Apache-2.0
// power.csv: board power and SM clock in five regimes, sustained, and with several GPUs in a sixth, their all-reduce.
// power_cap.csv: kernels in a short burst, at the highest clock, and sustained, under the power cap.
// power_burst.csv: for how long a large product runs at the highest clock, after work of three kinds.
// power_recovery.csv: what decode-like work loses right after the cap, while the clock comes back.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <functional>
#include <iterator>
#include <memory>
#include <thread>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/power_load.hpp"

namespace dssim::cuda {
namespace {

constexpr double kSettle = 1.2;       // seconds; the driver's average power is over about one
constexpr double kCapped = 0.3;       // from the start of sustained work until it counts; the cap has acted by then
constexpr double kSustained = 0.4;    // that count
constexpr double kNoticeable = 1.04;  // slower than a burst: the clock has been lowered
// Of a burst: how often, and seconds of rest and of other work before it; one that lasts longer than `most` seconds counts
// as so long. After decode-like work, which dssim uses, an H100's power management acts at any time between 20 and 100 ms,
// so that takes the median of many, with less before each to keep the whole run short.
struct Repeats {
  int count;
  double pause, background, most;
};
constexpr Repeats kFew = {.count = 2, .pause = 1.0, .background = 1.5, .most = 0.9};
constexpr Repeats kMany = {.count = 15, .pause = 0.3, .background = 0.7, .most = 0.5};
constexpr int kRecoveries = 3;
constexpr double kRecoveryEdges[] = {0, 0.005, 0.01, 0.02, 0.03, 0.045, 0.06, 0.08, 0.11, 0.15, 0.2};  // seconds

using Work = std::function<void()>;

class PowerBench {
 public:
  explicit PowerBench(Bench& bench) : bench_(bench), load_(bench.meter.stream()) {
    for (cudaEvent_t& e : events_) DSSIM_CUDA(cudaEventCreate(&e));
  }
  ~PowerBench() {
    for (cudaEvent_t e : events_) cudaEventDestroy(e);
  }

  PowerLoad& load() { return load_; }

  // One row of power.csv; no work = idle.
  void regime(Table& table, const char* name, const Work& work, double seconds) {
    std::vector<double> watts, clocks;
    const double begin = now_seconds();
    double next_read = begin + kSettle;
    const auto look = [&] {
      if (now_seconds() < next_read) return;
      next_read = now_seconds() + 0.05;
      const GpuState state = bench_.nvml.read();
      watts.push_back(state.power_w);
      clocks.push_back(state.sm_clock_mhz);
    };
    if (work)
      load_.keep_busy(seconds, work, look);
    else
      for (; now_seconds() - begin < seconds; look()) pause(0.05);
    if (watts.empty()) return;
    const Reading power = summarise(watts);
    table.row(summarise(clocks), name, power.seconds, power.mad);
  }

  // One row of power_cap.csv.
  void sustained(Table& table, const char* kernel, DataType type, double flops, const Work& work) {
    pause(0.2);
    const auto burst = bench_.meter.measure([&](int, cudaStream_t) { work(); });
    if (!burst) return;
    load_.keep_busy(kCapped, work);
    // Blocks of about 5 ms between events, all queued at once.
    const int calls = std::max(1, static_cast<int>(0.005 / burst->seconds));
    const int blocks = std::min<int>(kEvents - 1, static_cast<int>(kSustained / (calls * burst->seconds)));
    DSSIM_CUDA(cudaEventRecord(events_[0], load_.stream()));
    for (int b = 0; b < blocks; ++b) {
      for (int i = 0; i < calls; ++i) work();
      DSSIM_CUDA(cudaEventRecord(events_[b + 1], load_.stream()));
    }
    DSSIM_CUDA(cudaStreamSynchronize(load_.stream()));
    std::vector<double> samples;
    for (int b = 0; b < blocks; ++b) samples.push_back(seconds_between(b, b + 1) / calls);
    Reading capped = summarise(samples);
    capped.seconds = seconds_between(0, blocks) / (blocks * calls);  // the mean: the clock goes up and down
    table.row(capped, kernel, name_of(type), flops, burst->seconds);
  }

  // One row of power_burst.csv.
  void burst(Table& table, const char* regime, const Work& background, const Gemm& product, double burst_seconds,
             const Repeats& repeats) {
    std::vector<double> lengths;
    const int calls = std::min(kEvents - 1, static_cast<int>(repeats.most / burst_seconds));
    for (int repeat = 0; repeat < repeats.count; ++repeat) {
      pause(repeats.pause);
      if (background) load_.keep_busy(repeats.background, background);
      DSSIM_CUDA(cudaEventRecord(events_[0], load_.stream()));
      for (int i = 1; i <= calls; ++i) {
        load_.product(product);
        DSSIM_CUDA(cudaEventRecord(events_[i], load_.stream()));
      }
      DSSIM_CUDA(cudaStreamSynchronize(load_.stream()));
      // The first call finds nothing in the cache; a lowered clock shows in five calls in a row.
      int slow = 0, i = 1;
      for (; i < calls && slow < 5; ++i) slow = seconds_between(i, i + 1) > kNoticeable * burst_seconds ? slow + 1 : 0;
      lengths.push_back(seconds_between(0, slow < 5 ? calls : i - 5));
    }
    table.row(summarise(lengths), regime);
  }

  // power_recovery.csv: rows at the middle of each stretch of time after the cap.
  void recovery(Table& table, const Gemm& product) {
    const auto burst = bench_.meter.measure([&](int, cudaStream_t) { load_.decode_like(); });
    if (!burst) return;
    constexpr std::size_t kStretches = std::size(kRecoveryEdges) - 1;
    std::vector<double> samples[kStretches];
    const int calls = std::min<int>(kEvents - 1, static_cast<int>(kRecoveryEdges[kStretches] / burst->seconds));
    for (int repeat = 0; repeat < kRecoveries; ++repeat) {
      pause(0.5);
      load_.keep_busy(kCapped, [&] { load_.product(product); });
      DSSIM_CUDA(cudaEventRecord(events_[0], load_.stream()));
      for (int i = 1; i <= calls; ++i) {
        load_.decode_like();
        DSSIM_CUDA(cudaEventRecord(events_[i], load_.stream()));
      }
      DSSIM_CUDA(cudaStreamSynchronize(load_.stream()));
      for (int i = 1; i <= calls; ++i) {
        const auto next = std::upper_bound(std::begin(kRecoveryEdges), std::end(kRecoveryEdges), seconds_between(0, i));
        if (next != std::end(kRecoveryEdges))
          samples[next - std::begin(kRecoveryEdges) - 1].push_back(seconds_between(i - 1, i));
      }
    }
    for (std::size_t i = 0; i < kStretches; ++i) {
      if (samples[i].empty()) continue;
      table.row(summarise(samples[i]), 0.5 * (kRecoveryEdges[i] + kRecoveryEdges[i + 1]), burst->seconds);
    }
  }

 private:
  static constexpr int kEvents = 1500;
  static void pause(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }
  double seconds_between(int from, int to) const {
    float ms = 0;
    DSSIM_CUDA(cudaEventElapsedTime(&ms, events_[from], events_[to]));
    return ms * 1e-3;
  }

  Bench& bench_;
  PowerLoad load_;
  cudaEvent_t events_[kEvents] = {};
};

void measure_regimes(Bench& bench, PowerBench& power) {
  PowerLoad& load = power.load();
  Table table = bench.profile.begin("power", "regime,power_w,power_mad_w,sm_clock_mhz,sm_clock_mad_mhz");
  const double seconds = bench.quick ? 2.0 : 3.0;
  power.regime(table, "idle", {}, seconds);
  power.regime(
      table, "memory_bound", [&] { load.memory_bound(); }, seconds);
  power.regime(
      table, "compute_bound", [&] { load.compute_bound(); }, seconds);
  power.regime(
      table, "decode_like", [&] { load.decode_like(); }, seconds);
  power.regime(
      table, "prefill_like", [&] { load.prefill_like(); }, seconds);
  if (const auto all_reduce = all_reduce_load(bench.gpu, load.stream()))
    power.regime(table, "all_reduce", all_reduce, seconds);
  bench.profile.end(table, "power", bench.notes);
}

void measure_power_cap(Bench& bench, PowerBench& power) {
  PowerLoad& load = power.load();
  Table table = bench.profile.begin("power_cap", "kernel,dtype,flops,burst_seconds,seconds,mad");
  struct Shape {
    int m, n, k;
  };
  const auto products = [&](DataType type, const std::vector<Shape>& shapes) {
    for (const Shape& s : shapes) {
      const Gemm gemm(load.context(), type, s.m, s.n, s.k, 1);
      if (gemm.algorithms() > 0)
        power.sustained(table, "gemm", type, 2.0 * s.m * s.n * s.k, [&] { load.product(gemm); });
    }
  };
  products(DataType::bf16, {{64, 28672, 4096},
                            {128, 28672, 4096},
                            {256, 6144, 4096},
                            {256, 28672, 4096},
                            {512, 6144, 4096},
                            {512, 28672, 4096},
                            {1024, 4096, 4096},
                            {1024, 28672, 4096},
                            {2048, 6144, 4096},
                            {2048, 28672, 4096},
                            {4096, 4096, 14336},
                            {4096, 28672, 4096},
                            {8192, 8192, 8192}});
  power.sustained(table, "decode_like", DataType::bf16, 0, [&] { load.decode_like(); });
  for (const auto& [tokens, past] : {std::pair{512, 0}, {512, 2048}, {2048, 0}, {2048, 6144}, {4096, 0}, {8192, 0}})
    power.sustained(table, "prefill_attention", DataType::bf16, 4.0 * tokens * (past + 0.5 * tokens) * 32 * 128,
                    [&, t = tokens, p = past] { load.prefill_attention(t, p); });
  if (bench.gpu.has_fp8()) {
    load.fill(DataType::fp8);
    products(DataType::fp8, {{256, 28672, 4096}, {1024, 28672, 4096}, {4096, 4096, 14336}, {8192, 8192, 8192}});
    load.fill(DataType::bf16);
  }
  table.finish();

  const Gemm product(load.context(), DataType::bf16, 2048, 28672, 4096, 1);
  Table bursts = bench.profile.begin("power_burst", "regime,seconds,mad");
  if (const auto burst = bench.meter.measure([&](int, cudaStream_t) { load.product(product); })) {
    power.burst(bursts, "idle", {}, product, burst->seconds, kFew);
    power.burst(
        bursts, "memory_bound", [&] { load.memory_bound(); }, product, burst->seconds, kFew);
    power.burst(
        bursts, "decode_like", [&] { load.decode_like(); }, product, burst->seconds, kMany);
  }
  bursts.finish();

  Table recovery = bench.profile.begin("power_recovery", "after,burst_seconds,seconds,mad");
  power.recovery(recovery, product);
  recovery.finish();
  bench.profile.end(table, "power_cap", bench.notes);
}

}  // namespace

void measure_power(Bench& bench) {
  if (!bench.nvml.available()) {
    std::fprintf(stderr, "note: no libnvidia-ml.so.1: power not measured\n");
    return;
  }
  PowerBench power(bench);
  if (!bench.quick) measure_power_cap(bench, power);
  measure_regimes(bench, power);
}

}  // namespace dssim::cuda
