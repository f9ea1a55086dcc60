// SPDX-License-Identifier: Apache-2.0
#include "sim/study/validate.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "sim/base/csv.hpp"
#include "sim/study/deployment_setup.hpp"
#include "sim/study/serving_run.hpp"

namespace dssim {
namespace {

struct Latencies {
  Quantiles ttft, tpot, e2e;
  double makespan_s = 0;
};

Latencies read_measured(const std::filesystem::path& path) {
  CsvTable csv(path, {"arrival", "output", "first_token", "done"});
  Latencies measured;
  double first_arrival = 0, last_done = 0;
  bool any = false;
  while (csv.next()) {
    const double arrival = csv.number(0), first = csv.number(2), done = csv.number(3);
    if (!(arrival <= first && first <= done))
      throw csv.error(2, "arrival, first_token and done must follow each other in time");
    measured.ttft.add(first - arrival);
    measured.e2e.add(done - arrival);
    if (const auto output = csv.integer(1); output > 1)
      measured.tpot.add((done - first) / static_cast<double>(output - 1));
    first_arrival = any ? std::min(first_arrival, arrival) : arrival;
    last_done = std::max(last_done, done);
    any = true;
  }
  if (!any) throw bad_input(fmt::format("{}: has no rows", path.string()));
  measured.makespan_s = last_done - first_arrival;
  return measured;
}

std::vector<ComparedFigure> compare(const Latencies& measured, const ServingSummary& predicted) {
  std::vector<ComparedFigure> figures;
  const auto add = [&](std::string_view name, const Quantiles& m, const Quantiles& p) {
    if (m.count() == 0) return;
    figures.push_back({fmt::format("{} mean", name), m.mean(), p.mean()});
    figures.push_back({fmt::format("{} p50", name), m.quantile(0.5), p.quantile(0.5)});
    figures.push_back({fmt::format("{} p90", name), m.quantile(0.9), p.quantile(0.9)});
    figures.push_back({fmt::format("{} p99", name), m.quantile(0.99), p.quantile(0.99)});
  };
  add("TTFT", measured.ttft, predicted.ttft());
  add("TPOT", measured.tpot, predicted.tpot());
  add("e2e", measured.e2e, predicted.e2e());
  figures.push_back({"makespan", measured.makespan_s, predicted.makespan_s()});
  return figures;
}

// Errors of one kind while rows are read.
struct Errors {
  Quantiles magnitude;
  double measured_s = 0, predicted_s = 0;
  void add(double measured, double predicted) {
    magnitude.add(std::abs(predicted / measured - 1));
    measured_s += measured;
    predicted_s += predicted;
  }
};

// A measured iteration. Only the sums over its prompts are known, so several are taken for equal ones.
struct Iteration {
  double seconds = 0, start_s = 0;
  std::string_view kind;
  StepShape shape;
  std::vector<PrefillChunk> chunks;  // what shape.prefill shows
};

// Of one iteration; an engine's are far below.
constexpr int64_t kMostTokens = 1'000'000'000, kMostSequences = 1'000'000;

class IterationReader {
 public:
  explicit IterationReader(const std::filesystem::path& path)
      : csv_(path, {"seconds", "decode_seqs", "prefill_tokens", "decode_kv_tokens", "prefill_kv_tokens"}) {
    if (csv_.has_column("prefill_seqs")) sequences_ = csv_.add_column("prefill_seqs");
    if (csv_.has_column("start")) start_ = csv_.add_column("start");
    if (csv_.has_column("decode_longest_kv")) longest_ = csv_.add_column("decode_longest_kv");
  }
  bool next(Iteration& row);

 private:
  CsvTable csv_;
  size_t sequences_ = 0, start_ = 0, longest_ = 0;  // 0 = not there
  double end_s_ = 0;
};

bool IterationReader::next(Iteration& row) {
  if (!csv_.next()) return false;
  row.seconds = csv_.number(0);
  if (row.seconds <= 0) throw csv_.error(0, "must be more than zero");
  row.start_s = start_ > 0 ? csv_.number(start_) : end_s_;
  end_s_ = row.start_s + row.seconds;
  const int64_t decodes = csv_.integer(1), prefill = csv_.integer(2), decode_kv = csv_.integer(3),
                prefill_kv = csv_.integer(4);
  for (size_t column = 1; column <= 4; ++column)
    if (const int64_t most = column == 1 ? kMostSequences : kMostTokens; csv_.integer(column) > most)
      throw csv_.error(column, fmt::format("must be at most {}", most));
  if (decodes < 0 || prefill < 0 || decodes + prefill == 0)
    throw csv_.error(1, "an iteration has decodes, prefill tokens, or both");
  if (decode_kv < decodes) throw csv_.error(3, "must count at least one token for each decoding sequence");
  if (prefill_kv < prefill) throw csv_.error(4, "must count at least the prefill tokens");
  int64_t prompts = prefill > 0 ? 1 : 0;
  if (sequences_ > 0) {
    prompts = csv_.integer(sequences_);
    if (prompts < (prefill > 0) || prompts > prefill)
      throw csv_.error(sequences_, "must be between one and the prefill tokens, and 0 where there are none");
    if (prompts > kMostSequences) throw csv_.error(sequences_, fmt::format("must be at most {}", kMostSequences));
  }
  row.chunks.clear();
  const auto part = [&](int64_t sum, int64_t i) { return sum * (i + 1) / prompts - sum * i / prompts; };
  for (int64_t i = 0; i < prompts; ++i) row.chunks.push_back({part(prefill, i), part(prefill_kv - prefill, i), true});
  row.shape = {decodes, decode_kv, row.chunks};
  if (longest_ > 0) {
    const int64_t longest = row.shape.decode_longest = csv_.integer(longest_);
    if (longest < 0 || longest > decode_kv || longest * decodes < decode_kv)
      throw csv_.error(longest_, "must be between the mean and the sum of the decoding sequences' KV tokens");
  }
  row.kind = prefill == 0 ? "decode" : decodes == 0 ? "prefill" : "mixed";
  return true;
}

std::vector<IterationErrors> compare_iterations(const std::filesystem::path& path, StepModel& steps, StepUsage& usage) {
  constexpr std::array<std::string_view, 4> kKinds{"decode", "prefill", "mixed", "all"};
  std::array<Errors, 4> errors;
  IterationReader reader(path);
  GpuHeat heat;
  for (Iteration row; reader.next(row);) {
    const double predicted = steps.price(row.shape, &usage, &heat, row.start_s).total_s();
    errors[static_cast<size_t>(std::find(kKinds.begin(), kKinds.end(), row.kind) - kKinds.begin())].add(row.seconds,
                                                                                                        predicted);
    errors[3].add(row.seconds, predicted);
  }
  if (errors[3].magnitude.count() == 0) throw bad_input(fmt::format("{}: has no rows", path.string()));
  std::vector<IterationErrors> rows;
  for (size_t i = 0; i < errors.size(); ++i) {
    const Errors& e = errors[i];
    if (e.magnitude.count() == 0) continue;
    rows.push_back({std::string(kKinds[i]), e.magnitude.count(), e.magnitude.quantile(0.5), e.magnitude.quantile(0.9),
                    e.predicted_s / e.measured_s - 1, e.measured_s});
  }
  return rows;
}

}  // namespace

ValidationReport validate(Scenario& scenario, const std::optional<std::filesystem::path>& requests,
                          const std::optional<std::filesystem::path>& iterations) {
  if (!requests && !iterations) throw bad_input("validate: give measured --requests FILE, --iterations FILE, or both");
  ValidationReport report;
  if (requests) {
    const Latencies measured = read_measured(*requests);
    const Config workload = Config::parse(
        fmt::format("kind = \"csv\"\nfile = '''{}'''\n", std::filesystem::absolute(*requests).string()), scenario.path);
    scenario.requests = make_request_stream(workload, scenario.seed, {});
    const ServingReport run = run_serving(scenario, {});
    report.setup = run.fit.setup;
    report.trust = run.trust;
    report.figures = compare(measured, run.summary);
  }
  if (iterations) {
    DeploymentSetup setup = set_up(scenario);
    StepUsage usage;
    report.iterations = compare_iterations(*iterations, *setup.steps, usage);
    report.setup = setup.fit.setup;
    report.trust = trust_of(usage, setup, scenario.deployment.weights);
  }
  return report;
}

}  // namespace dssim
