// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/nvml.hpp"

#include <cuda_runtime.h>
#include <dlfcn.h>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

// The few entry points used, as NVML declares them (an nvmlDevice_t is a pointer, nvmlReturn_t an int, 0 = success).
using Init = int (*)();
using ByBusId = int (*)(const char*, void**);
using ReadUnsigned = int (*)(void*, unsigned*);
using ReadKind = int (*)(void*, int, unsigned*);
using ReadLong = int (*)(void*, unsigned long long*);
using ReadString = int (*)(char*, unsigned);
constexpr int kSmClock = 1;
constexpr int kMemoryClock = 2;
constexpr int kGpuTemperature = 0;

template <typename Function>
Function find(void* library, const char* name) {
  return library == nullptr ? nullptr : reinterpret_cast<Function>(dlsym(library, name));
}

unsigned read_unsigned(void* library, const char* name, void* device) {
  unsigned value = 0;
  auto function = find<ReadUnsigned>(library, name);
  return function != nullptr && function(device, &value) == 0 ? value : 0;
}

unsigned read_kind(void* library, const char* name, void* device, int kind) {
  unsigned value = 0;
  auto function = find<ReadKind>(library, name);
  return function != nullptr && function(device, kind, &value) == 0 ? value : 0;
}

}  // namespace

Nvml::Nvml(int cuda_device) {
  library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW);
  auto init = find<Init>(library_, "nvmlInit_v2");
  auto by_bus_id = find<ByBusId>(library_, "nvmlDeviceGetHandleByPciBusId_v2");
  if (init == nullptr || by_bus_id == nullptr || init() != 0) return;
  char bus_id[32] = {};
  DSSIM_CUDA(cudaDeviceGetPCIBusId(bus_id, sizeof bus_id, cuda_device));
  if (by_bus_id(bus_id, &device_) != 0) device_ = nullptr;
}

Nvml::~Nvml() {
  if (auto shutdown = find<Init>(library_, "nvmlShutdown")) shutdown();
  if (library_ != nullptr) dlclose(library_);
}

GpuState Nvml::read() const {
  GpuState state;
  if (!available()) return state;
  state.sm_clock_mhz = read_kind(library_, "nvmlDeviceGetClockInfo", device_, kSmClock);
  state.memory_clock_mhz = read_kind(library_, "nvmlDeviceGetClockInfo", device_, kMemoryClock);
  state.temperature_c = read_kind(library_, "nvmlDeviceGetTemperature", device_, kGpuTemperature);
  state.power_w = read_unsigned(library_, "nvmlDeviceGetPowerUsage", device_) * 1e-3;
  auto reasons = find<ReadLong>(library_, "nvmlDeviceGetCurrentClocksEventReasons");
  if (reasons == nullptr) reasons = find<ReadLong>(library_, "nvmlDeviceGetCurrentClocksThrottleReasons");
  unsigned long long limits = 0;
  if (reasons != nullptr && reasons(device_, &limits) == 0) state.limits = limits;
  return state;
}

std::string Nvml::driver_version() const {
  char version[96] = {};
  auto function = find<ReadString>(library_, "nvmlSystemGetDriverVersion");
  return function != nullptr && function(version, sizeof version) == 0 ? version : "unknown";
}

double Nvml::power_limit_w() const {
  return read_unsigned(library_, "nvmlDeviceGetEnforcedPowerLimit", device_) * 1e-3;
}

unsigned Nvml::max_sm_clock_mhz() const {
  return read_kind(library_, "nvmlDeviceGetMaxClockInfo", device_, kSmClock);
}

}  // namespace dssim::cuda
