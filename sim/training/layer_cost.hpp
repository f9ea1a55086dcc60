// SPDX-License-Identifier: Apache-2.0
#pragma once

// What one transformer layer, the embedding and the output head cost one GPU for one micro-batch, forward and backward.
//
//   matrix products   forward (m,n,k), backward its two products: the input's gradient (m,k,n) and the weight's
//   (n,k,m), each
//                     priced by its own shape, so twice the forward's FLOPs but rarely twice its time
//                     8-bit training leaves the head and the router in 16 bits (Megatron-Core, DeepSeek-V3)
//   attention         flash: the measured kernel, backward flash_backward × forward; unfused: batched products over all
//                     scores and the softmax's and dropout's passes over them in memory
//   a run that lasts  tables of short bursts × what the power cap takes at the kernel's share of the matrix rate
//                     (kernels/power_cap.hpp), tables that had it in them ÷ sustained_matmul
//   element-wise      values moved (TrainingStack) ÷ bandwidth
//   collectives       tensor: all-reduce after each half of the layer, or with sequence parallelism a reduce-scatter
//                     and an all-gather (the same bytes); context: keys and values gathered, gradients scattered;
//                     expert: dispatch and combine, each way, as all-to-alls or as DeepEP sends (expert_exchange.hpp)
//   latent attention  (MLA) its products one by one; keys and values of every head made from the latent, attention over
//                     them, whose heads are as wide as the mean of query and value, which gives its FLOPs
//   host              launches: a layer takes the longer of its GPU time and its launches
// Units: seconds, FLOPs. Tested by tests/unit/training_layer_test.cpp.

#include <array>

#include "kernels/cost_model.hpp"
#include "sim/training/expert_exchange.hpp"
#include "sim/training/group_network.hpp"
#include "sim/training/layer_shape.hpp"
#include "sim/training/training_job.hpp"
#include "sim/training/training_stack.hpp"

namespace dssim {

struct PassCost {
  double compute_s = 0;                              // kernels
  double tensor_s = 0, context_s = 0, expert_s = 0;  // collectives on the critical path
  double host_s = 0;                                 // the GPU waits for launches
  double product_s = 0;                              // part of compute_s: matrix products
  double weight_s = 0;                               // part of product_s: weight gradients
  double selective_s = 0;                            // part of compute_s: what selective recomputation repeats

  double collectives_s() const { return tensor_s + context_s + expert_s; }
  double seconds() const { return compute_s + collectives_s() + host_s; }

  PassCost& operator+=(const PassCost& other);
  PassCost times(double count) const;
};

struct PassCosts {
  PassCost forward, backward;
  PassCosts times(double count) const { return {forward.times(count), backward.times(count)}; }
};

// What one layer's collectives carry, forward, as nccl-tests counts them; backward carries at least the same.
struct LayerTraffic {
  double context_bytes = 0;    // the keys and values gathered
  LinkLoad dispatch, combine;  // of an MoE layer, over the busiest links
};

class LayerCost {
 public:
  // All must outlive this.
  LayerCost(const TrainingJob& job, const TrainingStack& stack, const CostModel& kernels, GroupNetwork& network);

  // Without recomputation.
  const PassCosts& layer(LayerKind kind) const { return layers_[static_cast<size_t>(kind)]; }
  const PassCosts& embedding() const { return embedding_; }
  const PassCosts& head() const { return head_; }              // final norm, output products, loss
  const PassCosts& prediction() const { return prediction_; }  // of an MTP module, beside its layer and its head
  // The forward work that backward repeats, in one layer.
  PassCost recomputed(LayerKind kind) const;
  // Seconds by coverage of one layer's priced kernels, for trust.
  const std::array<double, 3>& coverage_s() const { return coverage_s_; }

  Group tensor_group() const { return {1, job_.tensor_parallel}; }
  Group context_group() const { return {job_.tensor_parallel, job_.context_parallel}; }
  Group expert_group() const { return {job_.tensor_parallel, job_.expert_parallel}; }
  // Bytes of each all-reduce of a layer's output over the tensor group.
  double tensor_bytes() const;
  LayerTraffic traffic();

 private:
  void add_product(PassCosts& into, double m, double n, double k, Precision precision);
  // Of a layer whose tensor ranks share it: its input is gathered, or, where it closes a half, its result scattered.
  void add_split_product(PassCosts& into, const MatrixShape& matrix);
  void add_traffic(PassCosts& into, Traffic traffic, double values);
  void add_casts(PassCosts& into, LayerKind kind);
  void add_light(PassCosts& into, Traffic traffic, double values);
  void add_attention(PassCosts& into);
  void add_attention_products(PassCosts& into);
  void add_dense(PassCosts& into, int64_t width);
  void add_experts(PassCosts& into);
  void add_tensor_collectives(PassCosts& into, double count);
  PassCosts layer_costs(LayerKind kind);
  // One way of the exchange between tokens and experts, `bytes` a value.
  ExpertExchange exchange(double bytes);
  // A value: 8-bit ones come with a 32-bit scale for every 128 (DeepSeek-V3, arXiv 2412.19437, section 3.3.2).
  double dispatch_bytes() const;
  PassCosts prediction_costs();
  PassCosts embedding_costs();
  PassCosts head_costs();
  double product_seconds(double m, double n, double k, Precision precision);
  // What a kernel of so many FLOPs takes in a run that lasts, of what its table says.
  double sustained_seconds(const Price& price, double flops, Precision precision);
  double skew_s(int ranks) const;
  // The GPU waits where the kernels of a pass are quicker than its launches: eager ones and `collectives` of those.
  void add_launches(PassCost& pass, double kernels_s, double collectives) const;

  const TrainingJob& job_;
  const TrainingStack& stack_;
  const CostModel& kernels_;
  GroupNetwork& network_;
  double tokens_, hidden_, width_bytes_;
  double outside_;  // share of the tokens that work outside the tensor-parallel products sees
  std::array<double, 3> coverage_s_{};
  AttentionWidths widths_;
  std::array<PassCosts, 2> layers_;  // by kind
  PassCosts embedding_, head_, prediction_;
};

// Expected greatest of n draws from a standard normal (Blom 1958: the (n − 0.375)/(n + 0.25) quantile); 0 for n = 1.
double expected_maximum(double n);

}  // namespace dssim
