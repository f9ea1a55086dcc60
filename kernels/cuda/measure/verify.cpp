// SPDX-License-Identifier: Apache-2.0
// Every kernel on small shapes against float64 on the host. Inputs are what the device holds (rounded to bf16), outputs
// are poisoned with NaN first, so that an element nobody wrote shows. The measure is |out - ref| / |ref| over the whole
// output.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <numeric>

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/gemm.hpp"
#include "kernels/cuda/ops/moe.hpp"

namespace dssim::cuda {
namespace {

using Numbers = std::vector<double>;

constexpr double kBf16Bar = 6e-3;  // output rounding alone is 2e-3; sums of products add less than as much again

class Report {
 public:
  void add(const std::string& what, double error, double bar) {
    bool ok = error <= bar;  // NaN fails
    if (!ok) good_ = false;
    std::printf("  %-44s %9.2e  (bar %.0e) %s\n", what.c_str(), error, bar, ok ? "ok" : "WRONG");
    std::fflush(stdout);
  }
  bool good() const { return good_; }

 private:
  bool good_ = true;
};

double relative_error(const Numbers& out, const Numbers& reference) {
  double difference = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    difference += (out[i] - reference[i]) * (out[i] - reference[i]);
    size += reference[i] * reference[i];
  }
  return std::sqrt(difference / size);
}

template <typename T>
Numbers read(const Buffer& buffer, std::size_t count) {
  std::vector<T> raw = buffer.download<T>(count);
  Numbers numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<double>(static_cast<float>(raw[i]));
  return numbers;
}

struct Bf16 {
  Bf16(std::size_t count, float scale, uint32_t seed) : buffer(count * 2), count(count) {
    fill_bf16(buffer.as(), count, scale, seed);
  }
  explicit Bf16(std::size_t count) : buffer(count * 2), count(count) { poison(); }
  void poison() { DSSIM_CUDA(cudaMemset(buffer.as(), 0xFF, buffer.bytes())); }
  bf16* data() const { return buffer.as<bf16>(); }
  Numbers host() const {
    DSSIM_CUDA(cudaDeviceSynchronize());
    return read<bf16>(buffer, count);
  }
  Buffer buffer;
  std::size_t count;
};

Numbers multiply(const Numbers& a, const Numbers& w, int m, int n, int k) {
  Numbers out(static_cast<std::size_t>(m) * n);
  for (int i = 0; i < m; ++i) {
    for (int j = 0; j < n; ++j) {
      out[static_cast<std::size_t>(i) * n + j] =
          std::inner_product(a.begin() + static_cast<long>(i) * k, a.begin() + static_cast<long>(i + 1) * k,
                             w.begin() + static_cast<long>(j) * k, 0.0);
    }
  }
  return out;
}

void verify_gemm(Report& report, const GpuInfo& gpu) {
  constexpr int m = 48;
  constexpr int n = 256;
  constexpr int k = 512;
  GemmContext context;
  for (DataType type : {DataType::bf16, DataType::fp16, DataType::fp8, DataType::int8}) {
    if (type == DataType::fp8 && !gpu.has_fp8()) continue;
    Buffer a(m * k * 2);
    Buffer w(n * k * 2);
    Buffer out(m * n * 4);
    auto load = [&](const Buffer& buffer, int count, uint32_t seed) {
      switch (type) {
        case DataType::bf16:
          fill_bf16(buffer.as(), count, 1.0f, seed);
          return read<bf16>(buffer, count);
        case DataType::fp16:
          fill_fp16(buffer.as(), count, 1.0f, seed);
          return read<__half>(buffer, count);
        case DataType::fp8:
          fill_fp8(buffer.as(), count, 1.0f, seed);
          return read<__nv_fp8_e4m3>(buffer, count);
        default:
          fill_int8(buffer.as(), count, seed);
          return read<int8_t>(buffer, count);
      }
    };
    Numbers reference = multiply(load(a, m * k, 1), load(w, n * k, 2), m, n, k);
    Gemm gemm(context, type, m, n, k, 8);
    double worst = gemm.algorithms() > 0 ? 0.0 : NAN;
    for (int algorithm = 0; algorithm < gemm.algorithms(); ++algorithm) {
      DSSIM_CUDA(cudaMemset(out.as(), 0xFF, out.bytes()));
      gemm.run(algorithm, a.as(), w.as(), out.as(), nullptr);
      DSSIM_CUDA(cudaDeviceSynchronize());
      Numbers got = type == DataType::fp16   ? read<__half>(out, m * n)
                    : type == DataType::int8 ? read<int32_t>(out, m * n)
                                             : read<bf16>(out, m * n);
      double error = relative_error(got, reference);
      if (!(error <= worst)) worst = error;
    }
    report.add(std::string("gemm ") + name_of(type) + ", " + std::to_string(gemm.algorithms()) + " algorithms", worst,
               type == DataType::int8 ? 1e-6 : kBf16Bar);
  }
}

// A paged cache for a few sequences, pages in a scrambled order.
struct Cache {
  Cache(const std::vector<int>& lengths, int kv_heads, int head_dim)
      : kv_heads(kv_heads),
        head_dim(head_dim),
        pages_each((*std::max_element(lengths.begin(), lengths.end()) + 15) / 16),
        pages(pages_each * static_cast<int>(lengths.size())),
        keys(static_cast<std::size_t>(pages) * kPageTokens * kv_heads * head_dim, 1.0f, 41),
        values(keys.count, 1.0f, 42),
        table(pages * sizeof(int)),
        lengths_buffer(lengths.size() * sizeof(int)),
        order(pages) {
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), std::mt19937(5));
    table.upload(order);
    lengths_buffer.upload(lengths);
    host_keys = keys.host();
    host_values = values.host();
  }
  std::size_t at(int sequence, int token, int kv_head) const {
    std::size_t slot = static_cast<std::size_t>(order[sequence * pages_each + token / kPageTokens]) * kPageTokens +
                       token % kPageTokens;
    return (slot * kv_heads + kv_head) * head_dim;
  }
  int kv_heads, head_dim, pages_each, pages;
  Bf16 keys, values;
  Buffer table, lengths_buffer;
  std::vector<int> order;
  Numbers host_keys, host_values;
};

Numbers attend(const Cache& cache, const Numbers& queries, const std::vector<int>& query_lengths,
               const std::vector<int>& kv_lengths, int heads) {
  int d = cache.head_dim;
  Numbers out(queries.size());
  std::size_t token = 0;
  for (std::size_t s = 0; s < kv_lengths.size(); ++s) {
    for (int i = 0; i < query_lengths[s]; ++i, ++token) {
      int visible = kv_lengths[s] - query_lengths[s] + i + 1;
      for (int h = 0; h < heads; ++h) {
        int kv_head = h / (heads / cache.kv_heads);
        const double* q = &queries[(token * heads + h) * d];
        Numbers weight(visible);
        double total = 0.0;
        for (int j = 0; j < visible; ++j) {
          const double* k = &cache.host_keys[cache.at(static_cast<int>(s), j, kv_head)];
          weight[j] = std::exp(std::inner_product(q, q + d, k, 0.0) / std::sqrt(static_cast<double>(d)));
          total += weight[j];
        }
        double* o = &out[(token * heads + h) * d];
        for (int j = 0; j < visible; ++j) {
          const double* v = &cache.host_values[cache.at(static_cast<int>(s), j, kv_head)];
          for (int c = 0; c < d; ++c) o[c] += weight[j] / total * v[c];
        }
      }
    }
  }
  return out;
}

void verify_attention(Report& report, const char* what, const std::vector<int>& query_lengths,
                      const std::vector<int>& kv_lengths, int heads, int kv_heads, int head_dim, PrefillKernel kernel) {
  Cache cache(kv_lengths, kv_heads, head_dim);
  int tokens = std::accumulate(query_lengths.begin(), query_lengths.end(), 0);
  int longest = *std::max_element(query_lengths.begin(), query_lengths.end());
  Bf16 queries(static_cast<std::size_t>(tokens) * heads * head_dim, 1.0f, 43);
  Bf16 output(queries.count);
  std::vector<int> starts(query_lengths.size() + 1, 0);
  std::partial_sum(query_lengths.begin(), query_lengths.end(), starts.begin() + 1);
  Buffer start_buffer(starts.size() * sizeof(int));
  start_buffer.upload(starts);
  AttentionArgs args;
  args.queries = queries.data();
  args.output = output.data();
  args.keys = cache.keys.data();
  args.values = cache.values.data();
  args.page_table = cache.table.as<int>();
  args.query_start = start_buffer.as<int>();
  args.kv_length = cache.lengths_buffer.as<int>();
  args.sequences = static_cast<int>(kv_lengths.size());
  args.query_tokens = tokens;
  args.longest_query = longest;
  args.pages = cache.pages;
  args.pages_per_sequence = cache.pages_each;
  args.heads = heads;
  args.kv_heads = kv_heads;
  args.head_dim = head_dim;
  Numbers reference = attend(cache, queries.host(), query_lengths, kv_lengths, heads);
  Buffer workspace(decode_workspace_bytes(args.sequences, heads, head_dim));
  DSSIM_CUDA(cudaMemset(workspace.as(), 0, workspace.bytes()));
  double worst = 0.0;
  for (int pass = 0; pass < 2; ++pass) {  // twice: the decode kernel must leave its counters as it found them
    output.poison();
    if (longest == 1) {
      decode_attention(args, *std::max_element(kv_lengths.begin(), kv_lengths.end()), workspace.as(), nullptr);
    } else {
      prefill_attention(args, nullptr, kernel);
    }
    double error = relative_error(output.host(), reference);
    if (!(error <= worst)) worst = error;
  }
  report.add(std::string(what) + " " + std::to_string(heads) + "/" + std::to_string(kv_heads) + " heads of " +
                 std::to_string(head_dim),
             worst, kBf16Bar);
}

void verify_all_attention(Report& report) {
  const std::vector<int> chunk = {200, 77, 1, 128};
  const std::vector<int> chunk_kv = {200, 410, 51, 1000};
  for (auto [heads, kv_heads] : {std::pair{8, 2}, std::pair{4, 4}, std::pair{4, 1}}) {
    if (warpgroup_mma_available()) {
      verify_attention(report, "prefill wgmma", chunk, chunk_kv, heads, kv_heads, 128, PrefillKernel::warpgroup_mma);
    }
    verify_attention(report, "prefill mma", chunk, chunk_kv, heads, kv_heads, 128, PrefillKernel::warp_mma);
  }
  verify_attention(report, "prefill mma", chunk, chunk_kv, 4, 2, 64, PrefillKernel::warp_mma);
  const std::vector<int> ones(6, 1);
  const std::vector<int> lengths = {1, 16, 17, 300, 1024, 4000};
  for (auto [heads, kv_heads] : {std::pair{8, 2}, std::pair{4, 4}, std::pair{32, 1}, std::pair{28, 4}}) {
    verify_attention(report, "decode", ones, lengths, heads, kv_heads, 128, PrefillKernel::automatic);
  }
  verify_attention(report, "decode", ones, lengths, 4, 2, 64, PrefillKernel::automatic);
  std::vector<int> many(700, 1);
  std::vector<int> many_lengths(700);
  for (int i = 0; i < 700; ++i) many_lengths[i] = 1 + i % 90;
  verify_attention(report, "decode, large batch,", many, many_lengths, 4, 2, 128, PrefillKernel::automatic);
}

void verify_norm_and_activation(Report& report) {
  constexpr int rows = 7;
  for (int width : {512, 3584, 4096, 8192, 12288, 16384}) {
    Bf16 residual(static_cast<std::size_t>(rows) * width, 1.0f, 51);
    Bf16 x(residual.count, 1.0f, 52);
    Bf16 weight(width, 1.0f, 53);
    Bf16 out(residual.count);
    Numbers r = residual.host();
    Numbers added = x.host();
    Numbers w = weight.host();
    Numbers expected(r.size());
    for (int i = 0; i < rows; ++i) {
      double squares = 0.0;
      for (int c = 0; c < width; ++c) squares += std::pow(r[i * width + c] + added[i * width + c], 2);
      double scale = 1.0 / std::sqrt(squares / width + 1e-5);
      for (int c = 0; c < width; ++c)
        expected[i * width + c] = (r[i * width + c] + added[i * width + c]) * scale * w[c];
    }
    add_rmsnorm(residual.data(), x.data(), weight.data(), out.data(), rows, width, nullptr);
    report.add("add_rmsnorm " + std::to_string(width), relative_error(out.host(), expected), kBf16Bar);
  }
  for (int width : {1376, 14336}) {
    Bf16 gate_up(static_cast<std::size_t>(rows) * 2 * width, 1.0f, 54);
    Bf16 out(static_cast<std::size_t>(rows) * width);
    Numbers g = gate_up.host();
    Numbers expected(out.count);
    for (int i = 0; i < rows; ++i) {
      for (int c = 0; c < width; ++c) {
        double gate = g[i * 2 * width + c];
        expected[i * width + c] = gate / (1.0 + std::exp(-gate)) * g[i * 2 * width + width + c];
      }
    }
    silu_mul(gate_up.data(), out.data(), rows, width, nullptr);
    report.add("silu_mul " + std::to_string(width), relative_error(out.host(), expected), kBf16Bar);
  }
}

void verify_rope(Report& report) {
  constexpr int rows = 9;
  constexpr int heads = 8;
  constexpr int kv_heads = 2;
  constexpr int d = 128;
  constexpr int width = (heads + 2 * kv_heads) * d;
  Bf16 qkv(rows * width, 1.0f, 61);
  Bf16 queries(rows * heads * d);
  Bf16 keys(32 * kv_heads * d);
  Bf16 values(32 * kv_heads * d);
  std::vector<int> positions(rows);
  std::vector<int> slots(rows);
  for (int i = 0; i < rows; ++i) {
    positions[i] = i * 701;
    slots[i] = 31 - 3 * i;
  }
  Buffer position_buffer(rows * sizeof(int));
  Buffer slot_buffer(rows * sizeof(int));
  position_buffer.upload(positions);
  slot_buffer.upload(slots);
  RopeArgs args{qkv.data(),
                queries.data(),
                keys.data(),
                values.data(),
                position_buffer.as<int>(),
                slot_buffer.as<int>(),
                rows,
                heads,
                kv_heads,
                d};
  rope_kv_write(args, nullptr);
  Numbers in = qkv.host();
  Numbers q = queries.host();
  Numbers k = keys.host();
  Numbers v = values.host();
  Numbers got;
  Numbers expected;
  for (int i = 0; i < rows; ++i) {
    for (int h = 0; h < heads + kv_heads; ++h) {
      for (int c = 0; c < d; ++c) {
        int pair = c % (d / 2);
        double angle = positions[i] * std::pow(static_cast<double>(args.theta), -2.0 * pair / d);
        const double* x = &in[i * width + h * d];
        expected.push_back(c < d / 2 ? x[c] * std::cos(angle) - x[c + d / 2] * std::sin(angle)
                                     : x[c] * std::cos(angle) + x[c - d / 2] * std::sin(angle));
        got.push_back(h < heads ? q[(i * heads + h) * d + c] : k[(slots[i] * kv_heads + h - heads) * d + c]);
      }
    }
    for (int c = 0; c < kv_heads * d; ++c) {
      expected.push_back(in[i * width + (heads + kv_heads) * d + c]);
      got.push_back(v[slots[i] * kv_heads * d + c]);
    }
  }
  report.add("rope_kv_write", relative_error(got, expected), kBf16Bar);
}

void verify_tokens(Report& report) {
  constexpr int rows = 64;
  constexpr int width = 4096;
  constexpr int vocabulary = 1000;
  Bf16 table(vocabulary * width, 1.0f, 71);
  Bf16 out(rows * width);
  Buffer ids(rows * sizeof(int));
  fill_ids(ids.as<int>(), rows, vocabulary, 72);
  embedding(ids.as<int>(), table.data(), out.data(), rows, width, nullptr);
  Numbers got = out.host();
  Numbers all = table.host();
  std::vector<int> id = ids.download<int>(rows);
  Numbers expected;
  for (int i : id) expected.insert(expected.end(), all.begin() + i * width, all.begin() + (i + 1) * width);
  report.add("embedding", relative_error(got, expected), 0.0);

  // Greedy: the greatest logit. Sampled: 16 logits over many rows, frequencies against softmax by chi squared.
  constexpr int draws = 20000;
  Buffer workspace(sample_workspace_bytes(draws));
  DSSIM_CUDA(cudaMemset(workspace.as(), 0, workspace.bytes()));
  sample(out.data(), ids.as<int>(), rows, width, 0.0f, 1, workspace.as(), nullptr);
  id = ids.download<int>(rows);
  double misses = 0;
  for (int i = 0; i < rows; ++i) {
    auto row = got.begin() + i * width;
    if (row[id[i]] != *std::max_element(row, row + width)) ++misses;
  }
  report.add("sample, greedy (misses)", misses, 0.0);
  Bf16 few(16, 1.0f, 73);
  Numbers logits = few.host();
  Buffer repeated(draws * 16 * sizeof(bf16));
  for (int i = 0; i < draws; ++i) {
    DSSIM_CUDA(cudaMemcpyAsync(repeated.as<bf16>() + i * 16, few.data(), 32, cudaMemcpyDeviceToDevice));
  }
  Buffer drawn(draws * sizeof(int));
  sample(repeated.as<bf16>(), drawn.as<int>(), draws, 16, 1.0f, 99, workspace.as(), nullptr);
  DSSIM_CUDA(cudaDeviceSynchronize());
  Numbers count(16, 0.0);
  for (int t : drawn.download<int>(draws)) ++count.at(t);
  double total = 0.0;
  for (double x : logits) total += std::exp(x);
  double chi = 0.0;
  for (int i = 0; i < 16; ++i) {
    double wanted = draws * std::exp(logits[i]) / total;
    chi += (count[i] - wanted) * (count[i] - wanted) / wanted;
  }
  report.add("sample, drawn (chi squared, 15 degrees)", chi, 45.0);  // P(chi2 > 45) = 7e-5
}

void verify_moe(Report& report, int tokens, int local_experts) {
  constexpr int width = 256;
  constexpr int ffn = 384;
  constexpr int experts = 8;
  constexpr int top_k = 2;
  Bf16 hidden(tokens * width, 1.0f, 81);
  Bf16 logits(tokens * experts, 1.0f, 82);
  Bf16 gate_up(local_experts * 2 * ffn * width, 0.06f, 83);
  Bf16 down(local_experts * width * ffn, 0.06f, 84);
  Bf16 output(tokens * width);
  MoeArgs args{hidden.data(), logits.data(), gate_up.data(), down.data(),   output.data(), tokens,
               width,         ffn,           experts,        local_experts, top_k};
  Buffer workspace(moe_workspace_bytes(args));
  DSSIM_CUDA(cudaMemset(workspace.as(), 0xFF, workspace.bytes()));
  moe_forward(args, workspace.as(), nullptr);
  Numbers got = output.host();
  Numbers x = hidden.host();
  Numbers gate = logits.host();
  Numbers w1 = gate_up.host();
  Numbers w2 = down.host();
  Numbers expected(got.size(), 0.0);
  for (int t = 0; t < tokens; ++t) {
    std::vector<int> order(experts);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return gate[t * experts + a] > gate[t * experts + b]; });
    double total = 0.0;
    for (int k = 0; k < top_k; ++k) total += std::exp(gate[t * experts + order[k]]);
    Numbers row(x.begin() + t * width, x.begin() + (t + 1) * width);
    for (int k = 0; k < top_k; ++k) {
      int e = order[k];
      if (e >= local_experts) continue;
      Numbers expert(w1.begin() + static_cast<long>(e) * 2 * ffn * width,
                     w1.begin() + static_cast<long>(e + 1) * 2 * ffn * width);
      Numbers both = multiply(row, expert, 1, 2 * ffn, width);
      Numbers activated(ffn);
      for (int i = 0; i < ffn; ++i) activated[i] = both[i] / (1.0 + std::exp(-both[i])) * both[ffn + i];
      Numbers last(w2.begin() + static_cast<long>(e) * width * ffn,
                   w2.begin() + static_cast<long>(e + 1) * width * ffn);
      Numbers y = multiply(activated, last, 1, width, ffn);
      for (int c = 0; c < width; ++c) expected[t * width + c] += std::exp(gate[t * experts + e]) / total * y[c];
    }
  }
  // Four roundings to bf16 on the way: gathered products, activation, output.
  report.add("moe " + std::to_string(tokens) + " tokens, " + std::to_string(local_experts) + " of 8 experts",
             relative_error(got, expected), 2 * kBf16Bar);
}

}  // namespace

bool verify_kernels(const GpuInfo& gpu) {
  Report report;
  verify_gemm(report, gpu);
  verify_norm_and_activation(report);
  verify_rope(report);
  verify_tokens(report);
  verify_moe(report, 5, 8);
  verify_moe(report, 70, 8);
  verify_moe(report, 400, 8);
  verify_moe(report, 400, 2);
  verify_all_attention(report);
  return report.good();
}

}  // namespace dssim::cuda
