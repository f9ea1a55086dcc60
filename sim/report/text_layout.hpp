// SPDX-License-Identifier: Apache-2.0
#pragma once

// Building blocks of the console reports: titles, labelled lines wrapped to 80 columns, bars.

#include <string>
#include <string_view>

namespace dssim {

class TextLayout {
 public:
  explicit TextLayout(bool colour) : colour_(colour) {}

  void title(std::string_view text);  // wrapped
  void section(std::string_view text);
  // "  label        text", the text wrapped and indented to its column.
  void line(std::string_view label, std::string_view text);
  void plain(std::string_view text);  // as it is, less the blanks at its end
  void blank() { text_ += '\n'; }
  void warn(std::string_view label, std::string_view text);  // like line, marked

  std::string take() { return std::move(text_); }

  static std::string bar(double share, int width);
  static std::string percent(double ratio);  // "3.4 %", "12 %"

 private:
  std::string styled(std::string_view code, std::string_view text) const;
  void wrapped(std::string_view shown_label, size_t label_width, std::string_view text);

  bool colour_;
  std::string text_;
};

}  // namespace dssim
