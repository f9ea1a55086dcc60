// SPDX-License-Identifier: Apache-2.0
#include "workloads/trace.hpp"

#include <gtest/gtest.h>
#include <zlib.h>

#include "sim/base/files.hpp"
#include "tests/support/bad_input.hpp"

namespace dssim {
namespace {

using test::bad_input_of;
using test::ScratchFolder;

// Each catalogue entry states what its file holds, since a stream trusts the entry rather than read the file twice.
TEST(Trace, EveryEntryAgreesWithItsRows) {
  const auto names = trace_names();
  for (const char* name : {"azure-2023-conv", "azure-2023-code", "mooncake-conversation"})
    EXPECT_NE(std::find(names.begin(), names.end(), name), names.end()) << name;
  for (const auto& name : names) {
    const TraceInfo info = load_trace_info(name);
    EXPECT_FALSE(info.licence.empty());
    const auto reader = open_trace(info.file);
    EXPECT_EQ(reader->format(), info.format) << name;
    TraceRow row;
    uint64_t requests = 0;
    double input = 0, output = 0, first_s = 0, last_s = 0;
    for (; reader->next(row); ++requests) {
      if (requests == 0) first_s = row.arrival_s;
      EXPECT_GE(row.arrival_s, last_s);
      last_s = row.arrival_s;
      input += static_cast<double>(row.input_tokens);
      output += static_cast<double>(row.output_tokens);
    }
    EXPECT_EQ(requests, info.requests) << name;
    EXPECT_EQ(first_s, 0) << name;
    EXPECT_DOUBLE_EQ(last_s - first_s, info.duration_s) << name;
    EXPECT_NEAR(input / static_cast<double>(requests), info.mean_input_tokens, 0.0005) << name;
    EXPECT_NEAR(output / static_cast<double>(requests), info.mean_output_tokens, 0.0005) << name;
  }
}

TEST(Trace, UnknownNameNamesTheNearest) {
  EXPECT_EQ(bad_input_of([] { load_trace_info("azure-2023-con"); }),
            "unknown trace 'azure-2023-con'; did you mean 'azure-2023-conv'?");
}

std::vector<TraceRow> rows_of(const std::string& file, std::string_view contents) {
  const ScratchFolder folder;
  return load_trace(folder.write(file, contents)).rows;
}

TEST(Trace, CsvColumnsMayStandAnywhereAndRowsInAnyOrder) {
  const auto rows = rows_of(
      "t.csv", "\xef\xbb\xbfuser,output,\"arrival\",input\r\nann,5,2.5,10\r\n\r\nbob,7,1.25,20\r\neve,9,2.5,30");
  ASSERT_EQ(rows.size(), 3u);
  EXPECT_EQ(rows[0].arrival_s, 1.25);
  EXPECT_EQ(rows[0].input_tokens, 20);
  EXPECT_EQ(rows[0].output_tokens, 7);
  EXPECT_EQ(rows[1].input_tokens, 10);  // equal arrivals keep the file's order
  EXPECT_EQ(rows[2].input_tokens, 30);
}

TEST(Trace, AzureDatesCountFromTheFirstRowAcrossMidnight) {
  const auto rows = rows_of("t.csv",
                            "TIMESTAMP,ContextTokens,GeneratedTokens\n2024-02-28 23:59:59.5000001,1,2\n"
                            "2024-02-29 00:00:01,3,4\n2024-03-01T00:00:00.0Z,5,6\n2024-03-01 02:00:00+01:00,7,8\n");
  ASSERT_EQ(rows.size(), 4u);
  EXPECT_EQ(rows[0].arrival_s, 0);
  EXPECT_DOUBLE_EQ(rows[1].arrival_s, 1.4999999);
  EXPECT_DOUBLE_EQ(rows[2].arrival_s, 86400.4999999);
  EXPECT_DOUBLE_EQ(rows[3].arrival_s, 90000.4999999);
}

TEST(Trace, MooncakeKeysMayStandInAnyOrder) {
  const ScratchFolder folder;
  const auto path =
      folder.write("t.jsonl",
                   "{\"hash_ids\": [7, 8], \"output_length\":3, \"timestamp\": 1500, \"input_length\": 600}\n"
                   "{\"timestamp\": 500, \"input_length\": 512, \"output_length\": 1, \"hash_ids\": [ 7 ]}\n");
  const LoadedTrace trace = load_trace(path);
  ASSERT_EQ(trace.rows.size(), 2u);
  EXPECT_EQ(trace.rows[0].arrival_s, 0.5);
  EXPECT_EQ(trace.rows[1].arrival_s, 1.5);
  EXPECT_EQ(trace.rows[1].blocks, "7, 8");
  EXPECT_EQ(trace.rows[1].output_tokens, 3);
}

TEST(Trace, BadRowsNameFileLineAndColumn) {
  const auto message = [](const std::string& file, const std::string& contents) {
    const ScratchFolder folder;
    const auto path = folder.write(file, contents);
    std::string text = bad_input_of([&] { load_trace(path); });
    if (text.starts_with(folder.path().string())) text = text.substr(folder.path().string().size() + 1);
    return text;
  };
  const std::string h = "arrival,input,output\n";
  EXPECT_EQ(message("t.csv", ""),
            "t.csv: is empty; the first line must name the columns arrival,input,output or "
            "TIMESTAMP,ContextTokens,GeneratedTokens");
  EXPECT_EQ(message("t.csv", h), "t.csv: has no requests");
  EXPECT_NE(message("t.csv", "arrival,inputs,output\n1,2,3\n").find("t.csv:1: column 'input' is missing"),
            std::string::npos);
  EXPECT_EQ(message("t.csv", "arrival,input,output,input\n1,2,3,4\n"), "t.csv:1: column 'input' is there twice");
  EXPECT_EQ(message("t.csv", h + "1,2\n"), "t.csv:2: has 2 fields, the header 3");
  EXPECT_EQ(message("t.csv", h + "1,2,3\n1,2,3,4\n"), "t.csv:3: has 4 fields, the header 3");
  EXPECT_EQ(message("t.csv", h + "nan,2,3\n"), "t.csv:2: arrival: 'nan' is not a number of seconds");
  EXPECT_NE(message("t.csv", h + "-1,2,3\n").find("t.csv:2: arrival: -1 s is outside"), std::string::npos);
  EXPECT_NE(message("t.csv", h + "1700158546,2,3\n").find("count from the start of the run"), std::string::npos);
  EXPECT_EQ(message("t.csv", h + "1,2.5,3\n"), "t.csv:2: input: '2.5' is not a whole number of tokens");
  EXPECT_EQ(message("t.csv", h + "1,2,0\n"), "t.csv:2: output: 0 is outside 1 to 100000000 tokens");
  EXPECT_EQ(message("t.csv", h + "1,999999999999,1\n"),
            "t.csv:2: input: 999999999999 is outside 1 to 100000000 tokens");
  EXPECT_EQ(message("t.csv", h + "1,,1\n"), "t.csv:2: input: '' is not a whole number of tokens");
  const std::string a = "TIMESTAMP,ContextTokens,GeneratedTokens\n";
  EXPECT_EQ(message("t.csv", a + "2023-13-01 00:00:00,1,1\n"),
            "t.csv:2: TIMESTAMP: '2023-13-01 00:00:00' is not a date such as 2023-11-16 18:15:46.6805900");
  EXPECT_EQ(message("t.csv", a + "2023-01-02 00:00:00,1,1\n2023-01-01 00:00:00,1,1\n"),
            "t.csv:3: TIMESTAMP: '2023-01-01 00:00:00' is earlier than the first row");
  EXPECT_EQ(message("t.jsonl", "{\"timestamp\": 1"), "t.jsonl:1: is not one JSON object (cut off?)");
  EXPECT_EQ(message("t.jsonl", "{\"timestamp\": 1}"), "t.jsonl:1: input_length: is missing");
  EXPECT_EQ(message("t.jsonl", R"({"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [1, 2]})"),
            "t.jsonl:1: hash_ids: has 2 ids, but 5 tokens are 1 blocks of 512");
  EXPECT_EQ(message("t.jsonl", R"({"timestamp": 1, "input_length": 5, "output_length": 5, "hash_ids": [-1]})"),
            "t.jsonl:1: hash_ids: '-1' is not a whole number");
  EXPECT_NE(bad_input_of([] { load_trace("/nowhere/t.csv"); }).find("/nowhere/t.csv: no such file"), std::string::npos);
  EXPECT_NE(bad_input_of([] { load_trace("/tmp"); }).find("is a folder"), std::string::npos);
}

TEST(Trace, CompressedFilesReadTheSameAndCutOffOnesAreRefused) {
  const ScratchFolder folder;
  std::string text = "arrival,input,output\n";
  for (int i = 0; i < 20000; ++i)
    text += std::to_string(i) + "," + std::to_string(1 + i * 7919 % 1000) + "," + std::to_string(1 + i % 37) + "\n";
  const auto path = folder.path() / "t.csv.gz";
  gzFile file = gzopen(path.c_str(), "wb");
  gzwrite(file, text.data(), static_cast<unsigned>(text.size()));
  gzclose(file);
  const auto rows = load_trace(path).rows;
  ASSERT_EQ(rows.size(), 20000u);
  EXPECT_EQ(rows[19999].input_tokens, 1 + 19999 * 7919 % 1000);
  std::filesystem::resize_file(path, std::filesystem::file_size(path) / 2);
  const std::string message = bad_input_of([&] { load_trace(path); });
  EXPECT_NE(message.find("t.csv.gz: damaged or truncated"), std::string::npos) << message;
}

}  // namespace
}  // namespace dssim
