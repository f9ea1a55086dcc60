// SPDX-License-Identifier: Apache-2.0
#pragma once

// One line on stderr that is rewritten a few times a second, only where stderr is a terminal. Costs one clock read per
// call of update(), so callers with millions of steps call it every few thousand.

#include <chrono>
#include <string>
#include <string_view>

namespace dssim {

class Progress {
 public:
  explicit Progress(bool enabled);
  ~Progress();  // clears the line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  static bool stderr_is_terminal();
  bool enabled() const { return enabled_; }
  // Whether enough time has passed to show another line.
  bool due();
  void show(std::string_view line);

 private:
  bool enabled_;
  bool shown_ = false;
  std::chrono::steady_clock::time_point next_;
};

}  // namespace dssim
