// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/power_load.hpp"

#include <vector>

#include "kernels/cuda/measure/meter.hpp"
#include "kernels/cuda/ops/elementwise.hpp"

namespace dssim::cuda {
namespace {

constexpr int kMostSequences = 64;
constexpr int kDecodeTokens = 4096;

}  // namespace

PowerLoad::PowerLoad(cudaStream_t stream)
    : stream_(stream), workspace_(decode_workspace_bytes(kMostSequences, 32, 128)) {
  for (cudaEvent_t& e : done_) DSSIM_CUDA(cudaEventCreateWithFlags(&e, cudaEventDisableTiming));
  fill(DataType::bf16);
  fill_ids(pages_.as<int>(), pages_.bytes() / 4, kPages, 23);
  DSSIM_CUDA(cudaMemset(workspace_.as(), 0, workspace_.bytes()));
  attention_.queries = activations_.as<bf16>();
  attention_.output = output_.as<bf16>();
  attention_.keys = weights_.as<bf16>();
  attention_.values = weights_.as<bf16>(kGib);
  attention_.page_table = pages_.as<int>();
  attention_.query_start = starts_.as<int>();
  attention_.kv_length = lengths_.as<int>();
  attention_.pages = kPages;
  attention_.heads = 32;
  attention_.kv_heads = 8;
}

PowerLoad::~PowerLoad() {
  for (cudaEvent_t e : done_) cudaEventDestroy(e);
}

void PowerLoad::fill(DataType type) {
  for (const Buffer* buffer : {&weights_, &activations_}) {
    const uint32_t seed = buffer == &weights_ ? 21 : 22;
    if (type == DataType::fp8)
      fill_fp8(buffer->as(), buffer->bytes(), 1.0f, seed);
    else
      fill_bf16(buffer->as(), buffer->bytes() / 2, 1.0f, seed);
  }
}

void PowerLoad::memory_bound() {
  DSSIM_CUDA(cudaMemcpyAsync(output_.as(), weights_.as(), kGib, cudaMemcpyDeviceToDevice, stream_));
}

void PowerLoad::compute_bound() {
  product(big_);
}

void PowerLoad::product(const Gemm& gemm) {
  gemm.run(0, activations_.as(), weights_.as(), output_.as(), stream_);
}

void PowerLoad::decode_like() {
  if (attention_.sequences != kMostSequences) {
    attention_.sequences = kMostSequences;
    attention_.pages_per_sequence = kDecodeTokens / kPageTokens;
    lengths_.upload(std::vector<int>(kMostSequences, kDecodeTokens));
  }
  up_decode_.run(0, activations_.as(), weights_.as(), output_.as(), stream_);
  down_decode_.run(0, activations_.as(), weights_.as(kGib), output_.as(), stream_);
  decode_attention(attention_, kDecodeTokens, workspace_.as(), stream_);
}

void PowerLoad::prefill_attention(int new_tokens, int past_tokens) {
  const int length = new_tokens + past_tokens;
  if (attention_.sequences != 1 || attention_.query_tokens != new_tokens ||
      attention_.pages_per_sequence != length / kPageTokens) {
    attention_.sequences = 1;
    attention_.query_tokens = attention_.longest_query = new_tokens;
    attention_.pages_per_sequence = length / kPageTokens;
    lengths_.upload(std::vector<int>{length});
    starts_.upload(std::vector<int>{0, new_tokens});
  }
  dssim::cuda::prefill_attention(attention_, stream_);
}

void PowerLoad::prefill_like() {
  prefill_attention(4096, 0);
  up_prefill_.run(0, activations_.as(), weights_.as(), output_.as(), stream_);
  silu_mul(output_.as<bf16>(), activations_.as<bf16>(kGib / 4), 4096, 14336, stream_);
  down_prefill_.run(0, activations_.as(), weights_.as(kGib), output_.as(), stream_);
}

void PowerLoad::keep_busy(double seconds, const std::function<void()>& work, const std::function<void()>& between) {
  const double begin = now_seconds();
  for (int turn = 0; now_seconds() - begin < seconds; ++turn) {
    // Two batches deep, so that the GPU never waits for the host.
    for (int i = 0; i < 8; ++i) work();
    DSSIM_CUDA(cudaEventRecord(done_[turn % 2], stream_));
    if (turn > 0) DSSIM_CUDA(cudaEventSynchronize(done_[(turn + 1) % 2]));
    between();
  }
  DSSIM_CUDA(cudaStreamSynchronize(stream_));
}

}  // namespace dssim::cuda
