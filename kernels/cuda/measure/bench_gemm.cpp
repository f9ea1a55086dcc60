// SPDX-License-Identifier: Apache-2.0
// gemm.csv (weights cold), gemm_fp16.csv and gemm_hot.csv (a few shapes in fp16, and with weights in L2),
// check_gemm.csv (random shapes).
#include <algorithm>
#include <set>
#include <tuple>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/measure/shapes.hpp"
#include "kernels/cuda/ops/gemm.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kGib = std::size_t{1} << 30;
constexpr std::size_t kAlign = 256;

struct Shape {
  DataType type;
  int m, n, k;
  bool operator<(const Shape& o) const { return std::tie(type, m, n, k) < std::tie(o.type, o.m, o.n, o.k); }
};

class GemmBench {
 public:
  GemmBench(Bench& bench, int algorithms)
      : bench_(bench),
        algorithms_(algorithms),
        weights_(affordable_bytes(9 * kGib / 2, 0.5)),
        activations_(affordable_bytes(kGib, 0.2)),
        outputs_(affordable_bytes(2 * kGib, 0.6)) {}

  void fill(DataType type) {
    if (filled_ && type == type_) return;
    type_ = type;
    filled_ = true;
    for (const Buffer* buffer : {&weights_, &activations_}) {
      std::size_t count = buffer->bytes() / input_bytes(type);
      uint32_t seed = buffer == &weights_ ? 1 : 2;
      if (type == DataType::bf16) fill_bf16(buffer->as(), count, 1.0f, seed);
      if (type == DataType::fp16) fill_fp16(buffer->as(), count, 0.1f, seed);
      if (type == DataType::fp8) fill_fp8(buffer->as(), count, 1.0f, seed);
      if (type == DataType::int8) fill_int8(buffer->as(), count, seed);
    }
  }

  void row(Table& table, const Shape& s, bool cold = true) {
    fill(s.type);
    std::size_t weight_bytes = static_cast<std::size_t>(s.n) * s.k * input_bytes(s.type);
    std::size_t activation_bytes = static_cast<std::size_t>(s.m) * s.k * input_bytes(s.type);
    std::size_t output_size = static_cast<std::size_t>(s.m) * s.n * output_bytes(s.type);
    if (weight_bytes > weights_.bytes() || activation_bytes > activations_.bytes() || output_size > outputs_.bytes()) {
      ++too_large_;
      return;
    }
    Gemm gemm(context_, s.type, s.m, s.n, s.k, algorithms_);
    if (gemm.algorithms() == 0) {
      ++unsupported_;
      return;
    }
    std::size_t step = (weight_bytes + kAlign - 1) / kAlign * kAlign;
    std::size_t sets = std::max<std::size_t>(1, weights_.bytes() / step);
    auto run = [&](int algorithm, int i, cudaStream_t stream) {
      std::size_t set = cold ? i % sets : 0;
      gemm.run(algorithm, activations_.as(), weights_.as(set * step), outputs_.as(), stream);
    };
    int best = bench_.meter.fastest(gemm.algorithms(), run);
    auto reading = bench_.meter.measure([&](int i, cudaStream_t stream) { run(best, i, stream); },
                                        cold ? bench_.meter.calls_past_l2(static_cast<double>(weight_bytes)) : 1);
    if (reading) table.row(*reading, name_of(s.type), s.m, s.n, s.k);
  }

  void note_skipped() {
    bench_.notes.push_back("unsupported_shapes = " + std::to_string(unsupported_));
    bench_.notes.push_back("shapes_beyond_memory = " + std::to_string(too_large_));
  }

 private:
  Bench& bench_;
  int algorithms_;
  GemmContext context_;
  Buffer weights_;
  Buffer activations_;
  Buffer outputs_;
  DataType type_ = DataType::bf16;
  bool filled_ = false;
  long unsupported_ = 0;
  long too_large_ = 0;
};

// Every 16 rows from 192 to 512, which a step of decodes and a short prompt has: there cuBLASLt's tiles for Hopper grow in
// steps of 8, so that 392 rows take a tenth less than 448 (H100, 2026-11-22).
const std::vector<int> kAllRows = {
    1,   2,   4,   8,   12,  16,   24,   32,   48,   64,   80,   96,   128,  160,  192,  208,  224,  240,  256, 272,
    288, 304, 320, 336, 352, 368,  384,  400,  416,  432,  448,  464,  480,  496,  512,  528,  544,  576,  608, 640,
    704, 768, 832, 896, 960, 1024, 1088, 1152, 1280, 1408, 1536, 1664, 1792, 2048, 2560, 3072, 4096, 6144, 8192};
const std::vector<int> kSomeRows = {1,   2,   4,   8,   16,   32,   64,   96,   128,  192,  256, 384,
                                    512, 640, 768, 896, 1024, 1280, 1536, 2048, 3072, 4096, 8192};
const std::vector<int> kEighthRows = {1, 4, 8, 16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192};
const std::vector<int> kFewRows = {1, 16, 64, 256, 1024, 4096};
constexpr int kMostHeadRows = 512;

void add(std::vector<Shape>& shapes, DataType type, const std::vector<Product>& products,
         const std::vector<int>& rows) {
  for (const Product& p : products) {
    for (int m : rows) {
      if (!p.few_rows || m <= kMostHeadRows) shapes.push_back({type, m, p.n, p.k});
    }
  }
}

template <typename T>
std::vector<T> every(const std::vector<T>& all, std::size_t step) {
  std::vector<T> some;
  for (std::size_t i = 0; i < all.size(); i += step) some.push_back(all[i]);
  return some;
}

std::vector<Shape> grid(const Bench& bench) {
  std::vector<Shape> shapes;
  if (bench.quick) {
    auto main = catalogue_products(true);
    add(shapes, DataType::bf16, every(main, 5), kFewRows);
    add(shapes, DataType::bf16, every(grid_products(), 17), kFewRows);
    if (bench.gpu.has_fp8()) add(shapes, DataType::fp8, every(main, 20), kFewRows);
    add(shapes, DataType::int8, every(main, 40), {64, 1024});
    return shapes;
  }
  add(shapes, DataType::bf16, catalogue_products(true), kAllRows);
  add(shapes, DataType::bf16, catalogue_products(false), kSomeRows);
  add(shapes, DataType::bf16, grid_products(), kSomeRows);
  if (bench.gpu.has_fp8()) {
    add(shapes, DataType::fp8, catalogue_products(true), kEighthRows);
    add(shapes, DataType::fp8, every(grid_products(), 2), kEighthRows);
  }
  add(shapes, DataType::int8, every(catalogue_products(true), 3), {16, 32, 64, 128, 256, 512, 1024, 4096});
  return shapes;
}

}  // namespace

void measure_gemm(Bench& bench) {
  std::vector<Shape> shapes = grid(bench);
  std::set<Shape> measured;
  GemmBench gemm(bench, bench.quick ? 3 : 5);
  Table table = bench.profile.begin("gemm", "dtype,m,n,k,seconds,mad");
  for (const Shape& s : shapes) {
    if (measured.insert(s).second) gemm.row(table, s);
  }
  gemm.note_skipped();
  table.finish();

  // fp16 runs at bf16's rate; these few rows show how nearly.
  Table half = bench.profile.begin("gemm_fp16", "dtype,m,n,k,seconds,mad");
  for (const Product& p : every(catalogue_products(true), bench.quick ? 40 : 7)) {
    for (int m : kFewRows) {
      if (!p.few_rows || m <= kMostHeadRows) gemm.row(half, {DataType::fp16, m, p.n, p.k});
    }
  }
  half.finish();

  Table hot = bench.profile.begin("gemm_hot", "dtype,m,n,k,seconds,mad");
  for (const Product& p : {Product{4096, 4096, false}, Product{6144, 4096, false}, Product{2048, 4096, false}}) {
    for (int m : kFewRows) gemm.row(hot, {DataType::bf16, m, p.n, p.k}, false);
  }
  hot.finish();

  Table check = bench.profile.begin("check_gemm", "dtype,m,n,k,seconds,mad");
  ShapeGenerator random(20261121);
  int wanted = bench.quick ? 30 : 200;
  for (int i = 0; i < wanted; ++i) {
    DataType type = i >= wanted * 3 / 4 && bench.gpu.has_fp8() ? DataType::fp8 : DataType::bf16;
    int m = random.draw(1, 8192, 1);
    int n = random.draw(512, 32768, 64);
    int k = random.draw(512, 28672, 64);
    if (measured.insert({type, m, n, k}).second) gemm.row(check, {type, m, n, k});
  }
  check.finish();
  bench.profile.end(table, "gemm", bench.notes);
}

}  // namespace dssim::cuda
