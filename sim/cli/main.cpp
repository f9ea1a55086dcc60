// SPDX-License-Identifier: Apache-2.0
#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "sim/base/error.hpp"
#include "sim/cli/commands.hpp"

// Dispatch, and the one place where errors become a line on stderr and an exit status.
int main(int argc, char** argv) {
  try {
    return dssim::run_command(std::vector<std::string>(argv + 1, argv + argc));
  } catch (const dssim::Error& e) {
    fmt::print(stderr, "dssim: {}\n", e.what());
    return e.exit_status();
  } catch (const std::exception& e) {
    fmt::print(stderr, "dssim: internal error: {}\n", e.what());
    return 1;
  }
}
