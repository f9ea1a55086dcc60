// SPDX-License-Identifier: Apache-2.0
#include "sim/base/progress.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace dssim {

Progress::Progress(bool enabled)
    : enabled_(enabled), next_(std::chrono::steady_clock::now() + std::chrono::milliseconds(500)) {}

Progress::~Progress() {
  if (shown_) fmt::print(stderr, "\r\x1b[K");
}

bool Progress::stderr_is_terminal() {
  return isatty(STDERR_FILENO) == 1;
}

bool Progress::due() {
  return enabled_ && std::chrono::steady_clock::now() >= next_;
}

void Progress::show(std::string_view line) {
  fmt::print(stderr, "\r\x1b[K{}", line);
  std::fflush(stderr);
  shown_ = true;
  next_ = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
}

}  // namespace dssim
