// SPDX-License-Identifier: Apache-2.0
#include "workloads/prompt.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace dssim {
namespace {

// SplitMix64's finaliser: every input bit moves every output bit.
uint64_t mix(uint64_t z) {
  z += 0x9e3779b97f4a7c15ULL;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ULL;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebULL;
  return z ^ (z >> 31);
}

// Ids of the two parts of a prompt come from different ranges, so that prefix 3 is not rest 3.
constexpr uint64_t kPrefixSalt = 0x70726566697821ULL, kRestSalt = 0x7265737421ULL, kTraceSalt = 0x747261636521ULL;
constexpr uint64_t kAnswerSalt = 0x616e7377657221ULL;

// Walks "12, 13, 14" one id at a time. The reader of the trace has checked the text.
class IdList {
 public:
  explicit IdList(std::string_view text) : text_(text) {}
  uint64_t next() {
    const size_t digit = std::min(text_.find_first_of("0123456789"), text_.size());
    text_.remove_prefix(digit);
    uint64_t id = 0;
    const auto [end, code] = std::from_chars(text_.data(), text_.data() + text_.size(), id);
    text_.remove_prefix(static_cast<size_t>(end - text_.data()));
    return id;
  }

 private:
  std::string_view text_;
};

void append_trace_hashes(const Request& request, int64_t block_tokens, std::vector<uint64_t>& hashes) {
  IdList ids(request.prompt.trace_blocks);
  const int64_t trace_block = request.prompt.trace_block_tokens;
  uint64_t chain = kTraceSalt, id = 0;
  int64_t read_until = 0;  // tokens that the ids read so far cover
  for (int64_t end = block_tokens; end <= request.input_tokens; end += block_tokens) {
    // The block holds the rest of the id in hand, then every id that begins before its end.
    if (read_until > end - block_tokens) chain = mix(chain ^ mix(id));
    while (read_until < end) {
      id = ids.next();
      read_until += trace_block;
      chain = mix(chain ^ mix(id));
    }
    hashes.push_back(chain);
  }
}

}  // namespace

void append_block_hashes(const Request& request, int64_t block_tokens, std::vector<uint64_t>& hashes) {
  const PromptRef& prompt = request.prompt;
  if (prompt.trace_block_tokens > 0) return append_trace_hashes(request, block_tokens, hashes);
  const uint64_t prefix = mix(prompt.prefix_id ^ kPrefixSalt), rest = mix(prompt.rest_id ^ kRestSalt);
  uint64_t chain = 0;
  for (int64_t end = block_tokens; end <= request.input_tokens; end += block_tokens) {
    const bool in_prefix = end - block_tokens<prompt.prefix_tokens, in_rest = end> prompt.prefix_tokens;
    if (in_prefix) chain = mix(chain ^ prefix);
    if (in_rest) chain = mix(chain ^ rest);
    hashes.push_back(chain);
  }
}

void append_generated_hashes(const Request& request, int64_t block_tokens, int64_t tokens,
                             std::vector<uint64_t>& hashes) {
  // Only this request continues with this answer.
  uint64_t chain = mix(request.id ^ kAnswerSalt);
  while (static_cast<int64_t>(hashes.size() + 1) * block_tokens <= tokens) {
    chain = mix(chain ^ hashes.size());
    hashes.push_back(chain);
  }
}

namespace {

std::optional<TokenDistribution> read_tokens(const Config& workload, const char* key, bool lengths_known,
                                             const std::filesystem::path& base_folder) {
  if (lengths_known && !workload.has(key)) return std::nullopt;
  const Config table = workload.table(key);
  // (Asking for the absent key makes it known, so that a misspelt one is named beside it.)
  if (lengths_known && !table.has("tokens")) return table.find_text("tokens"), std::nullopt;
  return TokenDistribution(table, base_folder);
}

}  // namespace

Prompts::Prompts(const Config& workload, bool lengths_known, uint64_t seed, const std::filesystem::path& base_folder)
    : Prompts(workload, lengths_known, seed, read_tokens(workload, "prompt", lengths_known, base_folder),
              read_tokens(workload, "output", lengths_known, base_folder)) {}

Prompts::Prompts(const Config& workload, bool lengths_known, uint64_t seed, std::optional<TokenDistribution> input,
                 std::optional<TokenDistribution> output)
    : lengths_(input, output, seed), prefix_random_(seed, "prefixes") {
  if (lengths_known && !workload.has("prompt")) return;
  const Config prompt = workload.table("prompt");
  shared_prefix_ = prompt.integer("shared_prefix", {0, 100'000'000}, 0);
  const auto prefixes = prompt.find_integer("prefixes", {1, 1'000'000'000});
  const auto distinct = prompt.find_integer("distinct", {1, 10'000'000});
  const auto fixed = input ? input->constant() : std::nullopt;
  if (fixed && shared_prefix_ > *fixed)
    throw prompt.error("shared_prefix",
                       fmt::format("{} is longer than the prompt's {} tokens", shared_prefix_, *fixed));
  if (prefixes && shared_prefix_ == 0) throw prompt.error("prefixes", "needs shared_prefix, the length of each");
  if (distinct && !input) throw prompt.error("distinct", "needs tokens, since a trace's prompts differ in length");
  if (distinct && prefixes && *distinct < *prefixes)
    throw prompt.error("distinct", fmt::format("{} prompts cannot have {} different prefixes", *distinct, *prefixes));
  prefixes_ = static_cast<uint64_t>(prefixes.value_or(1));
  distinct_ = static_cast<uint64_t>(distinct.value_or(0));
  own_identity_ = input.has_value() || shared_prefix_ > 0;
}

void Prompts::complete(Request& request) {
  if (distinct_ > 0) {
    const uint64_t index = request.id % distinct_;
    if (index == lengths_of_distinct_.size()) {
      lengths_.draw(request.input_tokens, request.output_tokens);
      lengths_of_distinct_.push_back(
          {static_cast<int32_t>(request.input_tokens), static_cast<int32_t>(request.output_tokens)});
    }
    request.input_tokens = lengths_of_distinct_[index].input;
    request.output_tokens = lengths_of_distinct_[index].output;
    request.prompt = {.prefix_id = index % prefixes_,
                      .prefix_tokens = shared_prefix_,
                      .rest_id = index,
                      .trace_blocks = {},
                      .trace_block_tokens = 0};
  } else {
    lengths_.draw(request.input_tokens, request.output_tokens);
    if (own_identity_ || request.prompt.trace_block_tokens == 0) {
      const uint64_t prefix = prefixes_ > 1 ? prefix_random_.below(prefixes_) : 0;
      request.prompt = {.prefix_id = prefix,
                        .prefix_tokens = shared_prefix_,
                        .rest_id = request.id,
                        .trace_blocks = {},
                        .trace_block_tokens = 0};
    }
  }
  request.prompt.prefix_tokens = std::min(request.prompt.prefix_tokens, request.input_tokens);
}

}  // namespace dssim
