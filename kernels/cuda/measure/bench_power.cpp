// SPDX-License-Identifier: Apache-2.0
// power.csv: board power and SM clock in five regimes. The driver's reading is an average over about a second on recent
// GPUs, so the first 1.2 s of a regime are left out.
#include <chrono>
#include <cstdio>
#include <thread>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/attention.hpp"
#include "kernels/cuda/ops/elementwise.hpp"
#include "kernels/cuda/ops/gemm.hpp"

namespace dssim::cuda {
namespace {

constexpr double kSettle = 1.2;
constexpr std::size_t kGib = std::size_t{1} << 30;

class PowerBench {
 public:
  explicit PowerBench(Bench& bench)
      : bench_(bench),
        weights_(2 * kGib),
        activations_(kGib / 2),
        output_(kGib),
        pages_(4096 * 1024),
        lengths_(4096),
        workspace_(decode_workspace_bytes(64, 32, 128)) {
    fill_bf16(weights_.as(), kGib, 1.0f, 21);
    fill_bf16(activations_.as(), kGib / 4, 1.0f, 22);
    fill_ids(pages_.as<int>(), pages_.bytes() / 4, kPages, 23);
    DSSIM_CUDA(cudaMemset(workspace_.as(), 0, workspace_.bytes()));
    starts_host_ = {0, 4096};
    lengths_.upload(std::vector<int>(64, 4096));
    starts_.upload(starts_host_);
    attention_.queries = activations_.as<bf16>();
    attention_.output = output_.as<bf16>();
    attention_.keys = weights_.as<bf16>();
    attention_.values = weights_.as<bf16>(kGib);
    attention_.page_table = pages_.as<int>();
    attention_.query_start = starts_.as<int>();
    attention_.kv_length = lengths_.as<int>();
    attention_.pages = kPages;
    attention_.pages_per_sequence = 4096 / kPageTokens;
    attention_.heads = 32;
    attention_.kv_heads = 8;
  }

  void idle() {}
  void memory_bound() {
    DSSIM_CUDA(cudaMemcpyAsync(output_.as(), weights_.as(), kGib, cudaMemcpyDeviceToDevice, stream()));
  }
  void compute_bound() { big_.run(0, activations_.as(), weights_.as(), output_.as(), stream()); }
  // 64 sequences of 4096 tokens: a layer's weights, then its KV.
  void decode_like() {
    attention_.sequences = 64;
    up_decode_.run(0, activations_.as(), weights_.as(), output_.as(), stream());
    down_decode_.run(0, activations_.as(), weights_.as(kGib), output_.as(), stream());
    decode_attention(attention_, 4096, workspace_.as(), stream());
  }
  // A chunk of 4096 tokens through a layer of Llama-3-8B's size.
  void prefill_like() {
    attention_.sequences = 1;
    attention_.query_tokens = attention_.longest_query = 4096;
    prefill_attention(attention_, stream());
    up_prefill_.run(0, activations_.as(), weights_.as(), output_.as(), stream());
    silu_mul(output_.as<bf16>(), activations_.as<bf16>(kGib / 4), 4096, 14336, stream());
    down_prefill_.run(0, activations_.as(), weights_.as(kGib), output_.as(), stream());
  }

  void row(Table& table, const char* regime, void (PowerBench::*work)(), double seconds) {
    std::vector<double> watts;
    std::vector<double> clocks;
    double begin = now_seconds();
    double next_read = begin + kSettle;
    while (now_seconds() - begin < seconds) {
      if (work == &PowerBench::idle) {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
      } else {
        // Two batches deep, so that the GPU never waits for the host.
        for (int i = 0; i < 8; ++i) (this->*work)();
        DSSIM_CUDA(cudaEventRecord(done_[turn_ % 2], stream()));
        ++turn_;
        DSSIM_CUDA(cudaEventSynchronize(done_[turn_ % 2]));
      }
      if (now_seconds() < next_read) continue;
      next_read = now_seconds() + 0.05;
      GpuState state = bench_.nvml.read();
      watts.push_back(state.power_w);
      clocks.push_back(state.sm_clock_mhz);
    }
    DSSIM_CUDA(cudaStreamSynchronize(stream()));
    if (watts.empty()) return;
    Reading power = summarise(watts);
    table.row(summarise(clocks), regime, power.seconds, power.mad);
  }

  void create_events() {
    for (cudaEvent_t& e : done_) DSSIM_CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  }
  ~PowerBench() {
    for (cudaEvent_t e : done_) cudaEventDestroy(e);
  }

 private:
  static constexpr int kPages = static_cast<int>(kGib / (kPageTokens * 8 * 128 * 2));
  cudaStream_t stream() const { return bench_.meter.stream(); }

  Bench& bench_;
  Buffer weights_, activations_, output_, pages_, lengths_;
  Buffer workspace_;
  Buffer starts_{64};
  std::vector<int> starts_host_;
  AttentionArgs attention_;
  GemmContext context_;
  Gemm big_{context_, DataType::bf16, 8192, 8192, 8192, 1};
  Gemm up_decode_{context_, DataType::bf16, 64, 28672, 4096, 1};
  Gemm down_decode_{context_, DataType::bf16, 64, 4096, 14336, 1};
  Gemm up_prefill_{context_, DataType::bf16, 4096, 28672, 4096, 1};
  Gemm down_prefill_{context_, DataType::bf16, 4096, 4096, 14336, 1};
  cudaEvent_t done_[2] = {};
  int turn_ = 0;
};

}  // namespace

void measure_power(Bench& bench) {
  if (!bench.nvml.available()) {
    std::fprintf(stderr, "note: no libnvidia-ml.so.1: power not measured\n");
    return;
  }
  PowerBench power(bench);
  power.create_events();
  Table table = bench.profile.begin("power", "regime,power_w,power_mad_w,sm_clock_mhz,sm_clock_mad_mhz");
  double seconds = bench.quick ? 2.0 : 4.0;
  power.row(table, "idle", &PowerBench::idle, seconds);
  power.row(table, "memory_bound", &PowerBench::memory_bound, seconds);
  power.row(table, "compute_bound", &PowerBench::compute_bound, seconds);
  power.row(table, "decode_like", &PowerBench::decode_like, seconds);
  power.row(table, "prefill_like", &PowerBench::prefill_like, seconds);
  bench.profile.end(table, "power", bench.notes);
}

}  // namespace dssim::cuda
