// SPDX-License-Identifier: Apache-2.0

// Arrivals and lengths against the distributions they claim, with fixed seeds. Where a bound is a number of standard
// errors, it is 4: a right implementation fails once in 16,000 seeds. Kolmogorov-Smirnov bounds are D √n < 1.95 (0.1
// %).

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "workloads/request_stream.hpp"
#include "workloads/trace.hpp"

namespace dssim {
namespace {

constexpr size_t kCount = 40000;
const double kRoot = std::sqrt(static_cast<double>(kCount));

struct Sample {
  std::vector<double> gaps_s, input, output;
};

Sample draw(const std::string& kind, const std::string& lengths, uint64_t seed = 42, size_t count = kCount) {
  const Config file =
      Config::parse("[workload]\nrequests = " + std::to_string(count) + "\n" + kind + lengths, "s.toml");
  const auto stream = make_request_stream(file.table("workload"), seed, ".");
  Sample sample;
  Request r;
  double before_s = 0;
  while (stream->next(r)) {
    sample.gaps_s.push_back(r.arrival_s - before_s);
    before_s = r.arrival_s;
    sample.input.push_back(static_cast<double>(r.input_tokens));
    sample.output.push_back(static_cast<double>(r.output_tokens));
  }
  return sample;
}

double mean(const std::vector<double>& v) {
  double sum = 0;
  for (const double x : v) sum += x;
  return sum / static_cast<double>(v.size());
}

double variance(const std::vector<double>& v) {
  const double m = mean(v);
  double sum = 0;
  for (const double x : v) sum += (x - m) * (x - m);
  return sum / static_cast<double>(v.size() - 1);
}

double correlation(const std::vector<double>& a, const std::vector<double>& b) {
  const double ma = mean(a), mb = mean(b);
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += (a[i] - ma) * (b[i] - mb);
  return sum / static_cast<double>(a.size() - 1) / std::sqrt(variance(a) * variance(b));
}

// Largest distance between the sample's distribution and `cdf`, times √n.
double kolmogorov_smirnov(std::vector<double> v, const std::function<double(double)>& cdf) {
  std::sort(v.begin(), v.end());
  const double n = static_cast<double>(v.size());
  double distance = 0;
  for (size_t i = 0; i < v.size(); ++i) {
    const double f = cdf(v[i]);
    distance =
        std::max({distance, std::abs(f - static_cast<double>(i) / n), std::abs(static_cast<double>(i + 1) / n - f)});
  }
  return distance * std::sqrt(n);
}

const std::string kFixed = "prompt = { tokens = 100 }\noutput = { tokens = 20 }\n";

TEST(Arrivals, PoissonGapsAreExponential) {
  const auto gaps_s = draw("kind = \"poisson\"\nrate = \"8/s\"\n", kFixed).gaps_s;
  EXPECT_NEAR(mean(gaps_s), 0.125, 4 * 0.125 / kRoot);
  EXPECT_NEAR(variance(gaps_s), 0.125 * 0.125,
              4 * 0.125 * 0.125 * std::sqrt(8.0) / kRoot);  // fourth moment 9: (9 − 1) σ⁴
  EXPECT_LT(kolmogorov_smirnov(gaps_s, [](double x) { return 1 - std::exp(-8 * x); }), 1.95);
  const std::vector<double> first(gaps_s.begin(), gaps_s.end() - 1), second(gaps_s.begin() + 1, gaps_s.end());
  EXPECT_NEAR(correlation(first, second), 0, 4 / kRoot);  // no memory
}

// Shape k: mean 1/rate, coefficient of variation 1/√k. Closed forms: k = 1/2 is a scaled χ² with one degree of freedom,
// k = 2 an Erlang.
TEST(Arrivals, GammaGapsHaveTheShapeAskedFor) {
  for (const double k : {0.25, 0.5, 1.0, 2.0, 9.0}) {
    const auto gaps_s =
        draw("kind = \"gamma\"\nrate = \"8/s\"\nburstiness = " + std::to_string(k) + "\n", kFixed).gaps_s;
    EXPECT_NEAR(mean(gaps_s), 0.125, 4 * 0.125 / std::sqrt(k) / kRoot) << k;
    const double expected = 0.125 * 0.125 / k;
    EXPECT_NEAR(variance(gaps_s), expected, 4 * expected * std::sqrt(2 + 6 / k) / kRoot) << k;  // excess kurtosis 6/k
  }
  const auto half = draw("kind = \"gamma\"\nrate = \"8/s\"\nburstiness = 0.5\n", kFixed).gaps_s;
  EXPECT_LT(kolmogorov_smirnov(half, [](double x) { return std::erf(std::sqrt(4 * x)); }), 1.95);  // scale 1/4 s
  const auto erlang = draw("kind = \"gamma\"\nrate = \"8/s\"\nburstiness = 2\n", kFixed).gaps_s;
  EXPECT_LT(kolmogorov_smirnov(erlang, [](double x) { return 1 - (1 + 16 * x) * std::exp(-16 * x); }), 1.95);
}

TEST(Arrivals, BurstinessOneIsPoissonRequestByRequest) {
  EXPECT_EQ(draw("kind = \"gamma\"\nrate = \"8/s\"\nburstiness = 1\n", kFixed, 5, 1000).gaps_s,
            draw("kind = \"poisson\"\nrate = \"8/s\"\n", kFixed, 5, 1000).gaps_s);
}

// Rounded to whole tokens, so the distribution is compared at the middle between two of them; below 1 and above the
// maximum it is cut (here 0.02 % and 0.3 %, which the test allows for by comparing within).
TEST(Lengths, LognormalHasItsMedianAndSpread) {
  const auto lengths =
      draw("kind = \"poisson\"\nrate = \"8/s\"\n",
           "prompt = { tokens = { lognormal = { median = 400, sigma = 1.1, max = 8192 } } }\noutput = { tokens = 5 }\n")
          .input;
  const auto cdf = [](double x) { return 0.5 * std::erfc(-std::log(x / 400) / 1.1 / std::sqrt(2.0)); };
  double distance = 0;
  for (const double at : {20.5, 50.5, 100.5, 200.5, 400.5, 800.5, 1600.5, 3200.5, 6400.5}) {
    const auto below = std::count_if(lengths.begin(), lengths.end(), [&](double x) { return x < at; });
    distance = std::max(distance, std::abs(static_cast<double>(below) / static_cast<double>(kCount) - cdf(at)));
  }
  EXPECT_LT(distance * kRoot, 1.95);
  EXPECT_GE(*std::min_element(lengths.begin(), lengths.end()), 1);
  EXPECT_EQ(*std::max_element(lengths.begin(), lengths.end()), 8192);
}

struct TraceMoments {
  double mean_input = 0, mean_output = 0, sd_input = 0, sd_output = 0, correlation = 0;
};
TraceMoments moments_of(const char* name) {
  const LoadedTrace trace = load_trace(load_trace_info(name).file);
  std::vector<double> input, output;
  for (const auto& row : trace.rows) {
    input.push_back(static_cast<double>(row.input_tokens));
    output.push_back(static_cast<double>(row.output_tokens));
  }
  return {mean(input), mean(output), std::sqrt(variance(input)), std::sqrt(variance(output)),
          correlation(input, output)};
}

TEST(Lengths, EmpiricalPairsKeepTheTracesMomentsAndCorrelation) {
  const TraceMoments trace = moments_of("azure-2023-conv");
  const std::string same =
      "prompt = { tokens = { empirical = \"azure-2023-conv\" } }\noutput = { tokens = { empirical = "
      "\"azure-2023-conv\" } }\n";
  const Sample pairs = draw("kind = \"poisson\"\nrate = \"8/s\"\n", same);
  EXPECT_NEAR(mean(pairs.input), trace.mean_input, 4 * trace.sd_input / kRoot);
  EXPECT_NEAR(mean(pairs.output), trace.mean_output, 4 * trace.sd_output / kRoot);
  EXPECT_NEAR(std::sqrt(variance(pairs.input)), trace.sd_input, 0.02 * trace.sd_input);
  EXPECT_NEAR(correlation(pairs.input, pairs.output), trace.correlation, 4 / kRoot);
  ASSERT_GT(std::abs(trace.correlation), 8 / kRoot) << "the trace would not tell pairs from independent draws";

  const std::string other =
      "prompt = { tokens = { empirical = \"azure-2023-conv\" } }\noutput = { tokens = { empirical = "
      "\"azure-2023-code\" } }\n";
  const Sample apart = draw("kind = \"poisson\"\nrate = \"8/s\"\n", other);
  EXPECT_NEAR(correlation(apart.input, apart.output), 0, 4 / kRoot);
}

// Chi-square of the draws over 20 equal parts of the trace's sorted prompt lengths.
TEST(Lengths, EmpiricalDrawsFollowTheTracesDistribution) {
  LoadedTrace trace = load_trace(load_trace_info("azure-2023-conv").file);
  std::vector<double> known;
  for (const auto& row : trace.rows) known.push_back(static_cast<double>(row.input_tokens));
  const auto drawn = draw("kind = \"poisson\"\nrate = \"8/s\"\n",
                          "prompt = { tokens = { empirical = \"azure-2023-conv\" } }\noutput = { tokens = 5 }\n")
                         .input;
  std::sort(known.begin(), known.end());
  double chi_square = 0, below = -1;
  for (size_t part = 1; part <= 20; ++part) {
    const double edge = known[known.size() * part / 20 - 1];
    const auto within = [&](const std::vector<double>& v) {
      return static_cast<double>(std::count_if(v.begin(), v.end(), [&](double x) { return x > below && x <= edge; }));
    };
    const double expected = within(known) * static_cast<double>(kCount) / static_cast<double>(known.size());
    if (expected > 0) chi_square += (within(drawn) - expected) * (within(drawn) - expected) / expected;
    below = edge;
  }
  EXPECT_LT(chi_square, 43.8);  // 19 degrees of freedom, 0.1 %
}

TEST(Substreams, ArrivalsAndLengthsDoNotShiftOrFollowEachOther) {
  const std::string poisson = "kind = \"poisson\"\nrate = \"8/s\"\n";
  const std::string varied =
      "prompt = { tokens = { lognormal = { median = 400, sigma = 1.0, max = 8192 } }, shared_prefix = 1, prefixes = 3 "
      "}\n"
      "output = { tokens = { lognormal = { median = 100, sigma = 1.0, max = 4096 } } }\n";
  const std::string other_output =
      "prompt = { tokens = { lognormal = { median = 400, sigma = 1.0, max = 8192 } } }\noutput = { tokens = 3 }\n";
  const Sample a = draw(poisson, varied), b = draw(poisson, kFixed), c = draw(poisson, other_output);
  const Sample d = draw("kind = \"constant\"\nrate = \"8/s\"\n", varied);
  EXPECT_EQ(a.gaps_s, b.gaps_s);
  EXPECT_EQ(a.input, c.input);
  EXPECT_EQ(a.input, d.input);
  EXPECT_EQ(a.output, d.output);
  EXPECT_NEAR(correlation(a.gaps_s, a.input), 0, 4 / kRoot);
  EXPECT_NEAR(correlation(a.input, a.output), 0, 4 / kRoot);
  EXPECT_NEAR(correlation(a.gaps_s, a.output), 0, 4 / kRoot);
}

}  // namespace
}  // namespace dssim
