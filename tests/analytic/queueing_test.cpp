// SPDX-License-Identifier: Apache-2.0
// Waiting times of a whole simulated service against queueing theory, and Little's law.
#include <gtest/gtest.h>

#include <cmath>

#include "support/scenario.hpp"

namespace dssim {
namespace {

using test::Row;
using test::run_scenario;

// One request at a time: the replica is a single server, and a request's service time is done − scheduled.
std::string one_server(const std::string& rate, const std::string& output, int requests) {
  return test::kLlamaOnH100 +
         "[serving]\nstack = \"vllm-0.14\"\nmax_sequences = 1\n[workload]\nkind = \"poisson\"\nrate = \"" + rate +
         "\"\nrequests = " + std::to_string(requests) + "\nprompt = { tokens = 512 }\noutput = " + output + "\n";
}

struct Moments {
  double service = 0, service_squared = 0, wait = 0, arrival_rate = 0;
};
Moments moments_of(const std::vector<Row>& rows, double frontend_s) {
  Moments m;
  const auto n = static_cast<double>(rows.size());
  for (const Row& row : rows) {
    const double service = row.done_s - row.scheduled_s;
    m.service += service / n;
    m.service_squared += service * service / n;
    m.wait += (row.scheduled_s - row.arrival_s - frontend_s) / n;
  }
  m.arrival_rate = (n - 1) / (rows.back().arrival_s - rows.front().arrival_s);
  return m;
}

// M/D/1: equal prompts and one output token make every service equal; mean wait ρ S / (2 (1 − ρ)).
TEST(Queueing, MD1) {
  const auto idle = run_scenario(one_server("0.01/s", "{ tokens = 1 }", 3));
  const double service = idle.rows[1].done_s - idle.rows[1].scheduled_s;
  const auto run = run_scenario(one_server(std::to_string(0.7 / service) + "/s", "{ tokens = 1 }", 200000));
  const Moments m = moments_of(run.rows, run.frontend_s);
  EXPECT_NEAR(m.service, service, 1e-6);  // the CSV has six decimals
  const double rho = m.arrival_rate * service;
  EXPECT_NEAR(rho, 0.7, 0.01);
  // 200,000 arrivals: the mean wait of a queue at ρ = 0.7 has a relative standard error near 1 %.
  EXPECT_NEAR(m.wait, rho * service / (2 * (1 - rho)), 0.05 * m.wait);
}

// M/G/1 with lognormal output lengths, close to M/M/1's variance: Pollaczek–Khinchine, W = λ E[S²] / (2 (1 − ρ)).
TEST(Queueing, MG1) {
  const std::string output =
      "{ tokens = { lognormal = { median = 40, sigma = 0.83, max = 2000 } } }";  // variation coefficient ≈ 1
  const auto probe = run_scenario(one_server("1/s", output, 4000));
  const double service = moments_of(probe.rows, probe.frontend_s).service;
  const auto run = run_scenario(one_server(std::to_string(0.5 / service) + "/s", output, 200000));
  const Moments m = moments_of(run.rows, run.frontend_s);
  const double rho = m.arrival_rate * m.service;
  EXPECT_NEAR(rho, 0.5, 0.02);
  EXPECT_NEAR(m.wait, m.arrival_rate * m.service_squared / (2 * (1 - rho)), 0.05 * m.wait);
}

// Little's law on the whole service: mean number in system (by integration over time) = arrival rate × mean latency.
TEST(Queueing, LittlesLaw) {
  const auto run =
      run_scenario(test::kLlamaOnH100 +
                   "[serving]\nstack = \"vllm-0.14\"\n[workload]\nkind = \"trace\"\ntrace = \"azure-2023-conv\"\n"
                   "rate = \"10/s\"\nrequests = 3000\n");
  std::vector<std::pair<double, int>> changes;
  double latency = 0;
  for (const Row& row : run.rows) {
    changes.emplace_back(row.arrival_s, 1);
    changes.emplace_back(row.done_s, -1);
    latency += row.done_s - row.arrival_s;
  }
  std::sort(changes.begin(), changes.end());
  double area = 0;
  int in_system = 0;
  for (size_t i = 0; i + 1 < changes.size(); ++i) {
    in_system += changes[i].second;
    area += in_system * (changes[i + 1].first - changes[i].first);
  }
  EXPECT_NEAR(area, latency, 1e-6 * latency);
  // And the report says the same: mean latency × completed = area.
  EXPECT_NEAR(run.report.summary.e2e().mean() * static_cast<double>(run.report.summary.completed()), area, 1e-5 * area);
}

}  // namespace
}  // namespace dssim
