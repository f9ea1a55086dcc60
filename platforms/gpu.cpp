// SPDX-License-Identifier: Apache-2.0
#include "platforms/gpu.hpp"

namespace dssim {
namespace {

double first_of(const Gpu& gpu, std::initializer_list<Precision> choices) {
  for (const Precision p : choices)
    if (const double rate = gpu.dense_flops_per_s[static_cast<size_t>(p)]; rate > 0) return rate;
  return 0;
}

}  // namespace

double Gpu::matrix_flops_per_s(Precision weights) const {
  using enum Precision;
  switch (weights) {
    case fp64:
      return first_of(*this, {fp64});
    case fp32:
      return first_of(*this, {fp32});
    case tf32:
      return first_of(*this, {tf32, fp32});
    case bf16:
      return first_of(*this, {bf16, fp16, fp32});
    case fp16:
    case int4:
      return first_of(*this, {fp16, bf16, fp32});
    case fp8:
      return first_of(*this, {fp8, bf16, fp16, fp32});
    case int8:
      return first_of(*this, {int8, bf16, fp16, fp32});
    case fp4:
      return first_of(*this, {fp4, bf16, fp16, fp32});
  }
  return 0;
}

}  // namespace dssim
