// SPDX-License-Identifier: Apache-2.0
#pragma once

// The paged KV cache of one replica, in blocks of `block_tokens` tokens, as vLLM's V1 block pool keeps it.
//
// With prefix caching, a full block of a prompt is known by the hash of everything up to its end. A block is shared
// while sequences hold it; when the last one lets go it stays findable until the space is needed, oldest first (LRU).
// The same block computed twice is there twice, and the first copy is the one found: vLLM does not merge them either
// (vllm/v1/core/block_pool.py, 0.8 to 0.19).
// Blocks of generated tokens have no hash (their text is unknown), but they pass through the same LRU order when they
// are freed, as they do in vLLM, and so push older cached blocks out.
//
// Invariant: free + held = total, at every step. Without prefix caching only counts are kept.

#include <cstdint>
#include <span>
#include <vector>

namespace dssim {

class KvCache {
 public:
  KvCache(int64_t total_blocks, int64_t block_tokens, bool prefix_caching);

  int64_t block_tokens() const { return block_tokens_; }
  int64_t total_blocks() const { return total_; }
  int64_t free_blocks() const { return free_; }
  bool prefix_caching() const { return prefix_caching_; }
  int64_t blocks_for(int64_t tokens) const { return (tokens + block_tokens_ - 1) / block_tokens_; }

  // The hashed blocks a sequence holds. Its unhashed ones are a plain count that the sequence's owner knows.
  using HashedBlocks = std::vector<uint32_t>;

  struct Match {
    int64_t blocks = 0;     // leading blocks found
    int64_t evictable = 0;  // of these, how many nobody holds: taking them uses up free blocks
  };
  Match match(std::span<const uint64_t> hashes) const;

  // Holds the first `blocks` of `hashes`, which match() found, for the sequence.
  void hold(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held);
  // Takes `n` free blocks, evicting the oldest unheld cached ones; n ≤ free_blocks().
  void take(int64_t n);
  // Makes taken blocks findable: block i of the sequence, for i from held.size(), gets hashes[i], up to `blocks`.
  void publish(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held);
  // Gives everything back: `unhashed` blocks and the hashed ones, last block first, so that a prefix outlives its
  // suffixes.
  void release(int64_t unhashed, HashedBlocks& held);

 private:
  // A node of the LRU list of free blocks: a cached block nobody holds, or a run of blocks with nothing findable in
  // them.
  struct Node {
    uint64_t hash = 0;
    uint32_t previous = kNone, next = kNone;
    uint32_t next_in_bucket = kNone;                    // of the first copy
    uint32_t previous_copy = kNone, next_copy = kNone;  // a ring, in order of publication
    int64_t count = 0;                                  // 1 for a cached block
    uint32_t holders = 0;
    bool cached = false;
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  uint32_t new_node();
  void append(uint32_t node);
  void unlink(uint32_t node);
  void append_unhashed(int64_t n);

  // Cached nodes by hash: the first copy of each in a chain of its bucket (a power of two), the others in its ring.
  uint32_t& bucket(uint64_t hash) { return buckets_[hash & (buckets_.size() - 1)]; }
  uint32_t find(uint64_t hash) const;  // kNone where there is none
  void make_findable(uint32_t node);
  void forget(uint32_t node);
  void grow();

  int64_t total_, block_tokens_, free_;
  bool prefix_caching_;
  std::vector<Node> nodes_;
  std::vector<uint32_t> unused_nodes_;
  uint32_t oldest_ = kNone, newest_ = kNone;
  std::vector<uint32_t> buckets_;
  size_t hashes_ = 0;  // different ones
};

}  // namespace dssim
