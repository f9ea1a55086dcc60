// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/batch.hpp"

#include <algorithm>

#include "kernels/cuda/ops/attention.hpp"

namespace dssim::cuda {
namespace {

int pages_for(int tokens) {
  return (tokens + kPageTokens - 1) / kPageTokens;
}

int slot_of(std::span<const int> pages, int position) {
  return pages[static_cast<std::size_t>(position / kPageTokens)] * kPageTokens + position % kPageTokens;
}

}  // namespace

BatchLayout lay_out(const BatchShape& shape, const GraphSizes& graphs) {
  BatchLayout l;
  l.shape = shape;
  auto batch = std::lower_bound(graphs.batches.begin(), graphs.batches.end(), shape.decodes);
  auto context = std::lower_bound(graphs.contexts.begin(), graphs.contexts.end(), shape.longest_decode);
  l.graph = shape.chunks == 0 && batch != graphs.batches.end() && context != graphs.contexts.end();
  if (l.graph) {
    l.tokens = l.decodes = l.rows = *batch;
    l.context = *context;
    l.decode_width = pages_for(*context);
  } else {
    l.tokens = round_up(shape.tokens(), kTokenStep);
    l.decodes = shape.decodes;
    l.rows = round_up(shape.rows, kTokenStep);
    l.context = shape.longest_decode;
    l.decode_width = pages_for(shape.longest_decode);
    l.chunk_width = pages_for(shape.longest_chunk);
  }
  int next = 0;
  auto place = [&](int count) {
    int at = next;
    next += round_up(count, 4);  // 16 bytes
    return at;
  };
  l.ids = place(l.tokens);
  l.positions = place(l.tokens);
  l.slots = place(l.tokens);
  l.head_rows = place(l.rows);
  l.decode_kv = place(l.decodes);
  l.query_start = place(shape.chunks + 1);
  l.chunk_kv = place(shape.chunks);
  l.decode_pages = place(l.decodes * l.decode_width);
  l.chunk_pages = place(shape.chunks * l.chunk_width);
  l.total = next;
  return l;
}

void Batch::clear() {
  decodes_.clear();
  chunks_.clear();
  shape_ = {};
}

void Batch::add_decode(std::span<const int> pages, int kv_tokens, int id) {
  decodes_.push_back({pages, kv_tokens, id});
  ++shape_.decodes;
  ++shape_.rows;
  shape_.longest_decode = std::max(shape_.longest_decode, kv_tokens);
}

void Batch::add_chunk(std::span<const int> pages, int past_tokens, std::span<const int> ids, bool yields_token) {
  chunks_.push_back({pages, past_tokens, ids, yields_token});
  int tokens = static_cast<int>(ids.size());
  ++shape_.chunks;
  shape_.rows += yields_token;
  shape_.chunk_tokens += tokens;
  shape_.longest_query = std::max(shape_.longest_query, tokens);
  shape_.longest_chunk = std::max(shape_.longest_chunk, past_tokens + tokens);
}

void Batch::write(const BatchLayout& l, int* to) const {
  int token = 0;
  int row = 0;
  auto put = [&](int id, int position, int slot) {
    to[l.ids + token] = id;
    to[l.positions + token] = position;
    to[l.slots + token] = slot;
    return token++;
  };
  for (std::size_t i = 0; i < decodes_.size(); ++i) {
    const Decode& d = decodes_[i];
    to[l.decode_kv + static_cast<int>(i)] = d.kv_tokens;
    std::copy_n(d.pages.begin(), pages_for(d.kv_tokens), to + l.decode_pages + static_cast<long>(i) * l.decode_width);
    to[l.head_rows + row++] = put(d.id, d.kv_tokens - 1, slot_of(d.pages, d.kv_tokens - 1));
  }
  for (int i = static_cast<int>(decodes_.size()); i < l.decodes; ++i) {  // padding attends to one token of page 0
    to[l.decode_kv + i] = 1;
    to[l.decode_pages + static_cast<long>(i) * l.decode_width] = 0;
    to[l.head_rows + row++] = put(0, 0, 0);
  }
  to[l.query_start] = 0;
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    const Chunk& c = chunks_[i];
    int length = c.past + static_cast<int>(c.ids.size());
    to[l.query_start + static_cast<int>(i) + 1] =
        to[l.query_start + static_cast<int>(i)] + static_cast<int>(c.ids.size());
    to[l.chunk_kv + static_cast<int>(i)] = length;
    std::copy_n(c.pages.begin(), pages_for(length), to + l.chunk_pages + static_cast<long>(i) * l.chunk_width);
    int last = 0;
    for (int p = c.past; p < length; ++p)
      last = put(c.ids[static_cast<std::size_t>(p - c.past)], p, slot_of(c.pages, p));
    if (c.yields_token) to[l.head_rows + row++] = last;
  }
  while (token < l.tokens) put(0, 0, 0);
  while (row < l.rows) to[l.head_rows + row++] = 0;
}

}  // namespace dssim::cuda
