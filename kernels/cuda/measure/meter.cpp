// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/meter.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <thread>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr int kBatch = 6;  // samples between two looks at the precision, fewer where that takes longer than
constexpr double kLongestBatch = 0.02;  // seconds, a burst that the GPU's power management does not notice
constexpr std::size_t kFewestSamples = 3;
constexpr int kMostBatches = 5;
constexpr double kStatePeriod = 0.05;  // seconds between looks at the clocks, which cost time themselves
constexpr int kAttempts = 3;
constexpr double kAveraging = 0.045;  // seconds
constexpr double kMostBusy = 0.65;    // of the time, on that average: 600 W of 700 on an H100, where it idles between

constexpr double kChoosing = 1e-4;  // seconds of launches in each of two rounds to compare variants by
constexpr double kLong = 5e-5;      // a kernel so long starts on an idle GPU at no loss worth a launch before it
constexpr double kClearlyFaster = 0.98;

struct Stopwatch {
  Stopwatch() {
    DSSIM_CUDA(cudaEventCreate(&start));
    DSSIM_CUDA(cudaEventCreate(&stop));
  }
  ~Stopwatch() {
    cudaEventDestroy(start);
    cudaEventDestroy(stop);
  }
  cudaEvent_t start = nullptr, stop = nullptr;
};

double elapsed_seconds(cudaEvent_t from, cudaEvent_t to) {
  float milliseconds = 0.0f;
  DSSIM_CUDA(cudaEventElapsedTime(&milliseconds, from, to));
  return milliseconds * 1e-3;
}

}  // namespace

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Reading summarise(std::vector<double> samples) {
  auto median = [](std::vector<double>& x) {
    std::sort(x.begin(), x.end());
    std::size_t n = x.size();
    return n % 2 == 1 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
  };
  Reading reading;
  reading.seconds = median(samples);
  for (double& x : samples) x = std::abs(x - reading.seconds);
  reading.mad = median(samples);
  return reading;
}

void RestKeeper::pass(double busy_s) {
  double now = now_seconds();
  average_ *= std::exp(-std::max(0.0, now - at_s_ - busy_s) / kAveraging);
  average_ = 1.0 - (1.0 - average_) * std::exp(-busy_s / kAveraging);
  at_s_ = now;
}

void RestKeeper::before(double busy_s) {
  pass(0.0);
  // Working for busy_s leads from an average a to 1 - (1 - a) exp(-busy_s / averaging).
  double allowed = std::max(0.05, 1.0 - (1.0 - kMostBusy) * std::exp(busy_s / kAveraging));
  if (average_ <= allowed) return;
  std::this_thread::sleep_for(std::chrono::duration<double>(kAveraging * std::log(average_ / allowed)));
  pass(0.0);
}

int fastest(int count, const std::function<void(int, int, cudaStream_t)>& call, cudaStream_t stream, RestKeeper& rest) {
  if (count <= 1) return 0;
  const Stopwatch watch;
  int set = 0;  // each launch finds other inputs, none of them in the cache
  auto timed = [&](int variant, int calls) {
    DSSIM_CUDA(cudaEventRecord(watch.start, stream));
    for (int i = 0; i < calls; ++i) call(variant, set++, stream);
    DSSIM_CUDA(cudaEventRecord(watch.stop, stream));
    DSSIM_CUDA(cudaEventSynchronize(watch.stop));
    return elapsed_seconds(watch.start, watch.stop) / calls;
  };
  call(0, set++, stream);
  const double estimate = std::max(1e-6, timed(0, 1));
  const int calls = static_cast<int>(std::clamp(kChoosing / estimate, 1.0, 8.0)), before = estimate < kLong ? 1 : 0;
  std::vector<double> seconds(static_cast<std::size_t>(count), 1e9);
  for (int round = 0; round < 2; ++round) {
    const double busy_s = count * (calls + before) * estimate;
    rest.before(busy_s);
    for (int v = 0; v < count; ++v) {
      if (before > 0) call(v, set++, stream);
      double& best = seconds[static_cast<std::size_t>(v)];
      best = std::min(best, timed(v, calls));
    }
    rest.after(busy_s);
  }
  int best = 0;
  for (int v = 1; v < count; ++v) {
    if (seconds[static_cast<std::size_t>(v)] < kClearlyFaster * seconds[static_cast<std::size_t>(best)]) best = v;
  }
  return best;
}

Meter::Meter(const Nvml& nvml, double precision, double sample_seconds)
    : nvml_(nvml), precision_(precision), sample_seconds_(sample_seconds) {
  int device = 0;
  int l2 = 0;
  DSSIM_CUDA(cudaGetDevice(&device));
  DSSIM_CUDA(cudaDeviceGetAttribute(&l2, cudaDevAttrL2CacheSize, device));
  l2_bytes_ = l2;
  DSSIM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  events_.resize(64);
  for (cudaEvent_t& event : events_) DSSIM_CUDA(cudaEventCreate(&event));
}

Meter::~Meter() {
  for (cudaEvent_t event : events_) cudaEventDestroy(event);
  cudaStreamDestroy(stream_);
}

GpuState Meter::state() {
  double now = now_seconds();
  if (now - last_state_time_ < kStatePeriod) return last_state_;
  last_state_time_ = now;
  last_state_ = nvml_.read();
  if (last_state_.sm_clock_mhz > 0) statistics_.sm_clocks_mhz.push_back(last_state_.sm_clock_mhz);
  return last_state_;
}

bool Meter::precise(const std::vector<double>& samples) const {
  // For normal samples the median's standard error is 1.25 sigma / sqrt(n), and sigma = 1.48 mad.
  Reading r = summarise(samples);
  return 1.25 * 1.48 * r.mad / std::sqrt(static_cast<double>(samples.size())) <= precision_ * r.seconds;
}

Reading Meter::replay(cudaGraphExec_t graph, int calls, double estimate) {
  std::vector<double> samples;
  const double each = estimate * calls;
  const int launches = static_cast<int>(std::clamp(kLongestBatch / each, 2.0, static_cast<double>(kBatch)));
  for (int batch = 0; batch < kMostBatches; ++batch) {
    rest_.before(launches * each);
    DSSIM_CUDA(cudaEventRecord(events_[0], stream_));
    for (int i = 0; i < launches; ++i) {
      DSSIM_CUDA(cudaGraphLaunch(graph, stream_));
      DSSIM_CUDA(cudaEventRecord(events_[i + 1], stream_));
    }
    DSSIM_CUDA(cudaEventSynchronize(events_[launches]));
    rest_.after(elapsed_seconds(events_[0], events_[launches]));
    // The first replay of a batch starts on an idle GPU, so it warms up only.
    for (int i = 1; i < launches; ++i) samples.push_back(elapsed_seconds(events_[i], events_[i + 1]) / calls);
    if (samples.size() >= kFewestSamples && precise(samples)) break;
  }
  return summarise(samples);
}

int Meter::calls_past_l2(double bytes) const {
  return static_cast<int>(std::clamp(std::ceil(2.0 * static_cast<double>(l2_bytes_) / bytes), 1.0, 1.0 * kMostCalls));
}

std::optional<Reading> Meter::measure(const Call& call, int least_calls) {
  rest_.before(0.0);
  call(0, stream_);
  DSSIM_CUDA(cudaEventRecord(events_[0], stream_));
  call(1, stream_);
  DSSIM_CUDA(cudaEventRecord(events_[1], stream_));
  DSSIM_CUDA(cudaEventSynchronize(events_[1]));
  double estimate = std::max(1e-7, elapsed_seconds(events_[0], events_[1]));
  rest_.after(2.0 * estimate);
  const double turns = std::ceil(sample_seconds_ / estimate / least_calls);
  const int count = least_calls * static_cast<int>(std::clamp(turns, 1.0, std::floor(1.0 * kMostCalls / least_calls)));

  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  DSSIM_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < count; ++i) call(i, stream_);
  DSSIM_CUDA(cudaStreamEndCapture(stream_, &graph));
  DSSIM_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  std::optional<Reading> reading;
  for (int attempt = 0; attempt < kAttempts && !reading; ++attempt) {
    Reading r = replay(executable, count, estimate);
    GpuState now = state();
    if (now.throttled()) {
      ++statistics_.retried;
      std::this_thread::sleep_for(std::chrono::seconds(1));
      last_state_time_ = -1.0;
      continue;
    }
    if (now.power_capped()) ++statistics_.power_capped;
    reading = r;
  }
  DSSIM_CUDA(cudaGraphExecDestroy(executable));
  DSSIM_CUDA(cudaGraphDestroy(graph));
  ++(reading ? statistics_.readings : statistics_.dropped);
  return reading;
}

std::optional<Reading> Meter::measure_host(const std::function<double()>& sample, int most) {
  std::vector<double> samples;
  sample();
  for (int i = 0; i < most && (i < 5 || !precise(samples)); ++i) samples.push_back(sample());
  if (state().throttled()) {
    ++statistics_.dropped;
    return std::nullopt;
  }
  ++statistics_.readings;
  return summarise(samples);
}

}  // namespace dssim::cuda
