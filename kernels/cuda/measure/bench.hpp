// SPDX-License-Identifier: Apache-2.0
// The benchmarks: each measures one table of the profile (and its check table of shapes never in the grid).
// A rate in GpuInfo is the vendor's datasheet figure where the GPU is known, and derived from clocks and widths
// elsewhere.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "kernels/cuda/measure/meter.hpp"
#include "kernels/cuda/measure/nvml.hpp"
#include "kernels/cuda/measure/profile.hpp"

namespace dssim::cuda {

struct GpuInfo {
  int device = 0;
  int count = 0;
  std::string name;            // as the driver says it
  std::string profile_folder;  // as dssim's catalogue names it: h100-sxm
  std::string architecture;    // hopper
  int major = 0;
  int minor = 0;
  int processors = 0;
  std::size_t memory_bytes = 0;
  std::size_t l2_bytes = 0;
  std::size_t context_bytes = 0;  // of memory in use once the CUDA context stands
  double bf16_tflops = 0.0;       // rated, dense
  double fp8_tflops = 0.0;        // rated, dense; 0 = none
  double memory_gb_per_s = 0.0;   // rated
  double nvlink_gb_per_s = 0.0;   // rated, one direction; 0 = none
  int driver = 0;                 // highest CUDA version the driver supports, 1000 major + 10 minor

  bool has_fp8() const { return major > 8 || (major == 8 && minor >= 9); }
};

struct Bench {
  const GpuInfo& gpu;
  const Nvml& nvml;
  Meter& meter;
  Profile& profile;
  bool quick = false;
  std::filesystem::path scratch;   // where the storage benchmark puts its file
  std::vector<std::string> notes;  // of the table being measured, for calibration.toml
};

// Bytes of device memory a benchmark may take: `wanted`, or `share` of what is free if that is less.
std::size_t affordable_bytes(std::size_t wanted, double share);

// Random shapes for the check tables, the same in every run.
class ShapeGenerator {
 public:
  explicit ShapeGenerator(uint32_t seed) : engine_(seed) {}
  // Log-uniform in [low, high], rounded to a multiple of `step`.
  int draw(int low, int high, int step);
  int pick(int count) { return static_cast<int>(engine_() % static_cast<uint32_t>(count)); }

 private:
  std::mt19937 engine_;
};

void measure_gemm(Bench& bench);
void measure_attention(Bench& bench);
void measure_moe(Bench& bench);
void measure_elementwise(Bench& bench);
void measure_copy(Bench& bench);
void measure_launch(Bench& bench);
void measure_nccl(Bench& bench);
void measure_storage(Bench& bench);
void measure_power(Bench& bench);

// Every kernel against float64 on the host, small shapes. Prints a line each; false if one is off.
bool verify_kernels(const GpuInfo& gpu);

// A few shapes against what the same GPU copies at: the bars a profile must clear to be worth using.
void report_kernel_quality(Bench& bench);

std::string nccl_version();  // empty: built without NCCL
// Launches one large all-reduce over the node's GPUs, on `stream` of the one that is measured; empty where there is one
// GPU or no NCCL.
std::function<void()> all_reduce_load(const GpuInfo& gpu, cudaStream_t stream);

}  // namespace dssim::cuda
