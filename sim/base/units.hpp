// SPDX-License-Identifier: Apache-2.0
#pragma once

// Quantities as a user writes them ("400 Gb/s", "80 GB", "2 us", "989 TFLOPS", "4/s") to doubles in SI, and back to
// text.
//
// Inside dssim a quantity is a double in SI whose name ends in its unit: `_s`, `_bytes`, `_bytes_per_s`,
// `_flops_per_s`,
// `_per_s`, `_w`, `_usd`. Prefixes k M G T P are decimal, Ki Mi Gi Ti binary; 'b' is bits, 'B' bytes. "Gbps" and "Gb/s"
// are bits, "GBps" and "GB/s" bytes. A number of FLOPS may also be written as OPS or TOPS (integer operations).

#include <string>
#include <string_view>

namespace dssim {

enum class Dimension { time, bytes, bandwidth, compute_rate, rate, power, money, frequency, ratio, count };

inline constexpr double kKiB = 1024.0, kMiB = 1024.0 * kKiB, kGiB = 1024.0 * kMiB;

// Value in SI. Throws Error(bad_input) whose text says what is wrong and shows a valid example ("'12 GBs' is not a
// bandwidth; write e.g. \"50 GB/s\" or \"400 Gb/s\""). A bare number is accepted for ratio and count only; "70 %" is
// 0.7. Not a number, infinite, or negative values are refused.
double parse_quantity(std::string_view text, Dimension dimension);

std::string_view dimension_name(Dimension dimension);     // "bandwidth"
std::string_view dimension_example(Dimension dimension);  // "\"50 GB/s\" or \"400 Gb/s\""

// Shortest readable text, three significant digits: 0.0234 → "23.4 ms", 8.03e10 bytes → "80.3 GB", 3.35e12 → "3.35
// TB/s".
std::string format_time(double seconds);
std::string format_bytes(double bytes);
std::string format_bandwidth(double bytes_per_s);
std::string format_compute_rate(double flops_per_s);
std::string format_count(double count);  // 1234567 → "1.23 M"; below 10,000 whole
std::string format_quantity(double value, Dimension dimension);

}  // namespace dssim
