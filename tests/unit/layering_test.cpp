// SPDX-License-Identifier: Apache-2.0
// The layering rule over the include graph: a folder includes only itself and folders above it; SimGrid is seen in
// sim/engine and platforms alone, toml++ in sim/base alone, JSON output in sim/report alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <string>
#include <vector>

namespace dssim {
namespace {
namespace fs = std::filesystem;

const std::vector<std::string> kLayers{"sim/base",    "sim/engine",  "platforms",   "kernels",     "workloads",
                                       "sim/results", "sim/network", "sim/storage", "sim/serving", "sim/training",
                                       "sim/report",  "sim/study",   "sim/cli"};

// dssim-calibrate is a program like the command line: it stands on every library, and nothing stands on it.
int layer_of(const std::string& path) {
  if (path.starts_with("kernels/cuda/")) return static_cast<int>(kLayers.size());
  // dssim-calibrate is a program, and its engine runs under the scheduler: above every library, as sim/cli.
  if (path.starts_with("kernels/cuda/engine/") || path == "kernels/cuda/main.cpp")
    return static_cast<int>(kLayers.size());
  for (size_t i = 0; i < kLayers.size(); ++i)
    if (path.starts_with(kLayers[i] + "/")) return static_cast<int>(i);
  return -1;
}

struct Include {
  std::string file, what;
  int line;
};

std::vector<Include> all_includes() {
  const std::regex pattern("^\\s*#\\s*include\\s*[<\"]([^>\"]+)[>\"]");
  std::vector<Include> found;
  for (const char* top : {"sim", "platforms", "kernels", "workloads"}) {
    for (const auto& entry : fs::recursive_directory_iterator(fs::path(DSSIM_SOURCE_DIR) / top)) {
      const auto extension = entry.path().extension();
      if (extension != ".hpp" && extension != ".cpp") continue;
      const std::string name = fs::relative(entry.path(), DSSIM_SOURCE_DIR).string();
      std::ifstream in(entry.path());
      std::string line;
      std::smatch match;
      for (int number = 1; std::getline(in, line); ++number)
        if (std::regex_search(line, match, pattern)) found.push_back({name, match[1], number});
    }
  }
  return found;
}

TEST(Layering, EachFolderIncludesOnlyWhatStandsAbove) {
  int checked = 0;
  for (const auto& include : all_includes()) {
    const int from = layer_of(include.file), to = layer_of(include.what);
    ASSERT_GE(from, 0) << include.file << " is in no layer";
    if (to < 0) continue;
    ++checked;
    EXPECT_LE(to, from) << include.file << ":" << include.line << " includes " << include.what;
  }
  EXPECT_GT(checked, 50);
}

TEST(Layering, LibrariesStayInTheirRooms) {
  for (const auto& include : all_includes()) {
    const auto within = [&](std::initializer_list<const char*> folders) {
      return std::any_of(folders.begin(), folders.end(), [&](const char* f) { return include.file.starts_with(f); });
    };
    if (include.what.starts_with("simgrid") || include.what.starts_with("xbt")) {
      EXPECT_TRUE(within({"sim/engine/", "platforms/"})) << include.file << ":" << include.line;
    }
    if (include.what.starts_with("toml++")) {
      EXPECT_TRUE(within({"sim/base/"})) << include.file << ":" << include.line;
    }
    // workloads/huggingface.cpp reads JSON; only sim/report writes any.
    if (include.what.starts_with("nlohmann")) {
      EXPECT_TRUE(within({"sim/report/", "workloads/huggingface"})) << include.file << ":" << include.line;
    }
  }
}

TEST(Layering, IncludesAreRootedAtTheRepository) {
  for (const auto& include : all_includes())
    if (include.what.find("..") != std::string::npos)
      ADD_FAILURE() << include.file << ":" << include.line << " " << include.what;
}

}  // namespace
}  // namespace dssim
