// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/kv_cache.hpp"

#include <algorithm>
#include <cassert>
#include <utility>

namespace dssim {

KvCache::KvCache(int64_t total_blocks, int64_t block_tokens, bool prefix_caching)
    : total_(total_blocks),
      block_tokens_(block_tokens),
      free_(0),
      prefix_caching_(prefix_caching),
      buckets_(64, kNone) {
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

uint32_t KvCache::find(uint64_t hash) const {
  uint32_t node = buckets_[hash & (buckets_.size() - 1)];
  while (node != kNone && nodes_[node].hash != hash) node = nodes_[node].next_in_bucket;
  return node;
}

void KvCache::make_findable(uint32_t node) {
  Node& n = nodes_[node];
  const uint32_t first = find(n.hash);
  if (first != kNone) {
    n.next_copy = first;
    n.previous_copy = nodes_[first].previous_copy;
    nodes_[n.previous_copy].next_copy = node;
    nodes_[first].previous_copy = node;
    return;
  }
  if (++hashes_ > buckets_.size()) grow();
  n.previous_copy = n.next_copy = node;
  n.next_in_bucket = std::exchange(bucket(n.hash), node);
}

void KvCache::forget(uint32_t node) {
  const Node& n = nodes_[node];
  uint32_t* link = &bucket(n.hash);
  while (nodes_[*link].hash != n.hash) link = &nodes_[*link].next_in_bucket;
  if (n.next_copy == node) {
    *link = n.next_in_bucket;
    --hashes_;
    return;
  }
  if (*link == node) {
    nodes_[n.next_copy].next_in_bucket = n.next_in_bucket;
    *link = n.next_copy;
  }
  nodes_[n.previous_copy].next_copy = n.next_copy;
  nodes_[n.next_copy].previous_copy = n.previous_copy;
}

void KvCache::grow() {
  const std::vector<uint32_t> old = std::exchange(buckets_, std::vector<uint32_t>(4 * buckets_.size(), kNone));
  for (uint32_t node : old)
    while (node != kNone) {
      const uint32_t next = nodes_[node].next_in_bucket;
      nodes_[node].next_in_bucket = std::exchange(bucket(nodes_[node].hash), node);
      node = next;
    }
}

KvCache::Match KvCache::match(std::span<const uint64_t> hashes) const {
  Match found;
  if (!prefix_caching_) return found;
  for (const uint64_t hash : hashes) {
    const uint32_t node = find(hash);
    if (node == kNone) break;
    ++found.blocks;
    if (nodes_[node].holders == 0) ++found.evictable;
  }
  return found;
}

void KvCache::hold(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held) {
  for (int64_t i = 0; i < blocks; ++i) {
    const uint32_t node = find(hashes[static_cast<size_t>(i)]);
    assert(node != kNone);
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
    if (node.cached) forget(index);
    unlink(index);
    unused_nodes_.push_back(index);
  }
}

void KvCache::publish(std::span<const uint64_t> hashes, int64_t blocks, HashedBlocks& held) {
  if (!prefix_caching_) return;
  for (auto i = static_cast<int64_t>(held.size()); i < blocks; ++i) {
    const uint32_t node = new_node();
    nodes_[node].hash = hashes[static_cast<size_t>(i)];
    nodes_[node].count = 1;
    nodes_[node].cached = true;
    nodes_[node].holders = 1;
    make_findable(node);
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
