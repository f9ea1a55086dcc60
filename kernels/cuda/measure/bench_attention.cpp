// SPDX-License-Identifier: Apache-2.0
// attention.csv: prefill (a chunk onto existing KV, causal) and decode (q_len 1) over a paged cache whose pages lie
// anywhere in memory. The KV of earlier steps is cold, as it is when many layers share the cache: all that decode reads,
// and what a chunk stands on. A chunk's own KV is in L2 as far as that past leaves room, where the kernel before left it.
#include <algorithm>
#include <random>
#include <set>
#include <tuple>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/measure/shapes.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kGib = std::size_t{1} << 30;
constexpr int kHeadDim = 128;
constexpr std::size_t kTableEntries = std::size_t{8} << 20;

struct Shape {
  int batch, query, past, heads, kv_heads;
  auto key() const { return std::tie(batch, query, past, heads, kv_heads); }
  bool operator<(const Shape& o) const { return key() < o.key(); }
};

double kv_bytes(const Shape& s) {
  return 4.0 * s.batch * (s.past + s.query) * s.kv_heads * kHeadDim;
}

class AttentionBench {
 public:
  explicit AttentionBench(Bench& bench)
      : bench_(bench),
        keys_(affordable_bytes(6 * kGib, 0.3)),
        values_(affordable_bytes(6 * kGib, 0.4)),
        queries_(affordable_bytes(kGib, 0.3)),
        output_(queries_.bytes()),
        page_table_(kTableEntries * sizeof(int)),
        starts_(1025 * sizeof(int)),
        lengths_(1024 * sizeof(int)),
        workspace_(decode_workspace_bytes(1024, 128, kHeadDim)) {
    fill_bf16(keys_.as(), keys_.bytes() / 2, 1.0f, 3);
    fill_bf16(values_.as(), values_.bytes() / 2, 1.0f, 4);
    fill_bf16(queries_.as(), queries_.bytes() / 2, 1.0f, 5);
    DSSIM_CUDA(cudaMemset(workspace_.as(), 0, workspace_.bytes()));
  }

  void row(Table& table, const Shape& s) {
    std::size_t page_bytes = static_cast<std::size_t>(kPageTokens) * s.kv_heads * kHeadDim * 2;
    int pages = static_cast<int>(std::min<std::size_t>(keys_.bytes() / page_bytes, 1 << 30));
    int pages_each = (s.past + s.query + kPageTokens - 1) / kPageTokens;
    std::size_t entries = static_cast<std::size_t>(s.batch) * pages_each;
    std::size_t query_bytes = static_cast<std::size_t>(s.batch) * s.query * s.heads * kHeadDim * 2;
    if (pages < pages_each || entries > kTableEntries || query_bytes > queries_.bytes()) return;
    if (s.kv_heads != table_kv_heads_) {
      fill_ids(page_table_.as<int>(), kTableEntries, pages, 6);
      table_kv_heads_ = s.kv_heads;
    }
    std::vector<int> starts(s.batch + 1);
    for (int i = 0; i <= s.batch; ++i) starts[i] = i * s.query;
    starts_.upload(starts);
    lengths_.upload(std::vector<int>(s.batch, s.past + s.query));

    AttentionArgs args;
    args.queries = queries_.as<bf16>();
    args.output = output_.as<bf16>();
    args.keys = keys_.as<bf16>();
    args.values = values_.as<bf16>();
    args.query_start = starts_.as<int>();
    args.kv_length = lengths_.as<int>();
    args.sequences = s.batch;
    args.query_tokens = s.batch * s.query;
    args.longest_query = s.query;
    args.pages = pages;
    args.pages_per_sequence = pages_each;
    args.heads = s.heads;
    args.kv_heads = s.kv_heads;
    bool decode = s.query == 1;
    std::size_t places = kTableEntries - entries + 1;
    int sets = decode || s.past == 0 ? 1 : lay_out_past(s, pages, pages_each);
    auto call = [&](int i, cudaStream_t stream) {
      if (decode) {
        args.page_table = page_table_.as<int>() + i * entries % places;
        decode_attention(args, s.past + 1, workspace_.as(), stream);
      } else {
        args.page_table = page_table_.as<int>() + static_cast<std::size_t>(i % sets) * entries;
        prefill_attention(args, stream);
      }
    };
    auto reading = bench_.meter.measure(call, decode ? bench_.meter.calls_past_l2(kv_bytes(s)) : sets);
    if (reading) table.row(*reading, "bf16", "bf16", s.batch, s.query, s.past, s.heads, s.kv_heads, kHeadDim);
  }

 private:
  // Page tables, one after another, that differ in the pages of the past and share those of the chunks; as many as lie an
  // L2 cache and a quarter apart (it is no strict LRU), what a call passes through it besides counted in.
  int lay_out_past(const Shape& s, int pages, int pages_each) {
    std::size_t entries = static_cast<std::size_t>(s.batch) * pages_each;
    double past_bytes = 4.0 * s.batch * s.past * s.kv_heads * kHeadDim;
    double other_bytes = 4.0 * s.batch * s.query * (s.heads + s.kv_heads) * kHeadDim;
    double apart = std::max(0.0, 1.25 * static_cast<double>(bench_.meter.l2_bytes()) - other_bytes);
    double most = std::min<double>(kMostCalls, static_cast<double>(kTableEntries / entries));
    int sets = std::max(2, static_cast<int>(std::min(1.0 + std::ceil(apart / past_bytes), most)));
    std::mt19937 random(7);
    auto any_page = [&] { return static_cast<int>(random() % static_cast<unsigned>(pages)); };
    std::vector<int> table(entries);
    for (int& page : table) page = any_page();
    std::vector<int> tables;
    for (int set = 0; set < sets; ++set) {
      for (int sequence = 0; sequence < s.batch; ++sequence) {
        for (int i = 0; i < s.past / kPageTokens; ++i) table[sequence * pages_each + i] = any_page();
      }
      tables.insert(tables.end(), table.begin(), table.end());
    }
    page_table_.upload(tables);
    table_kv_heads_ = 0;
    return sets;
  }

  Bench& bench_;
  Buffer keys_, values_, queries_, output_, page_table_, starts_, lengths_, workspace_;
  int table_kv_heads_ = 0;  // whose random pages the table holds; 0: a prefill's
};

double flops(const Shape& s) {
  return 4.0 * s.batch * s.query * (s.past + 0.5 * s.query) * s.heads * kHeadDim;
}

std::vector<Shape> grid(bool quick) {
  std::vector<Shape> shapes;
  auto heads = attention_heads();
  if (quick) heads.resize(4);
  for (std::size_t h = 0; h < heads.size(); ++h) {
    bool dense = h < 8 && !quick;
    auto [q_heads, kv_heads] = heads[h];
    auto add = [&, q = q_heads, kv = kv_heads](int batch, int query, int past) {
      Shape s{batch, query, past, q, kv};
      if (kv_bytes(s) <= 16e9 && flops(s) <= 8e12) shapes.push_back(s);
    };
    const std::vector<int> queries = {16,  32,  64,   96,   128,  192,  256,  320,  384,  448,  512,  640,
                                      768, 896, 1024, 1280, 1536, 1792, 2048, 2560, 3072, 4096, 6144, 8192};
    const std::set<int> onto_past = {16, 32, 64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096, 8192};
    for (int query : queries) {
      if (!dense && (query & (query - 1)) != 0 && query % 768 != 0) continue;
      if (quick && (query < 128 || (query & (query - 1)) != 0)) continue;
      for (int past : {0, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768}) {
        // Onto a past fewer lengths do, and a short past hardly shows beside a long chunk: these rows take longest.
        if (past > 0 && onto_past.count(query) == 0) continue;
        if (past == 256 && query > 512) continue;
        if (!dense && (past == 256 || past == 512 || past == 2048 || past == 8192)) continue;
        if (quick && past > 4096) continue;
        add(1, query, past);
      }
      if (!quick && query <= 2048) {
        for (int batch : {2, 4, 8}) add(batch, query, 0);
        if (dense) {
          for (int past : {512, 2048, 8192}) {
            for (int batch : {2, 4}) add(batch, query, past);
          }
        }
      }
    }
    for (int batch : {1, 2, 4, 8, 16, 32, 64, 128, 256, 512}) {
      for (int kv : {16, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768, 65536}) {
        if (quick && (kv < 512 || kv > 8192 || batch == 2 || batch == 8 || batch > 128)) continue;
        if (!dense && !quick && (kv == 64 || kv == 256 || batch == 2)) continue;
        add(batch, 1, kv - 1);
      }
    }
  }
  return shapes;
}

}  // namespace

void measure_attention(Bench& bench) {
  const char* header = "dtype,kv_dtype,batch,q_len,past_len,heads,kv_heads,head_dim,seconds,mad";
  AttentionBench attention(bench);
  std::set<Shape> measured;
  Table table = bench.profile.begin("attention", header);
  for (const Shape& s : grid(bench.quick)) {
    if (measured.insert(s).second) attention.row(table, s);
  }
  Table check = bench.profile.begin("check_attention", header);
  ShapeGenerator random(20261122);
  auto heads = attention_heads();
  for (int i = 0; i < (bench.quick ? 20 : 160); ++i) {
    auto [q_heads, kv_heads] = heads[random.pick(static_cast<int>(heads.size()))];
    bool decode = i % 2 == 0;
    Shape s{random.draw(1, decode ? 256 : 4, 1), decode ? 1 : random.draw(32, 4096, 1), random.draw(32, 16384, 1),
            q_heads, kv_heads};
    if (kv_bytes(s) <= 16e9 && measured.insert(s).second) attention.row(check, s);
  }
  check.finish();
  bench.profile.end(table, "attention", bench.notes);
}

}  // namespace dssim::cuda
