// SPDX-License-Identifier: Apache-2.0
#include "sim/base/units.hpp"

#include <gtest/gtest.h>

#include "sim/base/error.hpp"

namespace dssim {
namespace {

struct Parse {
  const char* text;
  Dimension dimension;
  double value;
};

// Values follow from the definitions alone: decimal and binary prefixes, 8 bits a byte.
const Parse kParses[] = {
    {"500 ms", Dimension::time, 0.5},
    {"2us", Dimension::time, 2e-6},
    {"2 µs", Dimension::time, 2e-6},
    {"10 min", Dimension::time, 600},
    {"1.5 h", Dimension::time, 5400},
    {"80 GB", Dimension::bytes, 80e9},
    {"64 MiB", Dimension::bytes, 67108864},
    {"8 b", Dimension::bytes, 1},
    {"400 Gb/s", Dimension::bandwidth, 50e9},
    {"400 Gbps", Dimension::bandwidth, 50e9},
    {"50 GB/s", Dimension::bandwidth, 50e9},
    {"3.35 TB/s", Dimension::bandwidth, 3.35e12},
    {"989 TFLOPS", Dimension::compute_rate, 989e12},
    {"130 TOPS", Dimension::compute_rate, 130e12},
    {"4/s", Dimension::rate, 4},
    {"30/min", Dimension::rate, 0.5},
    {"0.7 kW", Dimension::power, 700},
    {"25000 USD", Dimension::money, 25000},
    {"1.83 GHz", Dimension::frequency, 1.83e9},
    {"70 %", Dimension::ratio, 0.7},
    {"0.9", Dimension::ratio, 0.9},
    {"132", Dimension::count, 132},
};

TEST(Units, ParseWhatUsersWrite) {
  for (const auto& p : kParses) EXPECT_DOUBLE_EQ(parse_quantity(p.text, p.dimension), p.value) << p.text;
}

TEST(Units, RefuseWithAnExample) {
  for (const char* text :
       {"12", "12 GBs", "fast", "", "-1 GB/s", "nan GB/s", "inf GB/s", "1e999 GB/s", "12 GB", "GB/s"}) {
    try {
      parse_quantity(text, Dimension::bandwidth);
      FAIL() << text << " was accepted";
    } catch (const Error& e) {
      EXPECT_EQ(e.exit_status(), 2);
      EXPECT_NE(std::string(e.what()).find("50 GB/s"), std::string::npos) << e.what();
    }
  }
}

TEST(Units, FormatForReaders) {
  EXPECT_EQ(format_time(0.0234), "23.4 ms");
  EXPECT_EQ(format_time(0.9999), "1 s");
  EXPECT_EQ(format_time(3600), "60 min");
  EXPECT_EQ(format_time(1e300), "1.16e+295 days");
  EXPECT_EQ(format_bytes(999.6e9), "1 TB");
  EXPECT_EQ(format_bytes(80.3e9), "80.3 GB");
  EXPECT_EQ(format_bandwidth(3.35e12), "3.35 TB/s");
  EXPECT_EQ(format_count(41408), "41.4 k");
  EXPECT_EQ(format_count(9999), "9999");
}

TEST(Units, FormatAndParseAgree) {
  for (const double value : {1.0, 999.0, 12345.0, 8.03e10, 3.35e12}) {
    EXPECT_NEAR(parse_quantity(format_bandwidth(value), Dimension::bandwidth), value, value * 5e-3);
    EXPECT_NEAR(parse_quantity(format_bytes(value), Dimension::bytes), value, value * 5e-3);
  }
}

}  // namespace
}  // namespace dssim
