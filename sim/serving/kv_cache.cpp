// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/kv_cache.hpp"

#include <algorithm>
#include <cassert>

namespace dssim {

KvCache::KvCache(int64_t total_blocks, int64_t block_tokens, bool prefix_caching)
    : total_(total_blocks), block_tokens_(block_tokens), free_(0), prefix_caching_(prefix_caching) {
  assert(total_blocks >= 0 && block_tokens > 0);
  append_unhashed(total_blocks);
}

uint32_t KvCache::new_node() {
  if (unused_nodes_.empty()) {
    nodes_.emplace_back();
    return static_cast<uint32_t>(nodes_.size() - 1);
  }
  const uint32_t node = unused_nodes_.back();
  unused_nodes_.pop_back();
  nodes_[node] = Node{};
  return node;
}

void KvCache::append(uint32_t node) {
  nodes_[node].previous = newest_;
  nodes_[node].next = kNone;
  if (newest_ != kNone)
    nodes_[newest_].next = node;
  else
    oldest_ = node;
  newest_ = node;
  free_ += nodes_[node].count;
}

void KvCache::unlink(uint32_t node) {
  const Node& n = nodes_[node];
  (n.previous != kNone ? nodes_[n.previous].next : oldest_) = n.next;
  (n.next != kNone ? nodes_[n.next].previous : newest_) = n.previous;
  free_ -= n.count;
}

void KvCache::append_unhashed(int64_t n) {
  if (n == 0) return;
  if (newest_ != kNone && !nodes_[newest_].cached) {
    nodes_[newest_].count += n;
    free_ += n;
    return;
  }
  const uint32_t node = new_node();
  nodes_[node].count = n;
  append(node);
}

KvCache::Match KvCache::match(std::span<const uint64_t> hashes) const {
  Match found;
  if (!prefix_caching_) return found;
  for (const uint64_t hash : hashes) {
    const auto it = node_of_hash_.find(hash);
    if (it == node_of_hash_.end()) break;
    ++found.blocks;
    if (nodes_[it->second].holders == 0) ++found.evictable;
  }
  return found;
}

void KvCache::hold(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held) {
  for (int64_t i = 0; i < blocks; ++i) {
    const uint32_t node = node_of_hash_.at(hashes[static_cast<size_t>(i)]);
    if (nodes_[node].holders++ == 0) unlink(node);
    held.push_back(node);
  }
}

void KvCache::take(int64_t n) {
  assert(n <= free_);
  while (n > 0) {
    Node& node = nodes_[oldest_];
    const int64_t taken = std::min(n, node.count);
    n -= taken;
    if (taken < node.count) {
      node.count -= taken;
      free_ -= taken;
      continue;
    }
    const uint32_t index = oldest_;
    if (node.cached) node_of_hash_.erase(node.hash);
    unlink(index);
    unused_nodes_.push_back(index);
  }
}

void KvCache::publish(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held) {
  if (!prefix_caching_) return;
  for (auto i = static_cast<int64_t>(held.size()); i < blocks; ++i) {
    const uint64_t hash = hashes[static_cast<size_t>(i)];
    const auto [it, added] = node_of_hash_.try_emplace(hash, kNone);
    if (!added) return;
    const uint32_t node = new_node();
    it->second = node;
    nodes_[node].hash = hash;
    nodes_[node].count = 1;
    nodes_[node].cached = true;
    nodes_[node].holders = 1;
    held.push_back(node);
  }
}

void KvCache::release(int64_t unhashed, HashedBlocks& held) {
  append_unhashed(unhashed);
  for (auto it = held.rbegin(); it != held.rend(); ++it)
    if (--nodes_[*it].holders == 0) append(*it);
  held.clear();
  assert(free_ <= total_);
}

}  // namespace dssim
