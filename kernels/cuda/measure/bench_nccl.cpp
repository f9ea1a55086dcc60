// SPDX-License-Identifier: Apache-2.0
// nccl.csv: collectives over the first 2, 4, 8, ... GPUs of the node and over all of them, one process, one thread per
// GPU. bytes, per GPU: the buffer (all_reduce, broadcast), the gathered result (all_gather), the whole input
// (reduce_scatter, all_to_all), what one GPU sends round a ring (send_recv). Calls run from a CUDA graph, as engines'
// do in decode; launched one by one (all_reduce_eager), small ones take as long as the host needs to launch them.
#include <algorithm>
#include <atomic>
#include <barrier>
#include <cstdio>
#include <functional>
#include <memory>
#include <set>
#include <thread>
#include <tuple>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"

#ifdef DSSIM_NCCL
#include <nccl.h>

namespace dssim::cuda {
namespace {

void check_status(ncclResult_t status, const char* call, const char* file, int line) {
  if (status == ncclSuccess) return;
  throw_device_error(call, std::string(ncclGetErrorString(status)) + ": " + ncclGetLastError(nullptr), file, line);
}
#define DSSIM_NCCL_CALL(call) check_status((call), #call, __FILE__, __LINE__)

constexpr const char* kCollectives[] = {"all_reduce", "all_gather", "reduce_scatter",  "all_to_all",
                                        "broadcast",  "send_recv",  "all_reduce_eager"};
constexpr int kCollectiveCount = 7;
constexpr int kEager = 6;  // all_reduce again, each call launched by itself
constexpr int kMostCalls = 20;
// Up to here calls are replayed from a graph; a larger one takes longer than its launch.
constexpr std::size_t kMostGraphBytes = std::size_t{64} << 20;

struct Rank {
  ncclComm_t comm = nullptr;
  cudaStream_t stream = nullptr;
  cudaEvent_t start = nullptr;
  cudaEvent_t stop = nullptr;
  std::unique_ptr<Buffer> send, receive;
};

class NcclBench {
 public:
  NcclBench(int gpus, std::size_t most_bytes) : ranks_(gpus) {
    std::vector<ncclComm_t> comms(gpus);
    DSSIM_NCCL_CALL(ncclCommInitAll(comms.data(), gpus, nullptr));
    for (int g = 0; g < gpus; ++g) {
      Rank& r = ranks_[g];
      DSSIM_CUDA(cudaSetDevice(g));
      r.comm = comms[g];
      r.send = std::make_unique<Buffer>(most_bytes);
      r.receive = std::make_unique<Buffer>(most_bytes);
      fill_bf16(r.send->as(), most_bytes / 2, 1.0f, 31 + g);
      DSSIM_CUDA(cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking));
      DSSIM_CUDA(cudaEventCreate(&r.start));
      DSSIM_CUDA(cudaEventCreate(&r.stop));
    }
  }
  ~NcclBench() {
    int current = 0;
    cudaGetDevice(&current);
    for (std::size_t g = 0; g < ranks_.size(); ++g) {
      cudaSetDevice(static_cast<int>(g));
      cudaStreamSynchronize(ranks_[g].stream);
      ncclCommDestroy(ranks_[g].comm);
      cudaEventDestroy(ranks_[g].start);
      cudaEventDestroy(ranks_[g].stop);
      cudaStreamDestroy(ranks_[g].stream);
      ranks_[g].send.reset();
      ranks_[g].receive.reset();
    }
    cudaSetDevice(current);
  }

  // One all-reduce, which `stream` of GPU `device` waits for.
  void launch_all_reduce(std::size_t bytes, int device, cudaStream_t stream) {
    DSSIM_NCCL_CALL(ncclGroupStart());
    for (int g = 0; g < static_cast<int>(ranks_.size()); ++g) enqueue(g, 0, bytes);
    DSSIM_NCCL_CALL(ncclGroupEnd());
    DSSIM_CUDA(cudaEventRecord(ranks_[device].stop, ranks_[device].stream));
    DSSIM_CUDA(cudaStreamWaitEvent(stream, ranks_[device].stop));
  }

  // Median over samples of the mean over a few calls in a row; of the ranks the slowest counts.
  Reading measure(int collective, std::size_t bytes) {
    int calls = static_cast<int>(std::clamp<std::size_t>(kMostGraphBytes / bytes, 2, kMostCalls));
    int samples = bytes >= (std::size_t{256} << 20) ? 5 : 11;
    std::vector<std::vector<double>> seconds(ranks_.size());
    std::barrier meet(static_cast<std::ptrdiff_t>(ranks_.size()));
    std::atomic<bool> failed{false};
    std::vector<std::thread> threads;
    for (int g = 0; g < static_cast<int>(ranks_.size()); ++g) {
      threads.emplace_back([&, g] {
        try {
          seconds[g] = sample(g, collective, bytes, calls, samples, meet);
        } catch (const std::exception& e) {
          std::fprintf(stderr, "%s\n", e.what());
          failed = true;
          std::_Exit(1);  // the other ranks would wait for this one for ever; the partial profile stays partial
        }
      });
    }
    for (std::thread& t : threads) t.join();
    std::vector<double> slowest(seconds[0]);
    for (const auto& s : seconds) {
      for (std::size_t i = 0; i < slowest.size(); ++i) slowest[i] = std::max(slowest[i], s[i]);
    }
    return summarise(slowest);
  }

 private:
  void enqueue(int g, int collective, std::size_t bytes) {
    Rank& r = ranks_[g];
    std::size_t n = ranks_.size();
    std::size_t count = bytes / 2;  // bf16
    std::size_t share = count / n;
    auto* send = r.send->as<char>();
    auto* receive = r.receive->as<char>();
    switch (collective) {
      case 0:
      case kEager:
        DSSIM_NCCL_CALL(ncclAllReduce(send, receive, count, ncclBfloat16, ncclSum, r.comm, r.stream));
        break;
      case 1:
        DSSIM_NCCL_CALL(ncclAllGather(send, receive, share, ncclBfloat16, r.comm, r.stream));
        break;
      case 2:
        DSSIM_NCCL_CALL(ncclReduceScatter(send, receive, share, ncclBfloat16, ncclSum, r.comm, r.stream));
        break;
      case 3:
        DSSIM_NCCL_CALL(ncclGroupStart());
        for (std::size_t peer = 0; peer < n; ++peer) {
          DSSIM_NCCL_CALL(
              ncclSend(send + peer * share * 2, share, ncclBfloat16, static_cast<int>(peer), r.comm, r.stream));
          DSSIM_NCCL_CALL(
              ncclRecv(receive + peer * share * 2, share, ncclBfloat16, static_cast<int>(peer), r.comm, r.stream));
        }
        DSSIM_NCCL_CALL(ncclGroupEnd());
        break;
      case 4:
        DSSIM_NCCL_CALL(ncclBroadcast(send, receive, count, ncclBfloat16, 0, r.comm, r.stream));
        break;
      default:
        DSSIM_NCCL_CALL(ncclGroupStart());
        DSSIM_NCCL_CALL(ncclSend(send, count, ncclBfloat16, static_cast<int>((g + 1) % n), r.comm, r.stream));
        DSSIM_NCCL_CALL(ncclRecv(receive, count, ncclBfloat16, static_cast<int>((g + n - 1) % n), r.comm, r.stream));
        DSSIM_NCCL_CALL(ncclGroupEnd());
    }
  }

  std::vector<double> sample(int g, int collective, std::size_t bytes, int calls, int samples, std::barrier<>& meet) {
    Rank& r = ranks_[g];
    DSSIM_CUDA(cudaSetDevice(g));
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t executable = nullptr;
    if (collective != kEager && bytes <= kMostGraphBytes) {
      // NCCL connects the ranks in the first call of a kind, which cannot be captured.
      enqueue(g, collective, bytes);
      DSSIM_CUDA(cudaStreamSynchronize(r.stream));
      meet.arrive_and_wait();
      DSSIM_CUDA(cudaStreamBeginCapture(r.stream, cudaStreamCaptureModeThreadLocal));
      for (int i = 0; i < calls; ++i) enqueue(g, collective, bytes);
      DSSIM_CUDA(cudaStreamEndCapture(r.stream, &graph));
      DSSIM_CUDA(cudaGraphInstantiate(&executable, graph, 0));
    }
    auto run = [&] {
      if (executable != nullptr) {
        DSSIM_CUDA(cudaGraphLaunch(executable, r.stream));
      } else {
        for (int i = 0; i < calls; ++i) enqueue(g, collective, bytes);
      }
    };
    std::vector<double> seconds;
    for (int s = -1; s < samples; ++s) {  // the first one warms up
      meet.arrive_and_wait();
      enqueue_start(r, g, collective, bytes, executable);
      run();
      DSSIM_CUDA(cudaEventRecord(r.stop, r.stream));
      DSSIM_CUDA(cudaStreamSynchronize(r.stream));
      float milliseconds = 0.0f;
      DSSIM_CUDA(cudaEventElapsedTime(&milliseconds, r.start, r.stop));
      if (s >= 0) seconds.push_back(milliseconds * 1e-3 / calls);
    }
    if (executable != nullptr) {
      DSSIM_CUDA(cudaGraphExecDestroy(executable));
      DSSIM_CUDA(cudaGraphDestroy(graph));
    }
    return seconds;
  }

  // The clock starts after one call that brings the ranks together on the GPU, so that their threads' start does not
  // count.
  void enqueue_start(Rank& r, int g, int collective, std::size_t bytes, cudaGraphExec_t executable) {
    if (executable == nullptr) {
      enqueue(g, collective, bytes);
    } else {
      enqueue(g, 0, 1024);
    }
    DSSIM_CUDA(cudaEventRecord(r.start, r.stream));
  }

  std::vector<Rank> ranks_;
};

}  // namespace

std::function<void()> all_reduce_load(const GpuInfo& gpu, cudaStream_t stream) {
  if (gpu.count < 2) return {};
  constexpr std::size_t kBytes = std::size_t{32} << 20;  // activations of 4096 tokens of 4096 values
  auto nccl = std::make_shared<NcclBench>(gpu.count, kBytes);
  DSSIM_CUDA(cudaSetDevice(gpu.device));
  return [nccl, device = gpu.device, stream] { nccl->launch_all_reduce(kBytes, device, stream); };
}

std::string nccl_version() {
  int version = 0;
  DSSIM_NCCL_CALL(ncclGetVersion(&version));
  return std::to_string(version / 10000) + "." + std::to_string(version / 100 % 100) + "." +
         std::to_string(version % 100);
}

void measure_nccl(Bench& bench) {
  if (bench.gpu.count < 2) {
    std::fprintf(stderr, "note: one GPU only: collectives not measured\n");
    return;
  }
  const char* header = "collective,gpus,bytes,seconds,mad";
  std::set<int> groups;
  for (int g = 2; g < bench.gpu.count; g *= 2) groups.insert(g);
  groups.insert(bench.gpu.count);
  std::size_t most = bench.quick ? std::size_t{256} << 20 : std::size_t{4} << 30;
  most = std::min(most, affordable_bytes(most, 0.3) / 65536 * 65536);
  Table table = bench.profile.begin("nccl", header);
  Table check = bench.profile.begin("check_nccl", header);
  ShapeGenerator random(20261125);
  for (int gpus : groups) {
    NcclBench nccl(gpus, most);
    for (int c = 0; c < kCollectiveCount; ++c) {
      for (std::size_t bytes = 1024; bytes <= most; bytes *= bench.quick ? 4 : 2) {
        if (c == kEager && bytes > kMostGraphBytes) break;
        table.row(nccl.measure(c, bytes), kCollectives[c], gpus, bytes);
      }
    }
    for (int i = 0; i < (bench.quick ? 7 : 42); ++i) {
      int c = i % kCollectiveCount;
      std::size_t bytes = static_cast<std::size_t>(random.draw(2, 1 << 20, 1)) * 1024;
      if (c == kEager) bytes = std::min(bytes, kMostGraphBytes);
      if (bytes <= most) check.row(nccl.measure(c, bytes), kCollectives[c], gpus, bytes);
    }
  }
  DSSIM_CUDA(cudaSetDevice(bench.gpu.device));
  check.finish();
  bench.profile.end(table, "nccl", bench.notes);
}

}  // namespace dssim::cuda

#else

namespace dssim::cuda {

std::string nccl_version() {
  return {};
}

std::function<void()> all_reduce_load(const GpuInfo&, cudaStream_t) {
  return {};
}

void measure_nccl(Bench&) {
  std::fprintf(stderr, "note: built without NCCL: collectives not measured\n");
}

}  // namespace dssim::cuda

#endif
