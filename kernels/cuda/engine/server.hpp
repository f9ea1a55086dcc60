// SPDX-License-Identifier: Apache-2.0
// The engine's host side: dssim's scheduler says what each step runs, in real time; this gives every sequence its pages
// of the KV cache and its tokens, and runs the step. Prompts are made of random tokens.
#pragma once

#include <functional>
#include <vector>

#include "kernels/cuda/engine/gpu_group.hpp"
#include "sim/serving/scheduler.hpp"
#include "workloads/request_stream.hpp"

namespace dssim::cuda {

// One step as measured. `seconds` is all of it, from planning to its tokens being handed out; sums of KV tokens count
// those of the step.
struct Iteration {
  double start_s = 0, seconds = 0, gpu_s = 0, launch_s = 0;
  int64_t decodes = 0, chunks = 0, prefill_tokens = 0, decode_kv_tokens = 0, decode_longest = 0, prefill_kv_tokens = 0;
};

class Server {
 public:
  // `blocks` of 16 tokens are in the KV cache of the group's GPUs, besides page 0.
  Server(GpuGroup& group, Scheduler scheduler, int64_t blocks);

  // Serves the stream from time 0 until every request has ended, or a stop is requested. `ended` hears of each request.
  void serve(RequestStream& requests, const std::function<void(const RequestRecord&)>& ended);

  const std::vector<Iteration>& iterations() const { return iterations_; }

 private:
  struct Slot {  // what this engine knows of the scheduler's sequence of the same index
    uint32_t serial = 0;
    uint64_t request = UINT64_MAX;
    std::vector<int> pages;
    std::vector<int> generated;  // kept when the sequence is preempted
    std::vector<int> chunk;      // tokens of the chunk in hand
  };

  double now() const;
  void wait_until(double time_s) const;
  bool step();
  void gather(const StepPlan& plan);
  void drop_pages_of_gone();
  void take_pages(Slot& slot, int64_t tokens);
  void give_pages(Slot& slot);
  Slot& slot_of(uint32_t sequence);
  int token_at(const Sequence& sequence, const Slot& slot, int64_t position) const;

  GpuGroup& group_;
  Scheduler scheduler_;
  double zero_ = 0;
  int vocabulary_;
  std::vector<int> free_pages_;
  std::vector<Slot> slots_;
  std::vector<uint32_t> holders_;  // sequences that hold pages
  Batch batch_;
  std::vector<uint32_t> yielding_;  // sequence of each row of the output head
  std::vector<Iteration> iterations_;
};

}  // namespace dssim::cuda
