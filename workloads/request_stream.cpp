// SPDX-License-Identifier: Apache-2.0
#include "workloads/request_stream.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <queue>
#include <vector>

#include "sim/base/names.hpp"
#include "sim/base/random.hpp"
#include "workloads/trace.hpp"

namespace dssim {
namespace {

// When a stream ends: after so many requests or at a time, whichever comes first. Either may be absent.
struct Limits {
  uint64_t requests = std::numeric_limits<uint64_t>::max();
  double duration_s = std::numeric_limits<double>::infinity();

  std::optional<uint64_t> known_requests() const {
    return requests == std::numeric_limits<uint64_t>::max() ? std::nullopt : std::optional(requests);
  }
  std::optional<double> known_duration_s() const {
    return std::isinf(duration_s) ? std::nullopt : std::optional(duration_s);
  }
};

Limits read_limits(const Config& workload, bool required) {
  Limits limits;
  if (const auto requests = workload.find_integer("requests", {1, 1'000'000'000'000}))
    limits.requests = static_cast<uint64_t>(*requests);
  if (const auto duration = workload.find_quantity("duration", Dimension::time)) {
    if (*duration <= 0) throw workload.error("duration", "must be longer than nothing");
    limits.duration_s = *duration;
  }
  if (required && !limits.known_requests() && !limits.known_duration_s())
    throw workload.error("requests", "is missing; say how many requests, or duration = \"10 min\"");
  return limits;
}

std::optional<double> find_rate(const Config& workload) {
  const auto rate = workload.find_quantity("rate", Dimension::rate);
  if (rate && !(*rate >= 1e-9 && *rate <= 1e9)) throw workload.error("rate", "must lie between 1e-9/s and 1e9/s");
  return rate;
}

double read_rate(const Config& workload) {
  if (const auto rate = find_rate(workload)) return *rate;
  throw workload.error("rate", "is missing; say how many requests arrive, e.g. rate = \"4/s\"");
}

// Where arrivals come from: times, and in a trace lengths and blocks too.
class Arrivals {
 public:
  virtual ~Arrivals() = default;
  virtual bool next(Request& request) = 0;
};

class ConstantArrivals : public Arrivals {
 public:
  explicit ConstantArrivals(double rate_per_s) : rate_per_s_(rate_per_s) {}
  bool next(Request& request) override {
    request.arrival_s = static_cast<double>(request.id) / rate_per_s_;
    return true;
  }

 private:
  double rate_per_s_;
};

// Gaps of a gamma distribution with mean 1/rate and shape `burstiness`: coefficient of variation 1/√burstiness, so 1 is
// Poisson and less is burstier (the meaning of vLLM's benchmark option).
class GammaArrivals : public Arrivals {
 public:
  GammaArrivals(double rate_per_s, double burstiness, uint64_t seed)
      : random_(seed, "arrivals"), burstiness_(burstiness), mean_s_(1 / rate_per_s) {}
  bool next(Request& request) override {
    now_s_ += burstiness_ == 1 ? random_.exponential(mean_s_) : random_.gamma(burstiness_, mean_s_ / burstiness_);
    request.arrival_s = now_s_;
    return true;
  }

 private:
  RandomStream random_;
  double burstiness_, mean_s_, now_s_ = 0;
};

void take_row(const TraceRow& row, double scale, Request& request) {
  request.arrival_s = row.arrival_s * scale;
  request.input_tokens = row.input_tokens;
  request.output_tokens = row.output_tokens;
  request.prompt.trace_blocks = row.blocks;
  request.prompt.trace_block_tokens = row.blocks.empty() ? 0 : kMooncakeBlockTokens;
}

// A trace of the catalogue, read as it is needed.
class TraceArrivals : public Arrivals {
 public:
  TraceArrivals(const std::filesystem::path& file, double scale) : reader_(open_trace(file)), scale_(scale) {}
  bool next(Request& request) override {
    const double previous_s = row_.arrival_s;
    if (!reader_->next(row_)) return false;
    if (row_.arrival_s < previous_s)
      throw bad_input(fmt::format("{}: arrives before the row above it; sort the trace", reader_->where()));
    take_row(row_, scale_, request);
    return true;
  }

 private:
  std::unique_ptr<TraceReader> reader_;
  double scale_;
  TraceRow row_;
};

// A user's file, read and sorted at the start.
class FileArrivals : public Arrivals {
 public:
  FileArrivals(LoadedTrace trace, double scale) : trace_(std::move(trace)), scale_(scale) {}
  bool next(Request& request) override {
    if (position_ == trace_.rows.size()) return false;
    take_row(trace_.rows[position_++], scale_, request);
    return true;
  }

 private:
  LoadedTrace trace_;
  double scale_;
  size_t position_ = 0;
};

class OpenStream : public RequestStream {
 public:
  OpenStream(std::unique_ptr<Arrivals> arrivals, Prompts prompts, Limits limits)
      : arrivals_(std::move(arrivals)), prompts_(std::move(prompts)), limits_(limits) {}

  bool next(Request& request) override {
    if (ended_) return false;
    request = {};
    request.id = issued_;
    ended_ = !arrivals_->next(request) || request.arrival_s >= limits_.duration_s;
    if (ended_) return false;
    prompts_.complete(request);
    ended_ = ++issued_ == limits_.requests;
    return true;
  }
  bool exhausted() const override { return ended_; }
  std::optional<uint64_t> expected_requests() const override { return limits_.known_requests(); }
  std::optional<double> expected_duration_s() const override { return limits_.known_duration_s(); }

 private:
  std::unique_ptr<Arrivals> arrivals_;
  Prompts prompts_;
  Limits limits_;
  uint64_t issued_ = 0;
  bool ended_ = false;
};

// How long a user pauses between an answer and the next request.
struct ThinkTime {
  double mean_s = 0;
  bool exponential = false;  // else always the mean
};

ThinkTime read_think_time(const Config& workload) {
  ThinkTime think;
  if (workload.kind("think_time") == Config::Kind::table) {
    think.mean_s = workload.table("think_time").quantity("exponential", Dimension::time);
    think.exponential = true;
  } else {
    think.mean_s = workload.quantity("think_time", Dimension::time, 0);
  }
  if (think.mean_s < 0) throw workload.error("think_time", "must not be negative");
  return think;
}

// `users` clients, each with one request under way or thinking. They ask for the first time at even distances over
// `ramp_up_s`.
class ClosedLoop : public RequestStream {
 public:
  ClosedLoop(int64_t users, ThinkTime think, double ramp_up_s, Prompts prompts, Limits limits, uint64_t seed)
      : users_(users), think_(think), random_(seed, "think times"), prompts_(std::move(prompts)), limits_(limits) {
    std::vector<double> first_s;
    for (int64_t user = 0; user < users; ++user) {
      const double start_s = ramp_up_s * static_cast<double>(user) / static_cast<double>(users);
      if (start_s < limits_.duration_s) first_s.push_back(start_s);
    }
    ready_s_ = decltype(ready_s_)({}, std::move(first_s));
  }

  bool next(Request& request) override {
    if (ready_s_.empty() || issued_ == limits_.requests) return false;
    request = {};
    request.id = issued_++;
    request.arrival_s = ready_s_.top();
    ready_s_.pop();
    ++under_way_;
    prompts_.complete(request);
    return true;
  }
  bool exhausted() const override { return issued_ == limits_.requests || (ready_s_.empty() && under_way_ == 0); }
  void completed(uint64_t, double time_s) override {
    --under_way_;
    const double ready_s = time_s + (think_.exponential ? random_.exponential(think_.mean_s) : think_.mean_s);
    if (ready_s < limits_.duration_s) ready_s_.push(ready_s);
  }
  bool bring_forward(Request& expected) override {
    if (ready_s_.empty() || ready_s_.top() >= expected.arrival_s) return false;
    const double sooner_s = ready_s_.top();
    ready_s_.pop();
    ready_s_.push(expected.arrival_s);
    expected.arrival_s = sooner_s;
    return true;
  }
  int64_t users() const override { return users_; }
  std::optional<uint64_t> expected_requests() const override { return limits_.known_requests(); }
  std::optional<double> expected_duration_s() const override { return limits_.known_duration_s(); }

 private:
  int64_t users_;
  ThinkTime think_;
  RandomStream random_;
  Prompts prompts_;
  Limits limits_;
  std::priority_queue<double, std::vector<double>, std::greater<>> ready_s_;  // when each idle user asks next
  uint64_t issued_ = 0, under_way_ = 0;
};

std::unique_ptr<RequestStream> open_stream(const Config& workload, std::unique_ptr<Arrivals> arrivals,
                                           bool lengths_known, Limits limits, uint64_t seed,
                                           const std::filesystem::path& base_folder) {
  return std::make_unique<OpenStream>(std::move(arrivals), Prompts(workload, lengths_known, seed, base_folder), limits);
}

// Every request of a trace of `count` unless the scenario says fewer.
Limits trace_limits(const Config& workload, uint64_t count) {
  Limits limits = read_limits(workload, false);
  if (limits.known_requests() && limits.requests > count)
    throw workload.error("requests", fmt::format("{} asked, but the trace has {}", limits.requests, count));
  if (!limits.known_duration_s()) limits.requests = std::min(limits.requests, count);
  return limits;
}

std::unique_ptr<RequestStream> make_trace(const Config& workload, uint64_t seed,
                                          const std::filesystem::path& base_folder) {
  const std::string name = workload.text("trace");
  const auto names = trace_names();
  if (std::find(names.begin(), names.end(), name) == names.end())
    throw workload.error("trace", unknown_name("trace", name, names));
  const TraceInfo info = load_trace_info(name);
  const auto rate = find_rate(workload);
  const double scale = rate ? info.mean_rate_per_s() / *rate : 1.0;
  auto arrivals = std::make_unique<TraceArrivals>(info.file, scale);
  return open_stream(workload, std::move(arrivals), true, trace_limits(workload, info.requests), seed, base_folder);
}

std::unique_ptr<RequestStream> make_csv(const Config& workload, uint64_t seed,
                                        const std::filesystem::path& base_folder) {
  const std::filesystem::path path = base_folder / workload.text("file");
  std::error_code code;
  if (!std::filesystem::exists(path, code))
    throw workload.error("file", fmt::format("{}: no such file", path.string()));
  LoadedTrace trace = load_trace(path);
  const uint64_t count = trace.rows.size();
  double scale = 1;
  if (const auto rate = find_rate(workload)) {
    const double duration_s = trace.rows.back().arrival_s - trace.rows.front().arrival_s;
    if (!(duration_s > 0)) throw workload.error("rate", "cannot rescale a trace whose requests all arrive at once");
    scale = static_cast<double>(count - 1) / duration_s / *rate;
  }
  auto arrivals = std::make_unique<FileArrivals>(std::move(trace), scale);
  return open_stream(workload, std::move(arrivals), true, trace_limits(workload, count), seed, base_folder);
}

std::unique_ptr<RequestStream> make_constant(const Config& workload, uint64_t seed,
                                             const std::filesystem::path& base_folder) {
  auto arrivals = std::make_unique<ConstantArrivals>(read_rate(workload));
  return open_stream(workload, std::move(arrivals), false, read_limits(workload, true), seed, base_folder);
}

std::unique_ptr<RequestStream> make_poisson(const Config& workload, uint64_t seed,
                                            const std::filesystem::path& base_folder) {
  auto arrivals = std::make_unique<GammaArrivals>(read_rate(workload), 1, seed);
  return open_stream(workload, std::move(arrivals), false, read_limits(workload, true), seed, base_folder);
}

std::unique_ptr<RequestStream> make_gamma(const Config& workload, uint64_t seed,
                                          const std::filesystem::path& base_folder) {
  const double burstiness = workload.number("burstiness", {1e-3, 1e6});
  auto arrivals = std::make_unique<GammaArrivals>(read_rate(workload), burstiness, seed);
  return open_stream(workload, std::move(arrivals), false, read_limits(workload, true), seed, base_folder);
}

std::unique_ptr<RequestStream> make_closed_loop(const Config& workload, uint64_t seed,
                                                const std::filesystem::path& base_folder) {
  const int64_t users = workload.integer("users", {1, 10'000'000});
  const ThinkTime think = read_think_time(workload);
  const double ramp_up_s = workload.quantity("ramp_up", Dimension::time, 0);
  if (ramp_up_s < 0) throw workload.error("ramp_up", "must not be negative");
  return std::make_unique<ClosedLoop>(users, think, ramp_up_s, Prompts(workload, false, seed, base_folder),
                                      read_limits(workload, true), seed);
}

struct Kind {
  const char* name;
  std::unique_ptr<RequestStream> (*make)(const Config&, uint64_t, const std::filesystem::path&);
};
constexpr Kind kKinds[] = {{"trace", make_trace}, {"csv", make_csv},           {"poisson", make_poisson},
                           {"gamma", make_gamma}, {"constant", make_constant}, {"closed-loop", make_closed_loop}};

}  // namespace

void RequestStream::completed(uint64_t, double) {}

bool RequestStream::bring_forward(Request&) {
  return false;
}

std::unique_ptr<RequestStream> make_request_stream(const Config& workload, uint64_t seed,
                                                   const std::filesystem::path& base_folder) {
  std::vector<std::string> names;
  for (const auto& kind : kKinds) names.emplace_back(kind.name);
  const std::string name = workload.choice("kind", names);
  for (const auto& kind : kKinds)
    if (name == kind.name) return kind.make(workload, seed, base_folder);
  throw workload.error("kind", unknown_name("kind", name, names));
}

}  // namespace dssim
