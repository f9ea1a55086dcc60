// SPDX-License-Identifier: Apache-2.0
#include "platforms/fabric_shape.hpp"

#include <algorithm>
#include <cmath>

namespace dssim {
namespace {

// The divisor of `count` nearest to its `parts`-th root from below, so that the largest side is as short as can be.
int side(int count, int parts) {
  int best = 1;
  const double root = std::pow(count, 1.0 / parts) * (1 + 1e-9);
  for (int d = 1; d <= root; ++d)
    if (count % d == 0) best = d;
  return best;
}

}  // namespace

TorusShape::TorusShape(int nodes, int dimensions) : nodes_(nodes) {
  int left = nodes;
  for (int parts = dimensions; parts > 0; --parts) {
    sizes_.push_back(parts == 1 ? left : side(left, parts));
    left /= sizes_.back();
  }
  std::sort(sizes_.rbegin(), sizes_.rend());
  int stride = 1;
  for (const int size : sizes_) {
    strides_.push_back(stride);
    stride *= size;
  }
}

int TorusShape::coordinate(int node, int dimension) const {
  const auto d = static_cast<size_t>(dimension);
  return node / strides_[d] % sizes_[d];
}

int TorusShape::neighbour(int node, int dimension, int step) const {
  const auto d = static_cast<size_t>(dimension);
  const int here = coordinate(node, dimension);
  return node + ((here + step + sizes_[d]) % sizes_[d] - here) * strides_[d];
}

void TorusShape::path(int from, int to, std::vector<int>& links) const {
  int at = from;
  for (int d = 0; d < dimensions(); ++d) {
    const int size = sizes_[static_cast<size_t>(d)], stride = strides_[static_cast<size_t>(d)];
    int here = coordinate(at, d);
    const int there = coordinate(to, d);
    const int up = (there - here + size) % size;
    // Half-way round either direction is as short: even coordinates take one, odd ones the other, which evens the load.
    const bool upwards = 2 * up == size ? here % 2 == 0 : 2 * up < size;
    for (int steps = upwards ? up : size - up; steps > 0; --steps) {
      links.push_back(link(at, d, upwards));
      const int next = (here + (upwards ? 1 : size - 1)) % size;
      at += (next - here) * stride;
      here = next;
    }
  }
}

DragonflyShape::DragonflyShape(int nodes, int nodes_per_leaf, int leaves_per_group)
    : nodes_per_leaf_(nodes_per_leaf), leaves_per_group_(leaves_per_group) {
  const int leaves = (nodes + nodes_per_leaf - 1) / nodes_per_leaf;
  groups_ = (leaves + leaves_per_group - 1) / leaves_per_group;
}

void DragonflyShape::add_local(int group, int from_leaf, int to_leaf, std::vector<int>& locals) const {
  if (from_leaf != to_leaf) locals.push_back((group * leaves_per_group_ + from_leaf) * leaves_per_group_ + to_leaf);
}

void DragonflyShape::path(int from, int to, std::vector<int>& locals, std::vector<int>& globals) const {
  const int from_group = group_of(from), to_group = group_of(to);
  const int from_leaf = leaf_of(from) % leaves_per_group_, to_leaf = leaf_of(to) % leaves_per_group_;
  if (from_group == to_group) return add_local(from_group, from_leaf, to_leaf, locals);
  add_local(from_group, from_leaf, to_group % leaves_per_group_, locals);
  globals.push_back(from_group * groups_ + to_group);
  add_local(to_group, from_group % leaves_per_group_, to_leaf, locals);
}

}  // namespace dssim
