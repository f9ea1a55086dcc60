// SPDX-License-Identifier: Apache-2.0
#pragma once

// Whole files in, whole files out, and where dssim's data (catalogue, models, profiles, traces) lies.

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

// The contents, unpacked where they are gzip. Throws Error(bad_input): no such file, unreadable, truncated, over 1 GiB.
std::string read_file(const std::filesystem::path& path);

// Refuses a path that cannot become a file: an empty one, a folder, one in a folder that does not exist. For asking
// before a long run whether its result will have a place. Throws Error(bad_input).
void require_writable(const std::filesystem::path& path);

// Writes to "<path>.partial" beside it and renames at commit(), so that an interrupted or failing run leaves nothing
// half-written. What is there already and is no plain file (a device, a pipe, a link) is written to, never replaced.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path);  // throws Error(bad_input) where it can't be created
  ~AtomicFile();                                    // removes the partial file unless committed
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  void write(std::string_view text);
  void commit();

 private:
  std::filesystem::path path_, partial_;
  std::FILE* file_;
};

// Root of the data folders (platforms/catalogue, workloads/models, workloads/traces, kernels/profiles): $DSSIM_DATA,
// else ../share/dssim beside the executable, else the source tree this binary was built from.
std::filesystem::path data_root();

// Stems of the files "<name><suffix>" in a folder, sorted; empty where the folder does not exist.
std::vector<std::string> names_in(const std::filesystem::path& folder, std::string_view suffix);

}  // namespace dssim
