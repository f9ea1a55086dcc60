// SPDX-License-Identifier: Apache-2.0
// elementwise.csv: width is what one row is wide: the normalised row (add_rmsnorm), the output (silu_mul), the query
// and key heads (rope, which writes the KV cache too), the embedding row, the vocabulary (sampler). Inputs are as the
// kernel before left them: in L2 if they fit.
#include <algorithm>
#include <set>
#include <tuple>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kGib = std::size_t{1} << 30;
constexpr int kHeadDim = 128;
constexpr int kMostRows = 16384;
constexpr int kMostWidth = 16384;  // of an embedding row
constexpr int kSlots = 65536;

class ElementwiseBench {
 public:
  explicit ElementwiseBench(Bench& bench)
      : bench_(bench),
        a_(affordable_bytes(2 * kGib, 0.3)),
        b_(affordable_bytes(kGib, 0.3)),
        c_(affordable_bytes(kGib, 0.3)),
        ids_(kMostRows * sizeof(int)),
        slots_(kMostRows * sizeof(int)),
        workspace_(sample_workspace_bytes(kMostRows)) {
    for (const Buffer* buffer : {&a_, &b_, &c_}) fill_bf16(buffer->as(), buffer->bytes() / 2, 1.0f, 11);
    fill_ids(ids_.as<int>(), kMostRows, vocabulary(), 12);
    std::vector<int> slots(kMostRows);
    for (int i = 0; i < kMostRows; ++i)
      slots[i] = (i / kPageTokens * 37 % (kSlots / kPageTokens)) * kPageTokens + i % kPageTokens;
    slots_.upload(slots);
    DSSIM_CUDA(cudaMemset(workspace_.as(), 0, workspace_.bytes()));
  }

  void row(Table& table, const std::string& kernel, int rows, int width, int heads = 0, int kv_heads = 0) {
    std::size_t bytes = static_cast<std::size_t>(rows) * width * 2;
    if (bytes > c_.bytes() || 2 * bytes > a_.bytes()) return;
    RopeArgs rope;
    rope.qkv = a_.as<bf16>();
    rope.queries = b_.as<bf16>();
    rope.keys = c_.as<bf16>();
    rope.values = c_.as<bf16>(c_.bytes() / 2);
    rope.positions = ids_.as<int>();
    rope.slots = slots_.as<int>();
    rope.rows = rows;
    rope.heads = heads;
    rope.kv_heads = kv_heads;
    rope.head_dim = kHeadDim;
    if (static_cast<std::size_t>(kSlots) * kv_heads * kHeadDim * 2 > c_.bytes() / 2) return;
    auto call = [&](int, cudaStream_t stream) {
      if (kernel == "add_rmsnorm")
        add_rmsnorm(a_.as<bf16>(), b_.as<bf16>(), b_.as<bf16>(), c_.as<bf16>(), rows, width, stream);
      if (kernel == "silu_mul") silu_mul(a_.as<bf16>(), c_.as<bf16>(), rows, width, stream);
      if (kernel == "rope") rope_kv_write(rope, stream);
      if (kernel == "embedding") embedding(ids_.as<int>(), b_.as<bf16>(), c_.as<bf16>(), rows, width, stream);
      if (kernel == "sampler") {
        sample(a_.as<bf16>(), ids_.as<int>(), rows, width, 1.0f, 5, workspace_.as(), stream);
      }
    };
    auto reading = bench_.meter.measure(call);
    if (reading) table.row(*reading, kernel, "bf16", rows, width);
    // The residual grows with every call; a fresh one keeps the numbers finite, and sampled ids in range.
    if (kernel == "add_rmsnorm") fill_bf16(a_.as(), bytes / 2, 1.0f, 11);
    if (kernel == "sampler") fill_ids(ids_.as<int>(), kMostRows, vocabulary(), 12);
  }

 private:
  // Rows of the widest embedding table that fits.
  int vocabulary() const { return static_cast<int>(std::min<std::size_t>(30000, b_.bytes() / (kMostWidth * 2))); }

  Bench& bench_;
  Buffer a_, b_, c_, ids_, slots_, workspace_;
};

constexpr std::pair<int, int> kHeads[] = {{32, 8},  {16, 4},  {8, 2},  {4, 1},  {64, 8},
                                          {32, 32}, {40, 40}, {28, 4}, {128, 8}};

}  // namespace

void measure_elementwise(Bench& bench) {
  ElementwiseBench elementwise(bench);
  std::vector<int> rows = {1,   2,   4,   8,   12,  16,   24,   32,   48,   64,   96,   128,  192,
                           256, 384, 512, 640, 768, 1024, 1536, 2048, 3072, 4096, 6144, 8192, 16384};
  if (bench.quick) rows = {1, 32, 256, 2048, 8192};
  const std::vector<int> norm_widths = {2048, 3072, 3584, 4096, 5120, 6144, 6656, 7168, 8192, 10240, 12288, 16384};
  const std::vector<int> silu_widths = {1376,  1792,  2560,  3584,  5120,  7168, 8960,
                                        11008, 13824, 14336, 18944, 28672, 53248};
  const char* header = "kernel,dtype,rows,width,seconds,mad";
  Table table = bench.profile.begin("elementwise", header);
  for (int r : rows) {
    for (int w : norm_widths) elementwise.row(table, "add_rmsnorm", r, w);
    for (int w : silu_widths) elementwise.row(table, "silu_mul", r, w);
    for (auto [q, kv] : kHeads) elementwise.row(table, "rope", r, (q + kv) * kHeadDim, q, kv);
    for (int w : {2048, 4096, 8192, 16384}) elementwise.row(table, "embedding", r, w);
    for (int w : {16032, 32000, 64000, 128256, 152064}) {
      if (r <= 512) elementwise.row(table, "sampler", r, w);
    }
  }
  Table check = bench.profile.begin("check_elementwise", header);
  ShapeGenerator random(20261124);
  std::set<std::pair<int, int>> used;
  for (int i = 0; i < (bench.quick ? 10 : 60); ++i) {
    int r = random.draw(1, 16000, 1);
    int w = random.draw(2048, 16384, 8);
    bool norm = i % 2 == 0;
    const auto& widths = norm ? norm_widths : silu_widths;
    bool in_grid = std::count(rows.begin(), rows.end(), r) > 0 && std::count(widths.begin(), widths.end(), w) > 0;
    if (!in_grid && used.insert({r, w}).second) elementwise.row(check, norm ? "add_rmsnorm" : "silu_mul", r, w);
  }
  check.finish();
  bench.profile.end(table, "elementwise", bench.notes);
}

}  // namespace dssim::cuda
