// SPDX-License-Identifier: Apache-2.0
#pragma once

// In which order each stage of a pipeline does its forward and backward passes, as data, and how long a step then
// takes.
//
//   gpipe        all forwards, then all backwards (Huang et al. 2019); m micro-batches in flight
//   1f1b         warm-up, then one forward, one backward (Narayanan et al. 2019); p − stage in flight
//   interleaved  1f1b over v chunks of layers a stage (Narayanan et al. 2021, arXiv 2104.04473)
//   zero-bubble  1f1b with the backward split into input and weight gradients, the weights' moved into the bubble
//                (ZB-H1 of Qi et al. 2023, arXiv 2401.10241): the same memory as 1f1b
//   dualpipe     micro-batches enter at both ends, each stage holds two chunks, and a forward of one direction runs
//                beside a backward of the other, which hides what their exchanges with experts take (DeepSeek-V3, arXiv
//                2412.19437, section 3.2.1; the order is that of DeepSeek's own code, github.com/deepseek-ai/DualPipe)
//
// Bubble ÷ compute, passes of equal length on every stage: gpipe and 1f1b (p−1)/m, interleaved (p−1)/(v m), zero-bubble
// about a third of 1f1b's; as a share of the step (p−1)/(m+p−1); dualpipe at most (p/2−1)(f&b + b − 3w) seconds for
// forwards f, backwards b with weight gradients w in them, and pairs f&b. Units: seconds, counts. Errors:
// Error(bad_input) for an unknown name; schedule_problem() says what a schedule cannot divide. Tested by
// tests/analytic/training_schedule_test.cpp.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace dssim {

enum class PassKind : uint8_t { forward, backward, backward_input, backward_weight };

struct Pass {
  PassKind kind = PassKind::forward;
  int32_t chunk = 0;  // of the stage's own chunks
  int32_t micro_batch = 0;
  bool with_next = false;  // this forward and the backward after it run beside each other
};

// How long the passes of one position of the pipeline take. `backward_s` is the whole backward; `weight_s` is the part
// of it that needs no input from the next stage and is needed by none.
struct PositionTime {
  double forward_s = 0, backward_s = 0, weight_s = 0;
  double forward_saved_s = 0, backward_saved_s = 0;  // less, where it runs beside one of the other kind
};

class PipelineSchedule {
 public:
  virtual ~PipelineSchedule() = default;
  virtual std::string_view name() const = 0;

  // The passes of one stage, in order. `chunks` is what chunks_per_stage() says.
  virtual std::vector<Pass> passes(int stage, int stages, int micro_batches, int chunks) const = 0;

  // Places a micro-batch passes through, one after the other: stages × chunks, or stages where a chunk is a copy.
  virtual int positions(int stages, int chunks) const { return stages * chunks; }
  virtual int stage_of(int position, int stages, int micro_batch, int micro_batches) const;
  virtual int chunk_of(int position, int stages, int micro_batch, int micro_batches) const;
  virtual int chunks_per_stage(int virtual_stages) const { return virtual_stages; }
  // Positions whose weights a stage holds.
  virtual std::vector<int> positions_on(int stage, int stages, int chunks) const;
  // Copies of the model's weights that a stage holds (2 for dualpipe).
  virtual int weight_copies() const { return 1; }
  // Whether some forwards run beside backwards, which hide each other's exchanges with experts.
  virtual bool overlaps_experts() const { return false; }
  // What is wrong with these counts, or "".
  virtual std::string problem(int stages, int micro_batches, int virtual_stages) const;
};

std::vector<std::string> schedule_names();
// The schedule of this name; it lives as long as the program.
const PipelineSchedule& find_schedule(std::string_view name);

struct PipelineTiming {
  double makespan_s = 0;
  std::vector<double> busy_s;       // by stage
  std::vector<int> peak_in_flight;  // by stage: chunks of micro-batches whose forward is done and whose backward is not
  uint64_t passes = 0;              // computed
};

// Runs every stage's passes in their order, each as soon as its input is there; `transfer_s` passes between two
// positions on different stages. Throws Error(failure) where the orders block one another.
PipelineTiming run_pipeline(const PipelineSchedule& schedule, int stages, int micro_batches, int chunks,
                            std::span<const PositionTime> positions, double transfer_s);

// The same from a few rounds of micro-batches: once every stage is in its steady state, each further round of `stages`
// micro-batches takes the same time. Equal to run_pipeline to rounding where the schedule has such a state (a test
// holds that).
PipelineTiming run_pipeline_collapsed(const PipelineSchedule& schedule, int stages, int micro_batches, int chunks,
                                      std::span<const PositionTime> positions, double transfer_s);

}  // namespace dssim
