// SPDX-License-Identifier: Apache-2.0
// copy.csv: one copy of `bytes`, seconds from its start to its end. copy_h2d and copy_d2h use pinned host memory;
// copy_d2d is cudaMemcpyAsync, copy_kernel the same copy by a kernel.
#include <cstdlib>
#include <cstring>
#include <memory>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kMost = std::size_t{1} << 30;

struct PinnedDeleter {
  void operator()(void* p) const { cudaFreeHost(p); }
};

class CopyBench {
 public:
  explicit CopyBench(Bench& bench) : bench_(bench), from_(kMost), to_(kMost), pageable_(kMost, 1) {
    void* pinned = nullptr;
    DSSIM_CUDA(cudaMallocHost(&pinned, kMost));
    pinned_.reset(pinned);
    std::memset(pinned, 1, kMost);
    fill_bf16(from_.as(), kMost / 2, 1.0f, 13);
    DSSIM_CUDA(cudaEventCreate(&start_));
    DSSIM_CUDA(cudaEventCreate(&stop_));
  }
  ~CopyBench() {
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
  }

  // Many copies in a graph: what a copy costs between kernels, and the bandwidth other kernels are held against.
  void device_to_device(Table& table, std::size_t bytes) {
    auto reading = bench_.meter.measure([&](int, cudaStream_t stream) {
      DSSIM_CUDA(cudaMemcpyAsync(to_.as(), from_.as(), bytes, cudaMemcpyDeviceToDevice, stream));
    });
    if (reading) table.row(*reading, "copy_d2d", bytes);
    auto kernel =
        bench_.meter.measure([&](int, cudaStream_t stream) { launch_copy(to_.as(), from_.as(), bytes, stream); });
    if (kernel) table.row(*kernel, "copy_kernel", bytes);
  }

  void host(Table& table, const char* name, std::size_t bytes, bool to_device, bool pinned) {
    void* memory = pinned ? pinned_.get() : pageable_.data();
    auto reading = bench_.meter.measure_host(
        [&] {
          DSSIM_CUDA(cudaStreamSynchronize(bench_.meter.stream()));
          double before = now_seconds();
          DSSIM_CUDA(cudaEventRecord(start_, bench_.meter.stream()));
          DSSIM_CUDA(cudaMemcpyAsync(to_device ? to_.as() : memory, to_device ? memory : to_.as(), bytes,
                                     to_device ? cudaMemcpyHostToDevice : cudaMemcpyDeviceToHost,
                                     bench_.meter.stream()));
          DSSIM_CUDA(cudaEventRecord(stop_, bench_.meter.stream()));
          DSSIM_CUDA(cudaEventSynchronize(stop_));
          // The driver stages pageable memory on the host, partly outside the events.
          return pinned ? event_seconds() : now_seconds() - before;
        },
        bytes > (std::size_t{64} << 20) ? 7 : 25);
    if (reading) table.row(*reading, name, bytes);
  }

  void peer(Table& table, std::size_t bytes, int other, void* remote) {
    auto reading = bench_.meter.measure_host(
        [&] {
          DSSIM_CUDA(cudaEventRecord(start_, bench_.meter.stream()));
          DSSIM_CUDA(cudaMemcpyPeerAsync(remote, other, from_.as(), bench_.gpu.device, bytes, bench_.meter.stream()));
          DSSIM_CUDA(cudaEventRecord(stop_, bench_.meter.stream()));
          DSSIM_CUDA(cudaEventSynchronize(stop_));
          return event_seconds();
        },
        25);
    if (reading) table.row(*reading, "copy_p2p", bytes);
  }

 private:
  double event_seconds() const {
    float milliseconds = 0.0f;
    DSSIM_CUDA(cudaEventElapsedTime(&milliseconds, start_, stop_));
    return milliseconds * 1e-3;
  }

  Bench& bench_;
  Buffer from_, to_;
  std::vector<char> pageable_;
  std::unique_ptr<void, PinnedDeleter> pinned_;
  cudaEvent_t start_ = nullptr;
  cudaEvent_t stop_ = nullptr;
};

void measure_peer(Bench& bench, CopyBench& copy, Table& table, const std::vector<std::size_t>& sizes) {
  int other = bench.gpu.device == 0 ? 1 : 0;
  if (bench.gpu.count < 2) {
    bench.notes.push_back("peer_to_peer = \"not measured: one GPU\"");
    return;
  }
  int direct = 0;
  DSSIM_CUDA(cudaDeviceCanAccessPeer(&direct, bench.gpu.device, other));
  bench.notes.push_back(std::string("peer_to_peer = \"") + (direct != 0 ? "direct" : "through the host") + "\"");
  if (direct != 0) {
    cudaError_t status = cudaDeviceEnablePeerAccess(other, 0);
    if (status != cudaErrorPeerAccessAlreadyEnabled) DSSIM_CUDA(status);
    cudaGetLastError();
  }
  DSSIM_CUDA(cudaSetDevice(other));
  auto remote = std::make_unique<Buffer>(kMost);
  DSSIM_CUDA(cudaSetDevice(bench.gpu.device));
  for (std::size_t bytes : sizes) copy.peer(table, bytes, other, remote->as());
}

}  // namespace

void measure_copy(Bench& bench) {
  CopyBench copy(bench);
  std::vector<std::size_t> sizes;
  for (std::size_t bytes = 4096; bytes <= kMost; bytes *= bench.quick ? 8 : 4) sizes.push_back(bytes);
  if (sizes.back() != kMost) sizes.push_back(kMost);
  Table table = bench.profile.begin("copy", "kernel,bytes,seconds,mad");
  for (std::size_t bytes : sizes) {
    copy.device_to_device(table, bytes);
    copy.host(table, "copy_h2d", bytes, true, true);
    copy.host(table, "copy_d2h", bytes, false, true);
    copy.host(table, "copy_h2d_pageable", bytes, true, false);
    copy.host(table, "copy_d2h_pageable", bytes, false, false);
  }
  measure_peer(bench, copy, table, sizes);
  bench.profile.end(table, "copy", bench.notes);
}

}  // namespace dssim::cuda
