// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/kv_cache.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace dssim {
namespace {

using Hashes = std::vector<uint64_t>;

TEST(KvCache, CountsBlocks) {
  KvCache kv(10, 16, false);
  KvCache::HashedBlocks none;
  EXPECT_EQ(kv.blocks_for(1), 1);
  EXPECT_EQ(kv.blocks_for(16), 1);
  EXPECT_EQ(kv.blocks_for(17), 2);
  kv.take(4);
  EXPECT_EQ(kv.free_blocks(), 6);
  kv.release(4, none);
  EXPECT_EQ(kv.free_blocks(), 10);
}

TEST(KvCache, SharesAPrefixAndKeepsItAfterRelease) {
  KvCache kv(10, 16, true);
  const Hashes prompt{1, 2, 3};
  KvCache::HashedBlocks first, second;
  EXPECT_EQ(kv.match(prompt).blocks, 0);
  kv.take(3);
  kv.publish(prompt, 3, first);
  EXPECT_EQ(kv.match(prompt).blocks, 3);
  EXPECT_EQ(kv.match(prompt).evictable, 0);
  kv.hold(prompt, 2, second);
  EXPECT_EQ(kv.free_blocks(), 7);  // shared blocks are counted once
  kv.release(0, first);
  EXPECT_EQ(kv.free_blocks(), 8);  // block 3 is free but findable; 1 and 2 are held by `second`
  EXPECT_EQ(kv.match(prompt).blocks, 3);
  EXPECT_EQ(kv.match(prompt).evictable, 1);
  kv.release(0, second);
  EXPECT_EQ(kv.free_blocks(), 10);
}

TEST(KvCache, EvictsTheOldestAndSuffixesBeforePrefixes) {
  KvCache kv(6, 16, true);
  KvCache::HashedBlocks a, b;
  kv.take(3);
  kv.publish(Hashes{1, 2, 3}, 3, a);
  kv.take(3);
  kv.publish(Hashes{11, 12, 13}, 3, b);
  kv.release(0, a);  // free order: 3, 2, 1
  kv.release(0, b);  // then 13, 12, 11
  kv.take(1);
  EXPECT_EQ(kv.match(Hashes{1, 2, 3}).blocks, 2);
  kv.take(2);
  EXPECT_EQ(kv.match(Hashes{1, 2, 3}).blocks, 0);
  EXPECT_EQ(kv.match(Hashes{11, 12, 13}).blocks, 3);
  kv.take(1);
  EXPECT_EQ(kv.match(Hashes{11, 12, 13}).blocks, 2);
}

// Two sequences that compute the same block at once keep a copy each; what follows is their own, and found.
TEST(KvCache, TheSameBlockComputedTwiceIsThereTwice) {
  KvCache kv(6, 16, true);
  KvCache::HashedBlocks a, b, c;
  kv.take(1);
  kv.publish(Hashes{5}, 1, a);
  kv.take(2);
  kv.publish(Hashes{5, 6}, 2, b);
  EXPECT_EQ(b.size(), 2u);
  EXPECT_EQ(kv.free_blocks(), 3);
  EXPECT_EQ(kv.match(Hashes{5, 6}).blocks, 2);
  // The first copy is found as long as it is there, then the other.
  kv.hold(Hashes{5}, 1, c);
  EXPECT_EQ(c, a);
  kv.release(0, c);
  kv.release(0, a);
  EXPECT_EQ(kv.match(Hashes{5, 6}).evictable, 1);  // a's block, though b holds a copy
  kv.take(4);                                      // the three never used, and a's
  EXPECT_EQ(kv.match(Hashes{5, 6}).blocks, 2);
  EXPECT_EQ(kv.match(Hashes{5, 6}).evictable, 0);
  kv.hold(Hashes{5}, 1, c);
  EXPECT_EQ(c[0], b[0]);
  kv.release(0, c);
  kv.release(0, b);
  kv.release(4, c);
  EXPECT_EQ(kv.free_blocks(), 6);
}

// Many blocks at once: the table grows, and the oldest copy stays the one found.
TEST(KvCache, FindsEveryBlockOfMany) {
  constexpr int64_t kBlocks = 5000;
  KvCache kv(2 * kBlocks, 16, true);
  Hashes hashes;
  for (uint64_t i = 0; i < kBlocks; ++i) hashes.push_back(i * 0x9e3779b97f4a7c15U);
  KvCache::HashedBlocks first, copies, found;
  kv.take(2 * kBlocks);
  kv.publish(hashes, kBlocks, first);
  kv.publish(hashes, kBlocks, copies);
  kv.hold(hashes, kBlocks, found);
  EXPECT_EQ(found, first);
  kv.release(0, found);
  kv.release(0, first);
  kv.take(kBlocks);  // the first copies
  kv.hold(hashes, kBlocks, found);
  EXPECT_EQ(found, copies);
}

// Random sequences come and go: blocks are conserved, and match() never finds more than was published.
TEST(KvCache, ConservesBlocksUnderRandomUse) {
  std::mt19937 random(5);
  KvCache kv(64, 4, true);
  struct Held {
    Hashes hashes;
    int64_t unhashed;
    KvCache::HashedBlocks blocks;
  };
  std::vector<Held> live;
  for (int round = 0; round < 20000; ++round) {
    if (random() % 2 == 0 || live.empty()) {
      Held h;
      const uint64_t family = random() % 8;
      for (uint64_t i = 0, n = 1 + random() % 6; i < n; ++i) h.hashes.push_back(family * 100 + i);
      const auto match = kv.match(h.hashes);
      const auto fresh = static_cast<int64_t>(h.hashes.size()) - match.blocks;
      if (fresh + match.evictable > kv.free_blocks()) continue;
      kv.hold(h.hashes, match.blocks, h.blocks);
      kv.take(fresh);
      kv.publish(h.hashes, static_cast<int64_t>(h.hashes.size()), h.blocks);
      h.unhashed = static_cast<int64_t>(h.hashes.size() - h.blocks.size());
      live.push_back(std::move(h));
    } else {
      const size_t at = random() % live.size();
      kv.release(live[at].unhashed, live[at].blocks);
      live.erase(live.begin() + static_cast<ptrdiff_t>(at));
    }
    std::vector<uint32_t> distinct;
    int64_t unhashed = 0;
    for (const auto& h : live)
      distinct.insert(distinct.end(), h.blocks.begin(), h.blocks.end()), unhashed += h.unhashed;
    std::sort(distinct.begin(), distinct.end());
    distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
    ASSERT_EQ(kv.free_blocks() + unhashed + static_cast<int64_t>(distinct.size()), kv.total_blocks());
  }
}

}  // namespace
}  // namespace dssim
