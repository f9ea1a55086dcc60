// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <string>
#include <vector>

#include "sim/base/error.hpp"
#include "sim/cli/commands.hpp"

namespace {

// An error message as one line that a terminal shows as it is: names and words out of a damaged file may hold anything.
std::string printable(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  return text;
}

}  // namespace

// Dispatch, and the one place where errors become a line on stderr and an exit status. An answer that did not reach
// stdout (a full disk) is a failure too: what is missing only shows once the buffer is written out.
int main(int argc, char** argv) {
  try {
    const int status = dssim::run_command(std::vector<std::string>(argv + 1, argv + argc));
    if (std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      throw dssim::failure(fmt::format("standard output: writing failed: {}", std::strerror(errno)));
    return status;
  } catch (const dssim::Error& e) {
    fmt::print(stderr, "dssim: {}\n", printable(e.what()));
    return e.exit_status();
  } catch (const std::exception& e) {
    fmt::print(stderr, "dssim: internal error: {}\n", printable(e.what()));
    return 1;
  }
}
