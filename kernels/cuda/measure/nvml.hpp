// SPDX-License-Identifier: Apache-2.0
// What the driver says of the GPU's state while it is measured: clocks, power, why clocks are held down. Only reads.
// The library comes with the driver and is opened at run time; where it is missing, available() is false.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace dssim::cuda {

struct GpuState {
  unsigned sm_clock_mhz = 0;
  unsigned memory_clock_mhz = 0;
  double power_w = 0.0;
  unsigned temperature_c = 0;
  std::uint64_t limits = 0;  // NVML's clocks-event reasons

  // Slowed by heat or by hardware protection: such samples are dropped. A software power cap is not: it is how the GPU
  // behaves under load.
  bool throttled() const { return (limits & (0x08 | 0x20 | 0x40 | 0x80)) != 0; }
  bool power_capped() const { return (limits & 0x04) != 0; }
};

class Nvml {
 public:
  explicit Nvml(int cuda_device);
  ~Nvml();
  Nvml(const Nvml&) = delete;
  Nvml& operator=(const Nvml&) = delete;

  bool available() const { return device_ != nullptr; }
  GpuState read() const;
  std::string driver_version() const;
  double power_limit_w() const;
  unsigned max_sm_clock_mhz() const;

 private:
  void* library_ = nullptr;
  void* device_ = nullptr;
};

}  // namespace dssim::cuda
