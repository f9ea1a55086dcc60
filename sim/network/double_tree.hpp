// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

namespace dssim {

// Parents in the two trees of a double binary tree over `nodes`, −1 at the root: each node is a leaf in one tree and
// inside the other, so both together load every node alike (Sanders, Speck, Träff, 2009).
struct DoubleTree {
  std::vector<int> first, second;
};
DoubleTree double_tree(int nodes);

}  // namespace dssim
