// SPDX-License-Identifier: Apache-2.0
// Running softmax over tiles of scores held in accumulator fragments: s[4j + 2r + c] is row r (of two), column 8j + c.
#pragma once

#include "kernels/cuda/ops/mma.cuh"

namespace dssim::cuda {

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;\n" : "=f"(y) : "f"(x));
  return y;
}

struct RunningSoftmax {
  float max[2] = {-INFINITY, -INFINITY};
  float sum[2] = {0.0f, 0.0f};  // of this lane's columns; reduced over the quad at the end

  // Turns scores into exp2(scale * (score - max)) and returns in `rescale` what earlier sums and outputs must be
  // multiplied by. A row with no visible column yet keeps max = -inf and weights 0.
  template <int kCount>
  __device__ void update(float (&s)[kCount], float scale, float (&rescale)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float top = max[r];
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j) top = fmaxf(top, fmaxf(s[4 * j + 2 * r], s[4 * j + 2 * r + 1]));
      top = quad_max(top);
      float offset = top == -INFINITY ? 0.0f : top * scale;
      rescale[r] = exp2_fast(fmaf(max[r], scale, -offset));
      max[r] = top;
      float total = 0.0f;
#pragma unroll
      for (int j = 0; j < kCount / 4; ++j) {
        float a = exp2_fast(fmaf(s[4 * j + 2 * r], scale, -offset));
        float b = exp2_fast(fmaf(s[4 * j + 2 * r + 1], scale, -offset));
        s[4 * j + 2 * r] = a;
        s[4 * j + 2 * r + 1] = b;
        total += a + b;
      }
      sum[r] = fmaf(sum[r], rescale[r], total);
    }
  }
};

}  // namespace dssim::cuda
