// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs the built dssim as a user does: words in; stdout, stderr and exit status out.

#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "support/scenario.hpp"

namespace dssim::test {

struct Output {
  std::string out, error;
  int status = -1;
};

inline std::string contents(const std::filesystem::path& path) {
  std::ostringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

// `arguments` as a shell would see them. Standard input is empty.
inline Output dssim(const std::string& arguments) {
  const TemporaryFile out(".out"), error(".err");
  const std::string command = std::string(DSSIM_BINARY) + " " + arguments + " </dev/null >" + out.path().string() +
                              " 2>" + error.path().string();
  const int status = std::system(command.c_str());
  return {contents(out.path()), contents(error.path()),
          WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)};
}

}  // namespace dssim::test
