// SPDX-License-Identifier: Apache-2.0
#pragma once

// Which text a prompt is, without the text: what a prefix cache needs to know.
//
//   prompt = { shared_prefix = 100, prefixes = 9 }   each request starts with one of nine texts, drawn at random
//   prompt = { …, distinct = 45 }                    45 different prompts in turn; prompt i has prefix i mod 9, and the
//                                                    same lengths every time
// Otherwise every prompt is unlike any other, or, in a trace with hash_ids, what those ids say.

#include <cstdint>
#include <string_view>
#include <vector>

#include "sim/base/config.hpp"
#include "sim/base/random.hpp"
#include "workloads/token_lengths.hpp"

namespace dssim {

// `prefix_tokens` of a shared prefix, then a rest; prompts that agree in both ids are the same text. A trace that knows
// its blocks names them instead.
struct PromptRef {
  uint64_t prefix_id = 0;
  int64_t prefix_tokens = 0;
  uint64_t rest_id = 0;
  std::string_view trace_blocks;  // "12, 13, 14": ids of the prompt's blocks; lives as long as its stream
  int64_t trace_block_tokens = 0;
};

struct Request {
  uint64_t id = 0;  // 0, 1, 2, … in arrival order
  double arrival_s = 0;
  int64_t input_tokens = 0, output_tokens = 0;  // both ≥ 1
  PromptRef prompt;
};

// Hash of every full block of `block_tokens` of the prompt, appended: equal hashes mean the same tokens at the same
// place with the same tokens before them, which is what a prefix cache asks. Allocates nothing but the vector's growth.
void append_block_hashes(const Request& request, int64_t block_tokens, std::vector<uint64_t>& hashes);

// The same for blocks that hold generated tokens too: continues `hashes`, which append_block_hashes filled, to the full
// blocks of the first `tokens` of prompt and answer. They match nothing but this request, when it is computed again.
void append_generated_hashes(const Request& request, int64_t block_tokens, int64_t tokens,
                             std::vector<uint64_t>& hashes);

// Gives each request its lengths and the identity of its prompt.
class Prompts {
 public:
  // `lengths_known`: the kind of workload brings lengths of its own, so that prompt and output may be left out.
  Prompts(const Config& workload, bool lengths_known, uint64_t seed, const std::filesystem::path& base_folder);

  void complete(Request& request);

 private:
  Prompts(const Config& workload, bool lengths_known, uint64_t seed, std::optional<TokenDistribution> input,
          std::optional<TokenDistribution> output);

  TokenLengths lengths_;
  RandomStream prefix_random_;
  bool own_identity_ = false;  // the scenario says which prompts are alike; a trace's ids no longer count
  int64_t shared_prefix_ = 0;
  uint64_t prefixes_ = 1, distinct_ = 0;
  std::vector<TokenPair> lengths_of_distinct_;
};

}  // namespace dssim
