// SPDX-License-Identifier: Apache-2.0
#include "sim/report/text_layout.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

constexpr size_t kWidth = 80, kLabel = 13;

// Columns a UTF-8 text takes: its code points (the reports use none that are wider).
size_t columns(std::string_view text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

}  // namespace

std::string TextLayout::styled(std::string_view code, std::string_view text) const {
  return colour_ ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

void TextLayout::title(std::string_view text) {
  text_ += styled("1", text) + '\n';
}

void TextLayout::section(std::string_view text) {
  text_ += '\n' + styled("1;36", text) + '\n';
}

void TextLayout::plain(std::string_view text) {
  text_ += text;
  text_ += '\n';
}

void TextLayout::wrapped(std::string_view shown_label, size_t label_width, std::string_view text) {
  text_ += "  ";
  text_ += shown_label;
  text_.append(label_width < kLabel ? kLabel - label_width : 1, ' ');
  const size_t indent = 2 + std::max(kLabel, label_width + 1);
  size_t used = indent;
  bool first = true;
  while (!text.empty()) {
    const auto space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    text = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
    if (!first && used + 1 + columns(word) > kWidth) {
      text_ += '\n';
      text_.append(2 + kLabel, ' ');
      used = 2 + kLabel;
    } else if (!first) {
      text_ += ' ';
      ++used;
    }
    text_ += word;
    used += columns(word);
    first = false;
  }
  text_ += '\n';
}

void TextLayout::line(std::string_view label, std::string_view text) {
  wrapped(styled("2", label), columns(label), text);
}

void TextLayout::warn(std::string_view label, std::string_view text) {
  wrapped(styled("33", label), columns(label), text);
}

std::string TextLayout::bar(double share, int width) {
  const int full = static_cast<int>(std::lround(std::clamp(share, 0.0, 1.0) * width));
  std::string text;
  for (int i = 0; i < width; ++i) text += i < full ? "█" : "·";
  return text;
}

std::string TextLayout::percent(double ratio) {
  const double p = 100 * ratio;
  return p > 0 && p < 9.95 ? fmt::format("{:.1f} %", p) : fmt::format("{:.0f} %", p);
}

}  // namespace dssim
