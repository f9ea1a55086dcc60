// SPDX-License-Identifier: Apache-2.0
// CSV, names, random streams and quantiles.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>

#include "sim/base/csv.hpp"
#include "sim/base/files.hpp"
#include "sim/base/names.hpp"
#include "sim/base/quantiles.hpp"
#include "sim/base/random.hpp"

namespace dssim {
namespace {

TEST(Names, FindTheTypingError) {
  const std::vector<std::string> names{"h100-sxm", "h100-pcie", "a100-sxm-80gb"};
  EXPECT_EQ(nearest_name("h100-smx", names), "h100-sxm");
  EXPECT_EQ(nearest_name("H100-SXM", names), "h100-sxm");
  EXPECT_EQ(nearest_name("banana", names), "");
  EXPECT_EQ(unknown_name("gpu", "h100-smx", names), "unknown gpu 'h100-smx'; did you mean 'h100-sxm'?");
  EXPECT_EQ(unknown_name("gpu", "h100", names), "unknown gpu 'h100'; did you mean 'h100-sxm' or 'h100-pcie'?");
  EXPECT_EQ(unknown_name("gpu", "banana", names), "unknown gpu 'banana'; valid: h100-sxm, h100-pcie, a100-sxm-80gb");
}

TEST(Csv, ReadsNamedColumnsInAnyOrder) {
  auto csv = CsvTable::from_text("b,ignored,a\r\n1.5,x,2\r\n\r\n-3,\"y\",4", "t.csv", {"a", "b"});
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.integer(0), 2);
  EXPECT_EQ(csv.number(1), 1.5);
  ASSERT_TRUE(csv.next());
  EXPECT_EQ(csv.line(), 4);
  EXPECT_EQ(csv.number(1), -3);
  EXPECT_FALSE(csv.next());
}

TEST(Csv, NamesLineAndColumn) {
  const auto message = [](const char* text) -> std::string {
    try {
      auto csv = CsvTable::from_text(text, "t.csv", {"a", "b"});
      while (csv.next()) csv.integer(0), csv.number(1);
    } catch (const Error& e) {
      return e.what();
    }
    return "no error";
  };
  EXPECT_EQ(message("a,c\n1,2\n"), "t.csv:1: column 'b' is missing; the header has a,c");
  EXPECT_EQ(message("a,b\n1,2\n1\n"), "t.csv:3: has 1 fields, the header 2");
  EXPECT_EQ(message("a,b\n1,2,3\n"), "t.csv:2: has more fields than the header's 2");
  EXPECT_EQ(message("a,b\n1.5,2\n"), "t.csv:2: a: '1.5' is not a whole number");
  EXPECT_EQ(message("a,b\n1,nan\n"), "t.csv:2: b: 'nan' is not a finite number");
  EXPECT_EQ(message(""), "t.csv:1: the header line is missing; expected a,b");
  EXPECT_EQ(message("a,b\n1,2\n"), "no error");
}

TEST(Files, AtomicFileLeavesNothingBehind) {
  const auto path = std::filesystem::temp_directory_path() / "dssim_atomic_test.txt";
  std::filesystem::remove(path);
  {
    AtomicFile file(path);
    file.write("half");
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(path.string() + ".partial"));
  {
    AtomicFile file(path);
    file.write("whole");
    file.commit();
  }
  EXPECT_EQ(read_file(path), "whole");
  std::filesystem::remove(path);
}

// As root, a rename over /dev/null would take the device from the whole machine.
TEST(Files, AtomicFileWritesToWhatIsNoPlainFile) {
  const auto folder = std::filesystem::temp_directory_path() / "dssim_link_test";
  std::filesystem::create_directories(folder);
  const auto target = folder / "target.txt", link = folder / "link.txt", pipe = folder / "pipe";
  std::ofstream(target) << "old";
  std::filesystem::create_symlink(target, link);
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  const int reader = open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  for (const auto& path : {link, pipe}) {
    AtomicFile file(path);
    file.write("new");
    file.commit();
  }
  EXPECT_TRUE(std::filesystem::is_symlink(link));
  EXPECT_EQ(read_file(target), "new");
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  char bytes[4] = {};
  EXPECT_EQ(read(reader, bytes, sizeof bytes), 3);
  EXPECT_STREQ(bytes, "new");
  close(reader);
  EXPECT_THROW(AtomicFile{folder}, Error);
  EXPECT_THROW(AtomicFile{folder / "nowhere" / "x.json"}, Error);
  EXPECT_THROW(AtomicFile{""}, Error);
  std::filesystem::remove_all(folder);
}

TEST(Files, TruncatedGzipIsRefused) {
  // The start of a gzip stream of "hello hello hello", cut off.
  const auto path = std::filesystem::temp_directory_path() / "dssim_truncated_test.gz";
  const unsigned char bytes[] = {0x1f, 0x8b, 0x08, 0, 0, 0, 0, 0, 0, 3, 0xcb, 0x48};
  std::ofstream(path, std::ios::binary).write(reinterpret_cast<const char*>(bytes), sizeof bytes);
  EXPECT_THROW(read_file(path), Error);
  std::filesystem::remove(path);
}

TEST(Random, StreamsAreNamedAndIndependent) {
  RandomStream a(42, "arrivals"), again(42, "arrivals"), other(42, "lengths"), next_seed(43, "arrivals");
  const double first = a.uniform();
  EXPECT_EQ(first, again.uniform());
  EXPECT_NE(first, other.uniform());
  EXPECT_NE(first, next_seed.uniform());
}

// Means and variances against theory: with n draws the mean's standard error is σ/√n; five of them never fail by
// chance.
TEST(Random, DistributionsFollowTheory) {
  RandomStream r(1, "test");
  constexpr int kDraws = 200000;
  const auto moments = [&](auto draw) {
    double sum = 0, squares = 0;
    for (int i = 0; i < kDraws; ++i) {
      const double x = draw();
      sum += x;
      squares += x * x;
    }
    const double mean = sum / kDraws;
    return std::pair(mean, squares / kDraws - mean * mean);
  };
  const double root = std::sqrt(static_cast<double>(kDraws));
  auto [exp_mean, exp_variance] = moments([&] { return r.exponential(2.0); });
  EXPECT_NEAR(exp_mean, 2.0, 5 * 2.0 / root);
  EXPECT_NEAR(exp_variance, 4.0, 5 * 4.0 * std::sqrt(8.0) / root);  // fourth central moment of an exponential: 9 σ⁴
  auto [normal_mean, normal_variance] = moments([&] { return r.normal(); });
  EXPECT_NEAR(normal_mean, 0.0, 5 / root);
  EXPECT_NEAR(normal_variance, 1.0, 5 * std::sqrt(2.0) / root);
  auto [gamma_mean, gamma_variance] = moments([&] { return r.gamma(0.5, 3.0); });
  EXPECT_NEAR(gamma_mean, 1.5, 5 * std::sqrt(4.5) / root);
  EXPECT_NEAR(gamma_variance, 4.5, 5 * 4.5 * std::sqrt(2.0 + 6.0 / 0.5) / root);
  auto [log_mean, log_variance] = moments([&] { return std::log(r.lognormal(100, 0.5)); });
  EXPECT_NEAR(log_mean, std::log(100.0), 5 * 0.5 / root);
  EXPECT_NEAR(log_variance, 0.25, 5 * 0.25 * std::sqrt(2.0) / root);
  std::vector<int> counts(7);
  for (int i = 0; i < 70000; ++i) ++counts[r.below(7)];
  double chi_squared = 0;
  for (const int count : counts) chi_squared += (count - 10000.0) * (count - 10000.0) / 10000.0;
  EXPECT_LT(chi_squared, 22.5);  // 99.9 % point at 6 degrees of freedom
}

TEST(Quantiles, ExactWhileSmall) {
  Quantiles q;
  for (int i = 100; i >= 1; --i) q.add(i);
  EXPECT_DOUBLE_EQ(q.quantile(0.5), 50.5);
  EXPECT_DOUBLE_EQ(q.quantile(0.99), 99.01);
  EXPECT_DOUBLE_EQ(q.mean(), 50.5);
  EXPECT_DOUBLE_EQ(q.max(), 100);
  EXPECT_EQ(Quantiles().quantile(0.5), 0);
}

TEST(Quantiles, BoundedErrorWhenLarge) {
  Quantiles q;
  std::vector<double> all;
  RandomStream r(3, "q");
  for (size_t i = 0; i < 3 * Quantiles::kExactSamples; ++i) {
    all.push_back(r.lognormal(0.05, 1.5));
    q.add(all.back());
  }
  std::sort(all.begin(), all.end());
  for (const double p : {0.01, 0.5, 0.9, 0.99, 0.999}) {
    const double exact = all[static_cast<size_t>(p * static_cast<double>(all.size() - 1))];
    EXPECT_NEAR(q.quantile(p), exact, exact * 1e-3) << p;  // half a bucket (0.05 %), and the gap to the next sample
  }
  EXPECT_EQ(q.quantile(1.0), all.back());
}

}  // namespace
}  // namespace dssim
