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

// The words of a text in lines up to the page's width: `used` columns of the first are taken, the others are indented.
std::string filled(std::string_view text, size_t used, size_t indent) {
  std::string lines;
  for (bool first = true; !text.empty(); first = false) {
    const auto space = text.find(' ');
    const std::string_view word = text.substr(0, space);
    text = space == std::string_view::npos ? std::string_view() : text.substr(space + 1);
    if (!first && used + 1 + columns(word) > kWidth) {
      lines += '\n';
      lines.append(indent, ' ');
      used = indent;
    } else if (!first) {
      lines += ' ';
      ++used;
    }
    lines += word;
    used += columns(word);
  }
  return lines;
}

}  // namespace

std::string TextLayout::styled(std::string_view code, std::string_view text) const {
  return colour_ ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
}

void TextLayout::title(std::string_view text) {
  text_ += styled("1", filled(text, 0, 2)) + '\n';
}

void TextLayout::section(std::string_view text) {
  text_ += '\n' + styled("1;36", text) + '\n';
}

void TextLayout::plain(std::string_view text) {
  text_ += text.substr(0, text.find_last_not_of(' ') + 1);
  text_ += '\n';
}

void TextLayout::wrapped(std::string_view shown_label, size_t label_width, std::string_view text) {
  text_ += "  ";
  text_ += shown_label;
  text_.append(label_width < kLabel ? kLabel - label_width : 1, ' ');
  const size_t indent = 2 + std::max(kLabel, label_width + 1);
  text_ += filled(text, indent, indent) + '\n';
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
