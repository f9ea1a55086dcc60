// SPDX-License-Identifier: Apache-2.0
#include "workloads/line_reader.hpp"

#include <fmt/format.h>
#include <zlib.h>

#include <cerrno>
#include <cstring>

#include "sim/base/error.hpp"

namespace dssim {
namespace {
constexpr size_t kChunkBytes = 1 << 16, kLongestLine = 1 << 26;
}

LineReader::LineReader(const std::filesystem::path& path) : name_(path.string()) {
  std::error_code code;
  if (!std::filesystem::exists(path, code)) throw bad_input(fmt::format("{}: no such file", name_));
  if (std::filesystem::is_directory(path, code)) throw bad_input(fmt::format("{}: is a folder, not a file", name_));
  file_ = gzopen(path.c_str(), "rb");  // reads a file that is not compressed as it is
  if (file_ == nullptr)
    throw bad_input(fmt::format("{}: cannot be opened for reading: {}", name_, std::strerror(errno)));
  gzbuffer(file_, kChunkBytes);
}

LineReader::~LineReader() {
  gzclose(file_);
}

bool LineReader::fill() {
  if (at_end_) return false;
  if (begin_ > 0) {
    std::memmove(buffer_.data(), buffer_.data() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  if (end_ > kLongestLine) throw bad_input(fmt::format("{}:{}: the line is longer than 64 MiB", name_, line_ + 1));
  buffer_.resize(end_ + kChunkBytes);
  const int got = gzread(file_, buffer_.data() + end_, static_cast<unsigned>(kChunkBytes));
  // A cut-off .gz yields its bytes first and says so only through gzerror.
  int status = Z_OK;
  gzerror(file_, &status);
  if (got < 0 || (got == 0 && status != Z_OK)) throw bad_input(fmt::format("{}: damaged or truncated", name_));
  at_end_ = got == 0;
  end_ += static_cast<size_t>(got);
  return !at_end_;
}

bool LineReader::next(std::string_view& line) {
  size_t searched = 0;
  while (true) {
    const char* from = buffer_.data() + begin_ + searched;
    const auto* found = static_cast<const char*>(std::memchr(from, '\n', end_ - begin_ - searched));
    if (found == nullptr) {
      searched = end_ - begin_;
      if (fill()) continue;
      if (searched == 0) return false;
    }
    const size_t length = found != nullptr ? static_cast<size_t>(found - (buffer_.data() + begin_)) : searched;
    line = std::string_view(buffer_.data() + begin_, length);
    begin_ += length + (found != nullptr ? 1 : 0);
    if (line.ends_with('\r')) line.remove_suffix(1);
    ++line_;
    return true;
  }
}

}  // namespace dssim
