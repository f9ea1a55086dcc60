// SPDX-License-Identifier: Apache-2.0
#pragma once

// The few figures of a GPU that a kernel's ideal time rests on: once for the GPU the tables were measured on, once for
// the GPU asked about. Both are the same unless a profile is carried over or a scenario overrides a catalogue figure.

#include <algorithm>
#include <array>
#include <string>

#include "kernels/profile.hpp"
#include "platforms/gpu.hpp"

namespace dssim {

struct Machine {
  std::array<double, kPrecisionNames.size()> matrix_flops_per_s{};  // by weight format, what the product computes in
  double memory_bytes_per_s = 0;
  double l2_bytes = 0;
  double sms = 1;
  double nvlink_bytes_per_s = 0;  // one direction
  double pcie_bytes_per_s = 0;
  std::string architecture;

  double flops_per_s(Precision p) const { return matrix_flops_per_s[static_cast<size_t>(p)]; }

  // What AMD's matrix libraries reach of the rated figure, over what NVIDIA's reach (0.80 on H100): highest mean matmul
  // rate over many shapes, ml-engineering by Stas Bekman, 2026: MI250X 0.77, MI300X 0.51, MI355X 0.68. Tables measured
  // on NVIDIA carry over with it; between NVIDIA GPUs no factor is applied.
  static double library_rate(const std::string& architecture) {
    if (architecture == "cdna2") return 0.96;
    if (architecture == "cdna3") return 0.64;
    return architecture == "cdna4" ? 0.85 : 1.0;
  }

  // What can be sustained of the rated figures, for times carried over to a GPU that was not measured: 0.87 of the
  // matrix rate (the highest mean rate of the list above, A100 SXM), 0.93 of the memory bandwidth (large products on
  // H100 0.90, RTX 4090 0.95). A card whose power cap holds it lower has its own share in the catalogue
  // (sustained_share).
  static constexpr double kSustainedRate = 0.87, kSustainedBandwidth = 0.93;
  double sustained_rate = kSustainedRate;
  // `beaten`: by how much the tables were quicker than this where they were measured; a card's own share allows none.
  double least_seconds(double flops, double bytes, Precision p, double beaten = 1) const {
    const double rate = sustained_rate * flops_per_s(p) * (sustained_rate < kSustainedRate ? 1 : beaten);
    return std::max(flops / rate, bytes / (kSustainedBandwidth * memory_bytes_per_s * beaten));
  }

  static Machine of(const Gpu& gpu) {
    Machine m;
    for (size_t i = 0; i < kPrecisionNames.size(); ++i)
      m.matrix_flops_per_s[i] = library_rate(gpu.architecture) * gpu.matrix_flops_per_s(static_cast<Precision>(i));
    if (gpu.sustained_share > 0) m.sustained_rate = std::min(gpu.sustained_share, kSustainedRate);
    m.memory_bytes_per_s = gpu.memory_bytes_per_s;
    m.l2_bytes = gpu.l2_bytes;
    m.sms = gpu.sms > 0 ? gpu.sms : 128;
    m.nvlink_bytes_per_s = gpu.nvlink_bytes_per_s;
    m.pcie_bytes_per_s = gpu.pcie_bytes_per_s;
    m.architecture = gpu.architecture;
    return m;
  }

  static Machine of(const MeasuredGpu& gpu) {
    Machine m;
    m.matrix_flops_per_s.fill(gpu.bf16_flops_per_s);
    if (gpu.fp8_flops_per_s > 0)
      for (const Precision p : {Precision::fp8, Precision::int8})
        m.matrix_flops_per_s[static_cast<size_t>(p)] = gpu.fp8_flops_per_s;
    m.memory_bytes_per_s = gpu.memory_bytes_per_s;
    m.l2_bytes = gpu.l2_bytes;
    m.sms = gpu.sms;
    m.nvlink_bytes_per_s = gpu.nvlink_bytes_per_s;
    m.architecture = gpu.architecture;
    return m;
  }
};

}  // namespace dssim
