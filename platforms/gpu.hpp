// SPDX-License-Identifier: Apache-2.0
#pragma once

// One accelerator, resolved from platforms/catalogue/gpus/<name>.toml with the scenario's overrides applied. SI units.
// Rates are dense: structured sparsity is kept apart in the catalogue and never enters here. Links count one direction.

#include <array>
#include <string>

#include "platforms/precision.hpp"

namespace dssim {

struct Gpu {
  std::string name;          // "h100-sxm"
  std::string title;         // "NVIDIA H100 SXM5 80 GB"
  std::string architecture;  // "hopper", "ampere", "ada", "cdna3", …
  double memory_bytes = 0;
  double memory_bytes_per_s = 0;
  double l2_bytes = 0;  // last-level cache on the chip; 0 where unknown
  int sms = 0;          // streaming multiprocessors or compute units; 0 where unknown
  double clock_hz = 0;  // boost; 0 where unknown
  std::array<double, kPrecisionNames.size()> dense_flops_per_s{};  // by Precision; 0 where the chip has no such unit
  double sustained_share = 0;     // of the 16-bit matrix rate, kept up by large products; 0 where unknown
  double nvlink_bytes_per_s = 0;  // one direction, all links; 0 = none
  double pcie_bytes_per_s = 0;    // one direction
  double tdp_w = 0;
  double price_usd = 0;  // 0 where no price is known

  // The rate a matrix product of this weight format runs at, 0 where the chip cannot run it at all. int4 weights
  // compute in 16 bits; a chip without bf16 (T4, V100) computes bf16 in fp16; without fp8 or int8 units it dequantises
  // and computes in 16 bits; without 16-bit units in fp32.
  double matrix_flops_per_s(Precision weights) const;
};

}  // namespace dssim
