// SPDX-License-Identifier: Apache-2.0
#include "sim/network/double_tree.hpp"

#include <cstddef>

namespace dssim {
namespace {

// The binary tree over 0 … n−1 in which odd numbers are leaves: node i (> 0) with lowest set bit b hangs under the node
// whose bit above b is set and b itself is clear, or, where there is none that high, under the one with b cleared.
std::vector<int> in_order_tree(int n) {
  std::vector<int> parent(static_cast<size_t>(n), -1);
  for (int i = 1; i < n; ++i) {
    const int bit = i & -i;
    int up = (i ^ bit) | (bit << 1);
    if (up >= n) up = i ^ bit;
    parent[static_cast<size_t>(i)] = up;
  }
  return parent;
}

}  // namespace

DoubleTree double_tree(int nodes) {
  DoubleTree trees{in_order_tree(nodes), std::vector<int>(static_cast<size_t>(nodes), -1)};
  // The mirror image for an even count, a shift by one for an odd one, turns every leaf into an inner node.
  const bool even = nodes % 2 == 0;
  const auto image = [&](int i) { return even ? nodes - 1 - i : (i + 1) % nodes; };
  for (int i = 0; i < nodes; ++i) {
    const int parent = trees.first[static_cast<size_t>(i)];
    trees.second[static_cast<size_t>(image(i))] = parent < 0 ? -1 : image(parent);
  }
  return trees;
}

}  // namespace dssim
