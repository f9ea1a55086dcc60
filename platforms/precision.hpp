// SPDX-License-Identifier: Apache-2.0
#pragma once

// Number formats as the field names them. `int4` is four-bit weights with 16-bit activations (AWQ, GPTQ: dequantised in
// the matrix product, so the product runs at the 16-bit rate); `fp8` and `int8` quantise weights and activations
// (W8A8).

#include <array>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

enum class Precision { fp64, fp32, tf32, bf16, fp16, fp8, int8, fp4, int4 };

inline constexpr std::array<std::string_view, 9> kPrecisionNames{"fp64", "fp32", "tf32", "bf16", "fp16",
                                                                 "fp8",  "int8", "fp4",  "int4"};

inline std::string_view name_of(Precision p) {
  return kPrecisionNames[static_cast<size_t>(p)];
}

// Bytes one stored value takes (0.5 for four bits), scales not counted.
inline double bytes_of(Precision p) {
  switch (p) {
    case Precision::fp64:
      return 8;
    case Precision::fp32:
    case Precision::tf32:
      return 4;
    case Precision::bf16:
    case Precision::fp16:
      return 2;
    case Precision::fp8:
    case Precision::int8:
      return 1;
    case Precision::fp4:
    case Precision::int4:
      return 0.5;
  }
  return 0;
}

// Every name, for errors and help.
inline std::vector<std::string> precision_names() {
  return {kPrecisionNames.begin(), kPrecisionNames.end()};
}

}  // namespace dssim
