// SPDX-License-Identifier: Apache-2.0
// One step's work as arrays of ints that go to every GPU in one copy. A step holds decoding sequences (one token each),
// then prefill chunks. Decodes alone run from a captured graph: the batch is padded up to one of the captured sizes, the
// page table widened to one of the captured contexts. Any other step runs eagerly, its tokens padded to a multiple of
// kTokenStep, so that every product has a size whose algorithm was chosen beforehand. Padding rows write to page 0,
// which belongs to nobody.
#pragma once

#include <span>
#include <vector>

namespace dssim::cuda {

inline constexpr int kTokenStep = 16;

inline int round_up(int value, int step) {
  return (value + step - 1) / step * step;
}

struct BatchShape {
  int decodes = 0;
  int chunks = 0;
  int chunk_tokens = 0;
  int rows = 0;  // tokens that pass the output head: every decode, and the last one of a chunk that ends its prompt
  int longest_decode = 0;  // KV tokens, the new one included
  int longest_chunk = 0;   // KV tokens, the chunk included
  int longest_query = 0;   // new tokens of one chunk

  int tokens() const { return decodes + chunk_tokens; }
};

// Sizes as they run, and where each array begins in the buffer.
struct BatchLayout {
  BatchShape shape;
  bool graph = false;
  int tokens = 0;                         // padded
  int decodes = 0;                        // padded
  int rows = 0;                           // padded
  int context = 0;                        // KV tokens that the split of decode attention is made for
  int decode_width = 0, chunk_width = 0;  // pages per row of the page tables
  int ids = 0, positions = 0, slots = 0, head_rows = 0, decode_kv = 0, query_start = 0, chunk_kv = 0, decode_pages = 0,
      chunk_pages = 0;
  int total = 0;  // ints
};

// What the captured graphs cover, ascending; empty: everything runs eagerly.
struct GraphSizes {
  std::vector<int> batches;
  std::vector<int> contexts;
};

BatchLayout lay_out(const BatchShape& shape, const GraphSizes& graphs);

// Collects the sequences of one step.
class Batch {
 public:
  void clear();
  // `pages` and `ids` must live until write(). `kv_tokens` counts the new token.
  void add_decode(std::span<const int> pages, int kv_tokens, int id);
  void add_chunk(std::span<const int> pages, int past_tokens, std::span<const int> ids, bool yields_token);

  const BatchShape& shape() const { return shape_; }
  void write(const BatchLayout& layout, int* to) const;

 private:
  struct Decode {
    std::span<const int> pages;
    int kv_tokens, id;
  };
  struct Chunk {
    std::span<const int> pages;
    int past;
    std::span<const int> ids;
    bool yields_token;
  };
  std::vector<Decode> decodes_;
  std::vector<Chunk> chunks_;
  BatchShape shape_;
};

}  // namespace dssim::cuda
