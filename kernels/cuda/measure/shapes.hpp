// SPDX-License-Identifier: Apache-2.0
// Shapes to measure: the matrix products and attention heads of the models dssim's catalogue knows, cut for tensor
// parallelism over 1, 2, 4 and 8 GPUs, and a regular grid between them.
#pragma once

#include <utility>
#include <vector>

namespace dssim::cuda {

struct Product {
  int n;
  int k;
  bool few_rows;  // the output head: only the last token of each sequence goes through it
};

// Linear layers of all catalogue models at TP 1, 2, 4, 8, without repetitions; `main_only` keeps the models most in
// use.
std::vector<Product> catalogue_products(bool main_only);

// n x k on a regular grid, for shapes no catalogue model has.
std::vector<Product> grid_products();

// (heads, kv_heads) per GPU, most in use first.
std::vector<std::pair<int, int>> attention_heads();

}  // namespace dssim::cuda
