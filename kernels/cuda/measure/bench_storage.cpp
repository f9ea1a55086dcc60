// SPDX-License-Identifier: Apache-2.0
// storage.csv: reading one file, several threads each with its own part, in blocks. `path` is file_to_host or
// file_to_gpu (through pinned buffers, the copy overlapping the next read); `mode` is direct (O_DIRECT) or cached (page
// cache, warm).
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "kernels/cuda/measure/bench.hpp"
#include "kernels/cuda/measure/buffer.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kBlock = std::size_t{8} << 20;
constexpr int kMostThreads = 16;

class ScratchFile {
 public:
  ScratchFile(const std::filesystem::path& folder, std::size_t bytes) : path_(folder / "dssim-calibrate.scratch") {
    int fd = open(path_.c_str(), O_CREAT | O_TRUNC | O_WRONLY, 0600);
    if (fd < 0) throw Unavailable("storage: cannot write " + path_.string() + ": " + std::strerror(errno));
    std::vector<char> block(kBlock);
    std::mt19937_64 random(3);
    for (std::size_t i = 0; i < block.size(); i += 8) {
      auto word = random();
      std::memcpy(&block[i], &word, 8);
    }
    bool ok = true;
    for (std::size_t at = 0; at < bytes && ok; at += kBlock)
      ok = write(fd, block.data(), kBlock) == static_cast<ssize_t>(kBlock);
    ok = fsync(fd) == 0 && ok;
    close(fd);
    if (!ok) {
      std::filesystem::remove(path_);
      throw Unavailable("storage: cannot write " + std::to_string(bytes) + " bytes to " + path_.string());
    }
  }
  ~ScratchFile() { std::filesystem::remove(path_); }
  ScratchFile(const ScratchFile&) = delete;
  ScratchFile& operator=(const ScratchFile&) = delete;
  const char* path() const { return path_.c_str(); }

 private:
  std::filesystem::path path_;
};

struct Reader {
  char* pinned[2] = {};
  cudaStream_t stream = nullptr;
  cudaEvent_t copied[2] = {};
};

class StorageBench {
 public:
  StorageBench(Bench& bench, std::size_t bytes)
      : bench_(bench), file_(bench.scratch, bytes), bytes_(bytes), gpu_(bytes) {
    for (Reader& r : readers_) {
      for (char*& p : r.pinned) DSSIM_CUDA(cudaMallocHost(reinterpret_cast<void**>(&p), kBlock));
      for (cudaEvent_t& e : r.copied) DSSIM_CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
      DSSIM_CUDA(cudaStreamCreateWithFlags(&r.stream, cudaStreamNonBlocking));
    }
  }
  ~StorageBench() {
    for (Reader& r : readers_) {
      cudaStreamDestroy(r.stream);
      for (cudaEvent_t e : r.copied) cudaEventDestroy(e);
      for (char* p : r.pinned) cudaFreeHost(p);
    }
  }

  void row(Table& table, bool to_gpu, bool direct, int threads) {
    int fd = open(file_.path(), direct ? O_RDONLY | O_DIRECT : O_RDONLY);
    if (fd < 0) {
      bench_.notes.push_back("direct = \"this file system refuses O_DIRECT\"");
      return;
    }
    auto reading = bench_.meter.measure_host([&] { return read_all(fd, to_gpu, threads); }, 3);
    close(fd);
    if (reading) {
      table.row(*reading, to_gpu ? "file_to_gpu" : "file_to_host", direct ? "direct" : "cached", threads, kBlock,
                bytes_);
    }
  }

 private:
  double read_all(int fd, bool to_gpu, int threads) {
    std::atomic<bool> failed{false};
    double before = now_seconds();
    std::vector<std::thread> workers;
    for (int t = 0; t < threads; ++t) {
      workers.emplace_back([&, t] {
        try {
          read_part(fd, to_gpu, t, threads);
        } catch (const std::exception& e) {
          std::fprintf(stderr, "%s\n", e.what());
          failed = true;
        }
      });
    }
    for (std::thread& w : workers) w.join();
    if (failed) throw Unavailable("storage: reading the scratch file failed");
    return now_seconds() - before;
  }

  void read_part(int fd, bool to_gpu, int thread, int threads) {
    DSSIM_CUDA(cudaSetDevice(bench_.gpu.device));
    Reader& r = readers_[thread];
    int turn = 0;
    for (std::size_t at = thread * kBlock; at < bytes_; at += threads * kBlock, turn ^= 1) {
      if (to_gpu) DSSIM_CUDA(cudaEventSynchronize(r.copied[turn]));
      if (pread(fd, r.pinned[turn], kBlock, static_cast<off_t>(at)) != static_cast<ssize_t>(kBlock)) {
        throw Unavailable(std::string("storage: read: ") + std::strerror(errno));
      }
      if (!to_gpu) continue;
      DSSIM_CUDA(cudaMemcpyAsync(gpu_.as<char>() + at, r.pinned[turn], kBlock, cudaMemcpyHostToDevice, r.stream));
      DSSIM_CUDA(cudaEventRecord(r.copied[turn], r.stream));
    }
    if (to_gpu) DSSIM_CUDA(cudaStreamSynchronize(r.stream));
  }

  Bench& bench_;
  ScratchFile file_;
  std::size_t bytes_;
  Buffer gpu_;
  Reader readers_[kMostThreads];
};

}  // namespace

void measure_storage(Bench& bench) {
  StorageBench storage(bench, std::size_t{bench.quick ? 512u : 1024u} << 20);
  Table table = bench.profile.begin("storage", "path,mode,threads,block_bytes,bytes,seconds,mad");
  for (int threads : {1, 4, kMostThreads}) {
    for (bool to_gpu : {false, true}) {
      storage.row(table, to_gpu, false, threads);
      storage.row(table, to_gpu, true, threads);
    }
  }
  bench.profile.end(table, "storage", bench.notes);
}

}  // namespace dssim::cuda
