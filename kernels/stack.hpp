// SPDX-License-Identifier: Apache-2.0
#pragma once

// What an inference or training engine adds to its kernels: kernels/profiles/<gpu>/<stack>/stack.toml. Every figure in
// the file says how it was measured or fitted, and on what.

#include <algorithm>
#include <bit>
#include <cstdint>
#include <string>
#include <vector>

namespace dssim {

// Memory that is there whatever the model: per GPU, in bytes.
struct StackMemory {
  double context_bytes = 0;        // CUDA context and the framework's own allocations
  double graphs_bytes = 0;         // captured CUDA graphs
  double communication_bytes = 0;  // NCCL and custom all-reduce buffers; only where a replica spans several GPUs
};

// The attention kernels, which decide what a decode costs beside a prefill chunk and in a padded graph.
//   flash2  decodes in the launch of a prefill chunk take a whole 128-row tile for each query head; in a captured graph
//           the KV splits were fixed at capture, for the padded batch (FlashAttention-2)
//   flash3  the query heads of one KV head share a tile, and splits are chosen at run time (FlashAttention-3)
enum class AttentionKernel : uint8_t { flash2, flash3 };

struct Stack {
  std::string name;  // "vllm-0.14"
  std::string gpu;   // GPU the tables were measured on
  std::string title;
  StackMemory memory;

  // A decode-only batch is padded up to the next of these (CUDA graphs); beyond the last, and with graphs off, it runs
  // eagerly.
  std::vector<int64_t> graph_batch_sizes;
  // Context that the graphs were captured for, which fixes how FlashAttention-2 splits KV; 0 = splits follow the batch.
  int64_t graph_context_tokens = 0;
  // Rows that pad a graph's batch attend to KV like the others; else they have none (vLLM sets their lengths to zero).
  bool padding_attends = false;
  // Steps with prefill run from graphs too (vLLM's piecewise graphs) up to this many tokens, padded likewise; 0 =
  // never.
  int64_t piecewise_graph_tokens = 0;

  AttentionKernel attention = AttentionKernel::flash2;
  bool attention_writes_kv = false;  // the attention tables include writing new keys and values to the cache
  bool rope_writes_kv = false;       // the times of rope do
  // Asynchronous scheduling: while a step runs the batch of the next one is already fixed, so an arrival waits one step
  // more.
  bool schedules_ahead = false;

  // A request is admitted only where the KV cache has room for its whole prompt; else for the first chunk of it.
  bool prompt_must_fit = false;

  double iteration_host_s = 0;  // host work between two steps that the GPU waits for
  double sequence_host_s = 0;   // the same, for each sequence in the batch
  double eager_host_s =
      0;  // the same, for a step that does not run from one graph (inputs built and copied, synchronised)
  double eager_launch_s = 0;  // host time of one layer launched eagerly: layers × this is a floor under an eager step
  double piecewise_launch_s =
      0;  // host time of one layer run piecewise (graph pieces, attention between them): likewise
  // GPU time a layer spends between and in kernels that no table holds (rotary, KV write, gaps), at tensor-parallel
  // degrees of 1, 2, 4 and so on: the GPUs wait for each other in every all-reduce.
  std::vector<double> layer_gap_s;
  // The same in a step that is launched kernel by kernel; where not given, as layer_gap.
  std::vector<double> eager_gap_s;
  // Of such a list; a degree between two takes the smaller one's, one beyond the list the last.
  static double gap_s(const std::vector<double>& by_degree, int tensor_parallel) {
    if (by_degree.empty()) return 0;
    const auto doublings = static_cast<size_t>(std::bit_width(static_cast<unsigned>(tensor_parallel)) - 1);
    return by_degree[std::min(doublings, by_degree.size() - 1)];
  }
  // The front end, part of TTFT and e2e, not of GPU time.
  double frontend_latency_s = 0;  // fixed: HTTP, tokenisation, first scheduling
  double frontend_token_s = 0;    // its one thread's work on each token that it sends

  // An engine slower than the tables it borrows (`kernels` names them): measured seconds / table seconds, by phase.
  double prefill_slowdown = 1;
  double decode_slowdown = 1;
};

}  // namespace dssim
