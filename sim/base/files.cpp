// SPDX-License-Identifier: Apache-2.0
#include "sim/base/files.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <utility>

#include "sim/base/error.hpp"

namespace dssim {
namespace fs = std::filesystem;

// Traces, which may be longer, are read line by line. A .gz of 1 MB can unpack to this much.
constexpr size_t kMostBytes = size_t{1} << 30;

std::string read_file(const fs::path& path) {
  std::error_code code;
  if (!fs::exists(path, code)) throw bad_input(fmt::format("{}: no such file", path.string()));
  if (fs::is_directory(path, code)) throw bad_input(fmt::format("{}: is a folder, not a file", path.string()));
  if (fs::is_character_file(path, code)) throw bad_input(fmt::format("{}: is a device, not a file", path.string()));
  // gzopen reads a file that is not compressed as it is.
  const std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw bad_input(fmt::format("{}: cannot be opened for reading: {}", path.string(), std::strerror(errno)));
  gzbuffer(file.get(), 1 << 17);
  std::string text;
  size_t used = 0;
  while (true) {
    text.resize(std::max<size_t>(used * 2, 1 << 18));
    const int got = gzread(file.get(), text.data() + used, static_cast<unsigned>(text.size() - used));
    if (got < 0) throw bad_input(fmt::format("{}: damaged or truncated", path.string()));
    if (got == 0) break;
    used += static_cast<size_t>(got);
    if (used > kMostBytes) throw bad_input(fmt::format("{}: is longer than 1 GiB", path.string()));
  }
  int status = Z_OK;
  gzerror(file.get(), &status);
  if (status != Z_OK) throw bad_input(fmt::format("{}: damaged or truncated", path.string()));
  text.resize(used);
  return text;
}

void require_writable(const fs::path& path) {
  if (path.empty()) throw bad_input("the name of a file to write is empty");
  std::error_code code;
  if (fs::is_directory(path, code)) throw bad_input(fmt::format("{}: is a folder, not a file", path.string()));
  const fs::path folder = path.has_parent_path() ? path.parent_path() : ".";
  if (!fs::is_directory(folder, code))
    throw bad_input(fmt::format("{}: cannot be created: {} is no folder", path.string(), folder.string()));
}

AtomicFile::AtomicFile(fs::path path) : path_(std::move(path)), partial_(path_) {
  require_writable(path_);
  std::error_code code;
  const fs::file_status there = fs::symlink_status(path_, code);
  if (!fs::exists(there) || fs::is_regular_file(there)) partial_ += ".partial";
  file_ = std::fopen(partial_.c_str(), "wb");
  if (file_ == nullptr) throw bad_input(fmt::format("{}: cannot be created: {}", path_.string(), std::strerror(errno)));
}

AtomicFile::~AtomicFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  if (partial_ == path_) return;
  std::error_code ignored;
  fs::remove(partial_, ignored);
}

void AtomicFile::write(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), file_) != text.size())
    throw failure(fmt::format("{}: writing failed: {}", path_.string(), std::strerror(errno)));
}

void AtomicFile::commit() {
  std::FILE* file = std::exchange(file_, nullptr);
  if (std::fclose(file) != 0)
    throw failure(fmt::format("{}: writing failed: {}", path_.string(), std::strerror(errno)));
  if (partial_ == path_) return;
  std::error_code code;
  fs::rename(partial_, path_, code);
  if (code) throw failure(fmt::format("{}: writing failed: {}", path_.string(), code.message()));
}

fs::path data_root() {
  if (const char* set = std::getenv("DSSIM_DATA"); set != nullptr && *set != '\0') {
    if (!fs::is_directory(fs::path(set) / "platforms/catalogue"))
      throw bad_input(fmt::format("DSSIM_DATA={}: holds no platforms/catalogue", set));
    return set;
  }
  std::error_code code;
  const fs::path executable = fs::read_symlink("/proc/self/exe", code);
  if (!code) {
    const fs::path installed = executable.parent_path().parent_path() / "share/dssim";
    if (fs::is_directory(installed / "platforms/catalogue", code)) return installed;
  }
  if (fs::is_directory(fs::path(DSSIM_SOURCE_DIR) / "platforms/catalogue", code)) return DSSIM_SOURCE_DIR;
  throw failure("dssim's data folders were not found; set DSSIM_DATA to the folder that holds platforms/catalogue");
}

std::vector<std::string> names_in(const fs::path& folder, std::string_view suffix) {
  std::vector<std::string> names;
  std::error_code code;
  for (const auto& entry : fs::directory_iterator(folder, code)) {
    const std::string name = entry.path().filename().string();
    if (name.size() > suffix.size() && name.ends_with(suffix))
      names.push_back(name.substr(0, name.size() - suffix.size()));
  }
  std::sort(names.begin(), names.end());
  return names;
}

}  // namespace dssim
