// SPDX-License-Identifier: Apache-2.0
// Attention over a paged KV cache, bf16, softmax(q k^T / sqrt(d)) v, causal: query i of a sequence sees the first
// kv_length - query_length + i + 1 tokens. Any heads that are a multiple of kv_heads (MHA, GQA, MQA).
//   queries, output: [token][head][head_dim], the tokens of all sequences one after another
//   keys, values:    [page][kPageTokens][kv_head][head_dim]; page_table row s lists the pages of sequence s in order
// Pages named in the table must hold finite numbers even where no token was written yet (zero the cache once).
// Every array is on the device; launches only, nothing waits, so calls can be captured into a CUDA graph.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <cstddef>

namespace dssim::cuda {

inline constexpr int kPageTokens = 16;

struct AttentionArgs {
  const __nv_bfloat16* queries = nullptr;
  __nv_bfloat16* output = nullptr;
  const __nv_bfloat16* keys = nullptr;
  const __nv_bfloat16* values = nullptr;
  const int* page_table = nullptr;   // [sequences][pages_per_sequence]
  const int* query_start = nullptr;  // [sequences + 1], first query token of each sequence (prefill only)
  const int* kv_length = nullptr;    // [sequences], tokens in the cache, the new ones included
  int sequences = 0;
  int query_tokens = 0;        // of all sequences (prefill only)
  int longest_query = 0;       // tokens, of any sequence (prefill only)
  int pages = 0;               // in the whole cache
  int pages_per_sequence = 0;  // row length of page_table
  int heads = 0;
  int kv_heads = 0;
  int head_dim = 128;  // 64 or 128
};

enum class PrefillKernel { automatic, warp_mma, warpgroup_mma };

// A chunk of one or more new tokens per sequence against all its KV (the chunk's own KV already written). head_dim 128
// on sm_90 runs the wgmma kernel, everything else from sm_80 on the mma.sync kernel; `kernel` forces one of them.
void prefill_attention(const AttentionArgs& args, cudaStream_t stream, PrefillKernel kernel = PrefillKernel::automatic);

// True when the wgmma kernel runs on the current device.
bool warpgroup_mma_available();

// One new token per sequence. Each sequence's KV is split over several blocks when the batch alone does not fill the
// GPU; the last block to finish a sequence merges the parts. `workspace` (decode_workspace_bytes) must be zeroed once
// before its first use. The split depends on longest_kv alone, so a captured graph holds for shorter sequences too.
void decode_attention(const AttentionArgs& args, int longest_kv, void* workspace, cudaStream_t stream);
std::size_t decode_workspace_bytes(int sequences, int heads, int head_dim);

// Blocks of head_dim 128 that a multiprocessor of the current device holds at a time.
int decode_blocks_per_processor();
int prefill_blocks_per_processor();

}  // namespace dssim::cuda
