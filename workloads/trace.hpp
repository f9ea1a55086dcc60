// SPDX-License-Identifier: Apache-2.0
#pragma once

// Recorded requests: workloads/traces/<name>.toml says what a trace is, and which file beside it holds the rows.
//
// Formats, told from the file itself:
//   csv       arrival,input,output                      a header, then seconds and tokens; other columns are passed
//   over azure     TIMESTAMP,ContextTokens,GeneratedTokens   dates with a time of day; the first row is second 0
//   mooncake  *.jsonl                                   timestamp (ms), input_length, output_length, hash_ids (one a
//   block of 512 tokens: equal ids are shared prefixes)
// Any of them may be compressed (.gz). Every row needs at least one token in and one out.
// Errors: bad_input "file:line: column: what is wrong".

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

struct TraceInfo {
  std::string name, title, source, licence, format;
  std::filesystem::path file;
  uint64_t requests = 0;
  double duration_s = 0;  // from the first arrival to the last
  double mean_input_tokens = 0, mean_output_tokens = 0;

  // Gaps between arrivals over the time they take.
  double mean_rate_per_s() const { return static_cast<double>(requests - 1) / duration_s; }
};

std::vector<std::string> trace_names();
TraceInfo load_trace_info(const std::string& name);

struct TraceRow {
  double arrival_s = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  std::string_view
      blocks;  // the text between the brackets of hash_ids, where there are any; lives as long as the reader
};
inline constexpr int64_t kMooncakeBlockTokens = 512;

// Rows in the order of the file, read and checked as they are asked for.
class TraceReader {
 public:
  virtual ~TraceReader() = default;
  virtual bool next(TraceRow& row) = 0;
  virtual std::string_view format() const = 0;
  virtual std::string where() const = 0;  // "file:line" of the row last read
};
std::unique_ptr<TraceReader> open_trace(const std::filesystem::path& path);

// A whole file, sorted by arrival (rows of equal arrival keep their order). It keeps its reader, since rows may point
// into it.
struct LoadedTrace {
  std::vector<TraceRow> rows;
  std::unique_ptr<TraceReader> reader;
};
LoadedTrace load_trace(const std::filesystem::path& path);

}  // namespace dssim
