// SPDX-License-Identifier: Apache-2.0
#pragma once

// One model replica in simulated time: it asks its scheduler for a step, the step model for how long that takes, and
// goes on until nothing is left to do. Requests that arrive during a step wait for its end, as they do in an engine.
//
// With one pipeline stage, steps follow in a plain loop up to the date at which anything else can happen anywhere; only
// then does the replica wait in the event queue. The order of events, and so every result, is the same as stepping one
// by one.
//
// With p stages, p batches are in flight. A step passes the stages in order; a stage works on one batch at a time;
// between stages the activations cross the links as flows. A stage takes its share of the layers' time, the first the
// embedding's too, the last the output head's.

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "sim/engine/simulation.hpp"
#include "sim/serving/scheduler.hpp"
#include "workloads/step_model.hpp"

namespace dssim {

// Told of every request that ends.
class RequestSink {
 public:
  virtual void request_ended(const RequestRecord& record) = 0;

 protected:
  ~RequestSink() = default;
};

struct ReplicaShape {
  int tensor_parallel = 1;
  int pipeline_parallel = 1;
  std::vector<int> stage_gpus;      // first GPU of each stage; its tensor-parallel ranks follow
  std::vector<double> layer_share;  // of each stage: its layers / all layers
  // What one token hands to the next stage, summed over its tensor-parallel ranks.
  double activation_bytes_per_token = 0;
  double frontend_token_s = 0;  // the front end's work on each token it sends; it has one thread
  bool work_ahead = true;       // off: every step goes through the event queue (a test's reference)
};

// Sums over a replica's steps, for the report.
struct ReplicaUsage {
  double busy_s = 0;  // some stage at work; one stage: time inside steps
  uint64_t steps = 0;
  uint64_t decode_steps = 0;    // that had decoding sequences in them
  double decode_sequences = 0;  // summed over decode_steps
  double decode_kv_tokens = 0;  // summed over decode_steps
  double decode_only_s = 0;     // time of steps without prefill
  double prefill_tokens = 0;
  int64_t peak_kv_blocks = 0;
  double kv_block_seconds = 0;  // held blocks integrated over step time
  double hand_over_s = 0;       // steps' activations on their way between pipeline stages
  double frontend_s = 0;        // its front end at work on tokens to send
  void add(const ReplicaUsage& other);
};

class Replica final : public EventHandler {
 public:
  Replica(Simulation& simulation, const ReplicaShape& shape, Scheduler scheduler, StepModel& steps, RequestSink& sink);

  void submit(const Request& request);
  void on_event(uint64_t tag) override;

  int64_t outstanding() const { return scheduler_.outstanding(); }
  Scheduler& scheduler() { return scheduler_; }
  const Scheduler& scheduler() const { return scheduler_; }
  const ReplicaUsage& usage() const { return usage_; }
  const StepUsage& step_usage() const { return step_usage_; }

 private:
  struct Flight {  // a batch's step on its way through the stages
    bool active = false;
    int stage = 0;
    int transfers_left = 0;
    double left_s = 0;  // its last stage
    StepPrice price;
    double tokens = 0, answers = 0;  // processed; sent to clients when it ends
  };
  struct Stage {
    bool busy = false;
    std::deque<int> queue;  // batches whose activations are there
  };

  StepPrice price_step(int batch);
  void run_single_stage();
  void complete(int batch, double now_s);
  double delivered_at(double tokens, double now_s);
  void report_ended();
  void launch_batches();
  void arrive(int batch, int stage);
  void start_stage(int stage);
  void leave_stage(int batch);
  double stage_time(const Flight& flight, int stage) const;

  Simulation& simulation_;
  ReplicaShape shape_;
  Scheduler scheduler_;
  StepModel& steps_;
  RequestSink& sink_;
  GpuHeat heat_;                 // of the replica's GPUs: all do alike
  std::vector<Flight> flights_;  // by batch
  std::vector<Stage> stages_;
  int stages_busy_ = 0;
  double busy_since_s_ = 0;
  double frontend_free_s_ = 0;
  ReplicaUsage usage_;
  StepUsage step_usage_;
};

}  // namespace dssim
