// SPDX-License-Identifier: Apache-2.0
#include "workloads/prompt.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "tests/support/bad_input.hpp"
#include "workloads/request_stream.hpp"

namespace dssim {
namespace {

std::vector<uint64_t> hashes_of(const Request& request, int64_t block_tokens = 16) {
  std::vector<uint64_t> hashes;
  append_block_hashes(request, block_tokens, hashes);
  return hashes;
}

Request with_prefix(uint64_t prefix, int64_t prefix_tokens, uint64_t rest, int64_t input_tokens) {
  Request request;
  request.input_tokens = input_tokens;
  request.prompt = {.prefix_id = prefix,
                    .prefix_tokens = prefix_tokens,
                    .rest_id = rest,
                    .trace_blocks = {},
                    .trace_block_tokens = 0};
  return request;
}

Request of_trace(std::string_view blocks, int64_t input_tokens) {
  Request request;
  request.input_tokens = input_tokens;
  request.prompt.trace_blocks = blocks;
  request.prompt.trace_block_tokens = 512;
  return request;
}

// How many leading blocks two prompts share, and that they share none after the first that differs.
size_t shared_blocks(const std::vector<uint64_t>& a, const std::vector<uint64_t>& b) {
  size_t shared = 0;
  while (shared < std::min(a.size(), b.size()) && a[shared] == b[shared]) ++shared;
  const std::set<uint64_t> seen(a.begin(), a.end());
  for (size_t i = shared; i < b.size(); ++i) EXPECT_FALSE(seen.contains(b[i])) << i;
  return shared;
}

TEST(BlockHashes, OnlyFullBlocksCount) {
  EXPECT_EQ(hashes_of(with_prefix(0, 0, 1, 15)).size(), 0u);
  EXPECT_EQ(hashes_of(with_prefix(0, 0, 1, 16)).size(), 1u);
  EXPECT_EQ(hashes_of(with_prefix(0, 0, 1, 575)).size(), 35u);
  EXPECT_EQ(hashes_of(of_trace("1, 2", 600), 64).size(), 9u);
}

TEST(BlockHashes, PromptsShareTheFullBlocksOfTheirPrefix) {
  const auto a = hashes_of(with_prefix(3, 100, 1, 575)), b = hashes_of(with_prefix(3, 100, 2, 800));
  EXPECT_EQ(shared_blocks(a, b),
            6u);  // 100 / 16; the seventh block holds four tokens of the prefix and twelve of the rest
  EXPECT_EQ(shared_blocks(a, hashes_of(with_prefix(4, 100, 1, 575))), 0u);
  EXPECT_EQ(shared_blocks(a, hashes_of(with_prefix(3, 100, 1, 575))), 35u);  // the same prompt
  EXPECT_EQ(shared_blocks(a, hashes_of(with_prefix(3, 100, 1, 320))), 20u);  // the same, cut short
  // A prefix shorter than a block still tells the first block apart.
  EXPECT_EQ(shared_blocks(hashes_of(with_prefix(3, 10, 1, 64)), hashes_of(with_prefix(4, 10, 1, 64))), 0u);
  // A prompt that is all prefix: the prefix's blocks and no more.
  EXPECT_EQ(shared_blocks(a, hashes_of(with_prefix(3, 96, 9, 96))), 6u);
}

TEST(BlockHashes, TraceBlocksAreCutIntoSmallerOnes) {
  const auto a = hashes_of(of_trace("0, 1, 2", 1300)), b = hashes_of(of_trace("0, 1, 7, 8", 1600));
  EXPECT_EQ(a.size(), 81u);
  EXPECT_EQ(std::set<uint64_t>(a.begin(), a.end()).size(), 81u);
  EXPECT_EQ(shared_blocks(a, b), 64u);  // two blocks of 512 in sixteens
  EXPECT_EQ(shared_blocks(hashes_of(of_trace("5, 1", 1024)), hashes_of(of_trace("0, 1", 1024))),
            0u);  // 1 after another 0
  // Blocks of 48 straddle the trace's: the eleventh ends at 528, in a block that differs.
  EXPECT_EQ(shared_blocks(hashes_of(of_trace("0,1", 1024), 48), hashes_of(of_trace("0,2", 1024), 48)), 10u);
  // Blocks larger than the trace's.
  EXPECT_EQ(shared_blocks(hashes_of(of_trace("0,1,2,3", 2048), 1024), hashes_of(of_trace("0,1,2,4", 2048), 1024)), 1u);
}

TEST(BlockHashes, AllBlocksOfManyPromptsDiffer) {
  std::set<uint64_t> seen;
  size_t count = 0;
  for (uint64_t id = 0; id < 2000; ++id)
    for (const uint64_t hash : hashes_of(with_prefix(0, 0, id, 512))) count += 1, seen.insert(hash);
  EXPECT_EQ(seen.size(), count);
}

std::unique_ptr<RequestStream> stream_of(const std::string& prompt, uint64_t seed = 1) {
  const Config file =
      Config::parse("[workload]\nkind = \"constant\"\nrate = \"1/s\"\nrequests = 900\nprompt = " + prompt +
                        "\noutput = { tokens = 248 }\n",
                    "s.toml");
  auto stream = make_request_stream(file.table("workload"), seed, ".");
  file.finish();
  return stream;
}

// The load of the published H100 measurements: 9 prefixes of 100 tokens, 45 prompts in turn.
TEST(Prompts, DistinctPromptsComeInTurnOverThePrefixes) {
  const auto stream = stream_of("{ tokens = 575, shared_prefix = 100, prefixes = 9, distinct = 45 }");
  Request r;
  std::vector<std::vector<uint64_t>> seen;
  while (stream->next(r)) seen.push_back(hashes_of(r));
  ASSERT_EQ(seen.size(), 900u);
  for (size_t i = 45; i < 900; ++i) EXPECT_EQ(seen[i], seen[i - 45]);
  EXPECT_EQ(shared_blocks(seen[0], seen[9]), 6u);
  EXPECT_EQ(shared_blocks(seen[0], seen[1]), 0u);
  EXPECT_EQ(shared_blocks(seen[4], seen[40]), 6u);
}

TEST(Prompts, DistinctPromptsKeepTheirLengths) {
  const auto stream =
      stream_of("{ tokens = { lognormal = { median = 300, sigma = 1.0, max = 2000 } }, distinct = 10 }");
  Request r;
  std::vector<int64_t> lengths;
  while (stream->next(r)) lengths.push_back(r.input_tokens);
  for (size_t i = 10; i < lengths.size(); ++i) EXPECT_EQ(lengths[i], lengths[i - 10]);
  EXPECT_GT(std::set<int64_t>(lengths.begin(), lengths.end()).size(), 5u);
}

TEST(Prompts, PrefixesAreDrawnEvenly) {
  const auto stream = stream_of("{ tokens = 320, shared_prefix = 64, prefixes = 4 }");
  Request r;
  std::map<uint64_t, int> counts;
  while (stream->next(r)) ++counts[r.prompt.prefix_id];
  ASSERT_EQ(counts.size(), 4u);
  for (const auto& [prefix, count] : counts) EXPECT_NEAR(count, 225, 52) << prefix;  // 4 standard deviations of 13
}

TEST(Prompts, WithoutSharingEveryPromptIsItsOwn) {
  const auto stream = stream_of("{ tokens = 64 }");
  Request r;
  std::set<uint64_t> seen;
  while (stream->next(r))
    for (const uint64_t hash : hashes_of(r)) seen.insert(hash);
  EXPECT_EQ(seen.size(), 900u * 4);
}

TEST(Prompts, ContradictionsAreRefused) {
  const auto message = [](const std::string& prompt) { return test::bad_input_of([&] { stream_of(prompt); }); };
  EXPECT_EQ(message("{ tokens = 50, shared_prefix = 100 }"),
            "s.toml:5: workload.prompt.shared_prefix: 100 is longer than the prompt's 50 tokens");
  EXPECT_NE(message("{ tokens = 50, prefixes = 3 }").find("prefixes: needs shared_prefix"), std::string::npos);
  EXPECT_NE(message("{ tokens = 50, shared_prefix = 10, prefixes = 9, distinct = 5 }")
                .find("5 prompts cannot have 9 different prefixes"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = 0 }").find("tokens: 0 is outside"), std::string::npos);
  EXPECT_NE(message("{ tokens = 10.5 }").find("must be a whole number, {"), std::string::npos);
  EXPECT_NE(message("{ tokens = { normal = 3 } }").find("must be one of { uniform = {"), std::string::npos);
  EXPECT_NE(message("{ tokens = { lognormal = { median = 300, sigma = 1.0, max = 200 } } }")
                .find("median: 300 is above max = 200"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = { uniform = { min = 300, max = 200 } } }").find("min: 300 is above max = 200"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = { uniform = { min = 1, max = 2 }, empirical = \"azure-2023-conv\" } }")
                .find("must be one of"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = { lognormal = { median = 300, sigma = nan, max = 2000 } } }").find("sigma"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = { empirical = \"azure\" } }")
                .find("'azure' is neither a trace (azure-2023-code, azure-2023-conv"),
            std::string::npos);
  EXPECT_NE(message("{ tokens = 10, distinckt = 4 }").find("did you mean 'distinct'"), std::string::npos);
  EXPECT_NE(message("{ shared_prefix = 4 }").find("tokens: is missing"), std::string::npos);
}

}  // namespace
}  // namespace dssim
