// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/gpu.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr std::size_t kLeastMemory = std::size_t{12} << 30;

struct Known {
  const char* words;  // in the driver's name for the GPU
  const char* folder;
  double bf16_tflops, fp8_tflops, memory_gb_per_s, nvlink_gb_per_s;
};
// The catalogue's names, with dense rates from NVIDIA's datasheets. A GPU that is not listed gets its own name in lower
// case with dashes, and rates derived from its clocks.
constexpr Known kKnown[] = {{"H100 80GB HBM3", "h100-sxm", 989, 1979, 3350, 450},
                            {"H100 PCIe", "h100-pcie", 756, 1513, 2000, 0},
                            {"H200", "h200-sxm", 989, 1979, 4800, 450},
                            {"A100-SXM4-80GB", "a100-sxm-80gb", 312, 0, 2039, 300},
                            {"A100-SXM4-40GB", "a100-sxm-40gb", 312, 0, 1555, 300},
                            {"A100 80GB PCIe", "a100-pcie-80gb", 312, 0, 1935, 0},
                            {"L40S", "l40s", 362, 733, 864, 0},
                            {"A40", "a40", 149.7, 0, 696, 0},
                            {"RTX 4090", "rtx-4090", 165.2, 330.3, 1008, 0},
                            {"RTX PRO 6000", "rtx-pro-6000", 503.8, 1007.6, 1792, 0},
                            {"B200", "b200", 2250, 4500, 8000, 900}};

// Dense bf16 operations a multiprocessor does in one clock, by compute capability (CUDA programming guide).
double bf16_operations_per_clock(int major, int minor) {
  if (major == 9) return 4096;
  if (major == 10) return 8192;
  return major == 8 && minor == 0 ? 2048 : 1024;
}

const char* architecture_name(int major, int minor) {
  if (major == 8) return minor == 9 ? "ada" : "ampere";
  return major == 9 ? "hopper" : "blackwell";
}

int attribute(cudaDeviceAttr which, int device) {
  int value = 0;
  DSSIM_CUDA(cudaDeviceGetAttribute(&value, which, device));
  return value;
}

void set_rates(GpuInfo& gpu) {
  for (const Known& known : kKnown) {
    if (gpu.name.find(known.words) == std::string::npos) continue;
    gpu.bf16_tflops = known.bf16_tflops;
    gpu.fp8_tflops = known.fp8_tflops;
    gpu.memory_gb_per_s = known.memory_gb_per_s;
    gpu.nvlink_gb_per_s = known.nvlink_gb_per_s;
    return;
  }
  double clock_hz = attribute(cudaDevAttrClockRate, gpu.device) * 1e3;
  double memory_clock_hz = attribute(cudaDevAttrMemoryClockRate, gpu.device) * 1e3;
  gpu.bf16_tflops = bf16_operations_per_clock(gpu.major, gpu.minor) * gpu.processors * clock_hz * 1e-12;
  gpu.fp8_tflops = gpu.has_fp8() ? 2 * gpu.bf16_tflops : 0.0;
  // Two transfers a clock over the whole width of the bus.
  gpu.memory_gb_per_s = 2 * memory_clock_hz * attribute(cudaDevAttrGlobalMemoryBusWidth, gpu.device) / 8 * 1e-9;
}

std::string folder_name(const std::string& gpu) {
  for (const Known& known : kKnown) {
    if (gpu.find(known.words) != std::string::npos) return known.folder;
  }
  std::string folder;
  for (char c : gpu) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      folder += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    } else if (!folder.empty() && folder.back() != '-') {
      folder += '-';
    }
  }
  return folder;
}

std::string version(int number) {
  return std::to_string(number / 1000) + "." + std::to_string(number / 10 % 100);
}

}  // namespace

GpuInfo find_gpu(int device) {
  int driver = 0;
  int runtime = 0;
  DSSIM_CUDA(cudaDriverGetVersion(&driver));
  DSSIM_CUDA(cudaRuntimeGetVersion(&runtime));
  if (driver == 0) throw Unavailable("no NVIDIA driver on this machine: dssim-calibrate measures a real GPU");
  // Within one major version a newer runtime works with an older driver; across majors it does not.
  if (driver / 1000 < runtime / 1000) {
    throw Unavailable("driver too old: it supports CUDA " + version(driver) + ", this program needs " +
                      std::to_string(runtime / 1000) + ".0 or later; update the driver or build with an older CUDA");
  }
  GpuInfo gpu;
  cudaError_t status = cudaGetDeviceCount(&gpu.count);
  if (status == cudaErrorNoDevice || (status == cudaSuccess && gpu.count == 0)) {
    throw Unavailable("no CUDA GPU on this machine (or none in CUDA_VISIBLE_DEVICES)");
  }
  DSSIM_CUDA(status);
  if (device < 0 || device >= gpu.count) {
    throw Unavailable("--device " + std::to_string(device) + ": this machine has GPUs 0 to " +
                      std::to_string(gpu.count - 1));
  }
  cudaDeviceProp properties{};
  DSSIM_CUDA(cudaSetDevice(device));
  DSSIM_CUDA(cudaGetDeviceProperties(&properties, device));
  gpu.device = device;
  gpu.name = properties.name;
  gpu.profile_folder = folder_name(gpu.name);
  gpu.major = properties.major;
  gpu.minor = properties.minor;
  gpu.processors = properties.multiProcessorCount;
  gpu.memory_bytes = properties.totalGlobalMem;
  gpu.l2_bytes = properties.l2CacheSize;
  gpu.driver = driver;
  gpu.architecture = architecture_name(gpu.major, gpu.minor);
  set_rates(gpu);
  if (gpu.major < 8) {
    throw Unavailable(gpu.name + " has compute capability " + std::to_string(gpu.major) + "." +
                      std::to_string(gpu.minor) + ": the kernels need 8.0 (Ampere) or later");
  }
  std::size_t free = 0;
  std::size_t total = 0;
  DSSIM_CUDA(cudaMemGetInfo(&free, &total));
  gpu.context_bytes = total - free;
  if (free < kLeastMemory) {
    throw Unavailable("too little GPU memory: " + std::to_string(free >> 20) + " MiB free, " +
                      std::to_string(kLeastMemory >> 20) + " MiB needed (is another program using the GPU?)");
  }
  return gpu;
}

std::string cuda_version_name(int number) {
  return version(number);
}

std::size_t affordable_bytes(std::size_t wanted, double share) {
  std::size_t free = 0;
  std::size_t total = 0;
  DSSIM_CUDA(cudaMemGetInfo(&free, &total));
  return std::min(wanted, static_cast<std::size_t>(share * static_cast<double>(free))) / 4096 * 4096;
}

int ShapeGenerator::draw(int low, int high, int step) {
  double u = static_cast<double>(engine_()) / 4294967296.0;
  double value = low * std::pow(static_cast<double>(high) / low, u);
  int rounded = static_cast<int>(std::lround(value / step)) * step;
  return std::clamp(rounded, low, high);
}

}  // namespace dssim::cuda
