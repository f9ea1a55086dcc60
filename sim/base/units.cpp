// SPDX-License-Identifier: Apache-2.0
#include "sim/base/units.hpp"

#include <fmt/format.h>

#include <array>
#include <charconv>
#include <cmath>
#include <optional>

#include "sim/base/error.hpp"

namespace dssim {
namespace {

struct DimensionText {
  std::string_view name, example;
};

DimensionText text_of(Dimension dimension) {
  switch (dimension) {
    case Dimension::time:
      return {"time", "\"500 ms\" or \"10 min\""};
    case Dimension::bytes:
      return {"size", "\"80 GB\" or \"64 MiB\""};
    case Dimension::bandwidth:
      return {"bandwidth", "\"50 GB/s\" or \"400 Gb/s\""};
    case Dimension::compute_rate:
      return {"compute rate", "\"989 TFLOPS\" or \"130 TOPS\""};
    case Dimension::rate:
      return {"rate", "\"4/s\" or \"30/min\""};
    case Dimension::power:
      return {"power", "\"700 W\""};
    case Dimension::money:
      return {"price", "\"25000 USD\""};
    case Dimension::frequency:
      return {"frequency", "\"1.83 GHz\""};
    case Dimension::ratio:
      return {"ratio", "0.9 or \"90 %\""};
    case Dimension::count:
      return {"count", "8"};
  }
  return {"quantity", "a number"};
}

std::string_view trim(std::string_view s) {
  while (!s.empty() && (s.front() == ' ' || s.front() == '\t')) s.remove_prefix(1);
  while (!s.empty() && (s.back() == ' ' || s.back() == '\t')) s.remove_suffix(1);
  return s;
}

// Splits an SI or binary prefix off `unit`, which must then be exactly one of `bases`.
struct Prefix {
  std::string_view text;
  double factor;
};
constexpr std::array<Prefix, 13> kPrefixes{{{"Ki", 0x1p10},
                                            {"Mi", 0x1p20},
                                            {"Gi", 0x1p30},
                                            {"Ti", 0x1p40},
                                            {"Pi", 0x1p50},
                                            {"k", 1e3},
                                            {"K", 1e3},
                                            {"M", 1e6},
                                            {"G", 1e9},
                                            {"T", 1e12},
                                            {"P", 1e15},
                                            {"E", 1e18},
                                            {"", 1.0}}};

struct Base {
  std::string_view text;
  double factor;
};

template <size_t N>
std::optional<double> prefixed(std::string_view unit, const std::array<Base, N>& bases) {
  for (const auto& prefix : kPrefixes) {
    if (!unit.starts_with(prefix.text)) continue;
    for (const auto& base : bases)
      if (unit.substr(prefix.text.size()) == base.text) return prefix.factor * base.factor;
  }
  return std::nullopt;
}

template <size_t N>
std::optional<double> listed(std::string_view unit, const std::array<Base, N>& bases) {
  for (const auto& base : bases)
    if (unit == base.text) return base.factor;
  return std::nullopt;
}

std::optional<double> unit_factor(std::string_view unit, Dimension dimension) {
  switch (dimension) {
    case Dimension::time:
      return listed(unit, std::array<Base, 16>{{{"ns", 1e-9},
                                                {"us", 1e-6},
                                                {"µs", 1e-6},
                                                {"ms", 1e-3},
                                                {"s", 1},
                                                {"sec", 1},
                                                {"second", 1},
                                                {"seconds", 1},
                                                {"min", 60},
                                                {"minute", 60},
                                                {"minutes", 60},
                                                {"h", 3600},
                                                {"hour", 3600},
                                                {"hours", 3600},
                                                {"d", 86400},
                                                {"days", 86400}}});
    case Dimension::bytes:
      return prefixed(unit, std::array<Base, 2>{{{"B", 1}, {"b", 0.125}}});
    case Dimension::bandwidth:
      return prefixed(unit,
                      std::array<Base, 5>{{{"B/s", 1}, {"Bps", 1}, {"b/s", 0.125}, {"bps", 0.125}, {"bit/s", 0.125}}});
    case Dimension::compute_rate:
      return prefixed(unit, std::array<Base, 5>{{{"FLOPS", 1}, {"FLOP/s", 1}, {"OPS", 1}, {"OP/s", 1}, {"FLOPs", 1}}});
    case Dimension::rate:
      return listed(unit, std::array<Base, 7>{{{"/s", 1},
                                               {"/second", 1},
                                               {"/min", 1.0 / 60},
                                               {"/minute", 1.0 / 60},
                                               {"/h", 1.0 / 3600},
                                               {"/hour", 1.0 / 3600},
                                               {"/day", 1.0 / 86400}}});
    case Dimension::power:
      return prefixed(unit, std::array<Base, 1>{{{"W", 1}}});
    case Dimension::money:
      return prefixed(unit, std::array<Base, 2>{{{"USD", 1}, {"$", 1}}});
    case Dimension::frequency:
      return prefixed(unit, std::array<Base, 1>{{{"Hz", 1}}});
    case Dimension::ratio:
      return listed(unit, std::array<Base, 2>{{{"", 1}, {"%", 0.01}}});
    case Dimension::count:
      return prefixed(unit, std::array<Base, 1>{{{"", 1}}});
  }
  return std::nullopt;
}

std::string scaled(double value, double step, std::initializer_list<std::string_view> units) {
  auto unit = units.begin();
  double scaled_value = std::abs(value);
  // 0.9995 rounds up to the next unit's 1.00, so that "1000 GB" is never printed for "1 TB".
  while (unit + 1 != units.end() && scaled_value >= step * 0.9995) {
    scaled_value /= step;
    ++unit;
  }
  if (scaled_value >= 1e7)
    return fmt::format("{:.3g}{}{}", std::copysign(scaled_value, value), unit->empty() ? "" : " ", *unit);
  const int decimals = scaled_value >= 99.95 ? 0 : scaled_value >= 9.995 ? 1 : 2;
  std::string text = fmt::format("{:.{}f}", std::copysign(scaled_value, value), decimals);
  if (text.find('.') != std::string::npos) {
    while (text.back() == '0') text.pop_back();
    if (text.back() == '.') text.pop_back();
  }
  return unit->empty() ? text : fmt::format("{} {}", text, *unit);
}

}  // namespace

std::string_view dimension_name(Dimension dimension) {
  return text_of(dimension).name;
}
std::string_view dimension_example(Dimension dimension) {
  return text_of(dimension).example;
}

double parse_quantity(std::string_view text, Dimension dimension) {
  const std::string_view body = trim(text);
  const auto refuse = [&](std::string_view why) {
    return bad_input(fmt::format("'{}' is not a {}{}; write e.g. {}", std::string(text.substr(0, 60)),
                                 dimension_name(dimension), why, dimension_example(dimension)));
  };
  double value = 0;
  const auto [end, error] = std::from_chars(body.data(), body.data() + body.size(), value);
  if (error != std::errc()) throw refuse("");
  if (!std::isfinite(value)) throw refuse(" (it must be finite)");
  if (value < 0) throw refuse(" (it must not be negative)");
  const std::string_view unit = trim(body.substr(static_cast<size_t>(end - body.data())));
  if (unit.empty() && dimension != Dimension::ratio && dimension != Dimension::count)
    throw refuse(" (the unit is missing)");
  const auto factor = unit_factor(unit, dimension);
  if (!factor) throw refuse("");
  const double result = value * *factor;
  if (!std::isfinite(result)) throw refuse(" (it must be finite)");
  return result;
}

std::string format_time(double seconds) {
  const double magnitude = std::abs(seconds);
  if (magnitude == 0) return "0 s";
  if (magnitude < 0.9995e-6) return scaled(seconds * 1e9, 1e3, {"ns"});
  if (magnitude < 0.9995) return scaled(seconds * 1e6, 1e3, {"us", "ms"});
  if (magnitude < 120) return scaled(seconds, 1e9, {"s"});
  if (magnitude < 7200) return scaled(seconds / 60, 1e9, {"min"});
  if (magnitude < 172800) return scaled(seconds / 3600, 1e9, {"h"});
  return scaled(seconds / 86400, 1e9, {"days"});
}

std::string format_bytes(double bytes) {
  return scaled(bytes, 1e3, {"B", "kB", "MB", "GB", "TB", "PB"});
}
std::string format_bandwidth(double rate) {
  return scaled(rate, 1e3, {"B/s", "kB/s", "MB/s", "GB/s", "TB/s", "PB/s"});
}
std::string format_compute_rate(double rate) {
  return scaled(rate, 1e3, {"FLOPS", "kFLOPS", "MFLOPS", "GFLOPS", "TFLOPS", "PFLOPS", "EFLOPS"});
}
std::string format_count(double count) {
  if (std::abs(count) < 1e4) return fmt::format("{:.0f}", count);
  return scaled(count, 1e3, {"", "k", "M", "G", "T"});
}

std::string format_quantity(double value, Dimension dimension) {
  switch (dimension) {
    case Dimension::time:
      return format_time(value);
    case Dimension::bytes:
      return format_bytes(value);
    case Dimension::bandwidth:
      return format_bandwidth(value);
    case Dimension::compute_rate:
      return format_compute_rate(value);
    case Dimension::rate:
      return fmt::format("{:.4g}/s", value);
    case Dimension::power:
      return scaled(value, 1e3, {"W", "kW", "MW"});
    case Dimension::money:
      return fmt::format("{:.0f} USD", value);
    case Dimension::frequency:
      return scaled(value, 1e3, {"Hz", "kHz", "MHz", "GHz"});
    case Dimension::ratio:
      return fmt::format("{:.4g}", value);
    case Dimension::count:
      return fmt::format("{:.10g}", value);
  }
  return {};
}

}  // namespace dssim
