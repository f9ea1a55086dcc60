// SPDX-License-Identifier: Apache-2.0
#pragma once

// Fabrics that are no tree: which of their links a message from one node to another crosses. Pure arithmetic on node
// numbers.
//
//   torus      node n at (x, y, …), x running fastest, in a grid as near to a cube as the count allows; a link to each
//              neighbour, both ways round. A message goes along x, then y, …, each the shorter way round.
//   dragonfly  leaves (routers) of nodes_per_leaf nodes in groups; every two leaves of a group are linked, and every
//   two
//              groups. A message goes by the leaf that holds its group's link: at most local, global, local (minimal
//              routing; Kim, Dally, Scott, Abts: Technology-driven, highly-scalable dragonfly topology, ISCA 2008).

#include <vector>

namespace dssim {

class TorusShape {
 public:
  TorusShape() = default;
  TorusShape(int nodes, int dimensions);

  int dimensions() const { return static_cast<int>(sizes_.size()); }
  const std::vector<int>& sizes() const { return sizes_; }
  int coordinate(int node, int dimension) const;
  int neighbour(int node, int dimension, int step) const;  // ±1 along it, round the end
  int link_count() const { return nodes_ * 2 * dimensions(); }
  int link(int node, int dimension, bool upwards) const {
    return (node * dimensions() + dimension) * 2 + (upwards ? 0 : 1);
  }
  void path(int from, int to, std::vector<int>& links) const;  // appends

 private:
  int nodes_ = 0;
  std::vector<int> sizes_, strides_;
};

class DragonflyShape {
 public:
  DragonflyShape() = default;
  DragonflyShape(int nodes, int nodes_per_leaf, int leaves_per_group);

  int groups() const { return groups_; }
  int local_count() const { return groups_ * leaves_per_group_ * leaves_per_group_; }
  int global_count() const { return groups_ * groups_; }
  bool same_group(int from, int to) const { return group_of(from) == group_of(to); }
  // Appends link numbers: of the local ones, from 0, and of the global ones, from 0.
  void path(int from, int to, std::vector<int>& locals, std::vector<int>& globals) const;

 private:
  int leaf_of(int node) const { return node / nodes_per_leaf_; }
  int group_of(int node) const { return leaf_of(node) / leaves_per_group_; }
  void add_local(int group, int from_leaf, int to_leaf, std::vector<int>& locals) const;

  int nodes_per_leaf_ = 1, leaves_per_group_ = 1, groups_ = 1;
};

}  // namespace dssim
