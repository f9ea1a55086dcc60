// SPDX-License-Identifier: Apache-2.0
#pragma once

// Lines of a text file, plain or .gz, read as they are asked for: the first rows of a long trace cost no more than
// themselves. Errors: bad_input where the file is missing, damaged or cut off, or a line is longer than 64 MiB.

#include <filesystem>
#include <string>
#include <string_view>

struct gzFile_s;

namespace dssim {

class LineReader {
 public:
  explicit LineReader(const std::filesystem::path& path);
  ~LineReader();
  LineReader(const LineReader&) = delete;
  LineReader& operator=(const LineReader&) = delete;

  // The next line without its end ("\n" or "\r\n"); valid until the next call. False after the last.
  bool next(std::string_view& line);
  int line() const { return line_; }  // number of the line last returned, from 1
  const std::string& name() const { return name_; }

 private:
  bool fill();

  std::string name_;
  gzFile_s* file_;
  std::string buffer_;
  size_t begin_ = 0, end_ = 0;  // the unread part of the buffer
  bool at_end_ = false;
  int line_ = 0;
};

}  // namespace dssim
