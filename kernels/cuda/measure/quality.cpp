// SPDX-License-Identifier: Apache-2.0
// quality.csv: the kernels against what the hardware allows. A profile made with slow kernels would be a false one.
#include <algorithm>
#include <cstdio>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/gemm.hpp"
#include "kernels/cuda/ops/moe.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kGib = std::size_t{1} << 30;

class Quality {
 public:
  Quality(Bench& bench, Table& table)
      : bench_(bench),
        table_(table),
        a_(affordable_bytes(2 * kGib, 0.3)),
        b_(affordable_bytes(2 * kGib, 0.4)),
        c_(affordable_bytes(2 * kGib, 0.6)) {
    for (const Buffer* buffer : {&a_, &b_, &c_}) fill_bf16(buffer->as(), buffer->bytes() / 2, 1.0f, 91);
  }

  // The faster of the driver's copy and a kernel's is the rate that the others are held against.
  void copy() {
    std::size_t bytes = std::min(a_.bytes(), b_.bytes()) / 2;
    auto driver = bench_.meter.measure([&](int, cudaStream_t s) {
      DSSIM_CUDA(cudaMemcpyAsync(a_.as(), b_.as(), bytes, cudaMemcpyDeviceToDevice, s));
    });
    auto kernel = bench_.meter.measure([&](int, cudaStream_t s) { launch_copy(a_.as(), b_.as(), bytes, s); });
    if (!driver || !kernel) throw Unavailable("the GPU is throttled");
    copy_rate_ = 2.0 * bytes / std::min(driver->seconds, kernel->seconds);
    line("copy 1 GiB (memcpy)", 2e-12 * bytes / driver->seconds, "TB/s", *driver);
    line("copy 1 GiB (kernel)", 2e-12 * bytes / kernel->seconds, "TB/s", *kernel);
  }

  void elementwise() {
    constexpr int rows = 16384;
    constexpr int width = 8192;
    auto norm = bench_.meter.measure([&](int, cudaStream_t s) {
      add_rmsnorm(a_.as<bf16>(), b_.as<bf16>(), b_.as<bf16>(), c_.as<bf16>(), rows, width, s);
    });
    if (norm) share("add_rmsnorm 16384 x 8192", 8.0 * rows * width, *norm);
    constexpr int ffn = 14336;
    auto silu =
        bench_.meter.measure([&](int, cudaStream_t s) { silu_mul(a_.as<bf16>(), c_.as<bf16>(), rows, ffn, s); });
    if (silu) share("silu_mul 16384 x 14336", 6.0 * rows * ffn, *silu);
  }

  void gemm() {
    GemmContext context;
    for (DataType type : {DataType::bf16, DataType::fp8}) {
      if (type == DataType::fp8 && !bench_.gpu.has_fp8()) continue;
      if (type == DataType::fp8) {
        fill_fp8(a_.as(), a_.bytes(), 1.0f, 92);
        fill_fp8(b_.as(), b_.bytes(), 1.0f, 93);
      }
      Gemm gemm(context, type, 8192, 8192, 8192, 5);
      auto run = [&](int algorithm, int, cudaStream_t s) { gemm.run(algorithm, a_.as(), b_.as(), c_.as(), s); };
      int best = bench_.meter.fastest(gemm.algorithms(), run);
      auto r = bench_.meter.measure([&](int i, cudaStream_t s) { run(best, i, s); });
      if (r)
        line(std::string("gemm ") + name_of(type) + " 8192^3", 2.0 * 8192 * 8192 * 8192 / r->seconds * 1e-12, "TFLOP/s",
             *r);
    }
  }

  void attention() {
    for (const Buffer* buffer : {&a_, &b_, &c_}) fill_bf16(buffer->as(), buffer->bytes() / 2, 1.0f, 91);
    Buffer table((1 << 22) * sizeof(int));
    Buffer starts(64 * sizeof(int));
    Buffer lengths(128 * sizeof(int));
    starts.upload(std::vector<int>{0, 4096});
    lengths.upload(std::vector<int>(128, 4096));
    Buffer workspace(decode_workspace_bytes(128, 64, 128));
    DSSIM_CUDA(cudaMemset(workspace.as(), 0, workspace.bytes()));
    AttentionArgs args;
    args.queries = c_.as<bf16>();
    args.output = c_.as<bf16>(c_.bytes() / 2);
    args.keys = a_.as<bf16>();
    args.values = b_.as<bf16>();
    args.page_table = table.as<int>();
    args.query_start = starts.as<int>();
    args.kv_length = lengths.as<int>();
    args.pages_per_sequence = 4096 / kPageTokens;
    for (auto [heads, kv_heads] : {std::pair{32, 8}, std::pair{32, 32}}) {
      args.heads = heads;
      args.kv_heads = kv_heads;
      args.pages = static_cast<int>(a_.bytes() / (kPageTokens * kv_heads * 256));
      fill_ids(table.as<int>(), 1 << 22, args.pages, 94);
      std::string shape = heads == kv_heads ? " 32/32" : " 32/8";
      args.sequences = 1;
      args.query_tokens = args.longest_query = 4096;
      for (PrefillKernel kernel : {PrefillKernel::automatic, PrefillKernel::warp_mma}) {
        auto r = bench_.meter.measure([&](int, cudaStream_t s) { prefill_attention(args, s, kernel); });
        double flops = 2.0 * heads * 128 * 4096.0 * 4096.0;  // causal: half of the square
        const char* name =
            kernel == PrefillKernel::automatic ? "prefill 4096 causal" : "prefill 4096 causal (mma.sync)";
        if (r) line(name + shape, flops / r->seconds * 1e-12, "TFLOP/s", *r);
      }
      for (int batch : {64, 4, 1}) {
        args.sequences = batch;
        int entries = batch * args.pages_per_sequence;
        double bytes = 4.0 * batch * 4096 * kv_heads * 128;
        auto r = bench_.meter.measure(
            [&](int i, cudaStream_t s) {
              args.page_table = table.as<int>() + i * entries % ((1 << 22) - entries);
              decode_attention(args, 4096, workspace.as(), s);
            },
            bench_.meter.calls_past_l2(bytes));
        args.page_table = table.as<int>();
        if (r) share("decode batch " + std::to_string(batch) + " KV 4096" + shape, bytes, *r);
      }
    }
  }

  // The two grouped products and all around them, Mixtral's shape at TP 4.
  void moe() {
    for (int tokens : {64, 4096}) {
      MoeArgs args{c_.as<bf16>(),
                   a_.as<bf16>(),
                   a_.as<bf16>(),
                   b_.as<bf16>(),
                   c_.as<bf16>(c_.bytes() / 2),
                   tokens,
                   4096,
                   14336 / 4,
                   8,
                   8,
                   2};
      Buffer workspace(moe_workspace_bytes(args));
      auto r = bench_.meter.measure([&](int, cudaStream_t s) { moe_forward(args, workspace.as(), s); });
      double weights = 8.0 * 3 * args.ffn * 4096;
      if (r && tokens == 64) share("moe 64 tokens Mixtral TP4", 2.0 * weights, *r);
      if (r && tokens > 64)
        line("moe 4096 tokens Mixtral TP4", 2.0 * tokens * 2 * weights / 8 / r->seconds * 1e-12, "TFLOP/s", *r);
    }
  }

 private:
  void line(const std::string& what, double value, const char* unit, const Reading& r) {
    std::printf("  %-40s %8.3f %-12s %10.2f us\n", what.c_str(), value, unit, r.seconds * 1e6);
    std::fflush(stdout);
    table_.row(r, what, value, unit);
  }
  void share(const std::string& what, double bytes, const Reading& r) {
    line(what, bytes / r.seconds / copy_rate_, "of copy rate", r);
  }

  Bench& bench_;
  Table& table_;
  Buffer a_, b_, c_;
  double copy_rate_ = 1.0;
};

}  // namespace

void report_kernel_quality(Bench& bench) {
  Table table = bench.profile.begin("quality", "what,value,unit,seconds,mad");
  Quality quality(bench, table);
  quality.copy();
  quality.elementwise();
  quality.attention();
  quality.moe();
  quality.gemm();
  bench.profile.end(table, "quality", bench.notes);
}

}  // namespace dssim::cuda
