// SPDX-License-Identifier: Apache-2.0
// One GPU's share of a Llama-style transformer (RMSNorm, rotary positions, grouped-query attention, SwiGLU, no biases)
// in bf16 with random weights and a paged KV cache, on dssim-calibrate's kernels. Tensor parallel as Megatron cuts it:
// qkv, gate and up by columns, o and down by rows with a sum over the GPUs after each; embedding and output head by
// vocabulary.
//
//   Transformer model(shape, limits, graphs, communicator, seed);   // on the current device, which stays its device
//   model.choose_algorithms();                                      // on every GPU of a group, then
//   model.prepare();                                                // joins the others, captures graphs
//   model.start(layout, host_input, host_tokens);                   // launches one step and returns
//   model.finish();                                                 // its tokens are there
//
// start() copies `host_input` (pinned, laid out by lay_out()) and runs decode-only steps from a captured graph, others
// eagerly. Every row of the output head draws a token at temperature 1; logits() keeps them for checks. Errors:
// DeviceError; Unavailable where the memory does not suffice.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "kernels/cuda/engine/batch.hpp"
#include "kernels/cuda/engine/communicator.hpp"
#include "kernels/cuda/engine/products.hpp"
#include "kernels/cuda/measure/buffer.hpp"
#include "kernels/cuda/ops/elementwise.hpp"

namespace dssim::cuda {

// Widths of one GPU's share; `hidden` and `layers` are the model's.
struct ModelShape {
  int layers = 0, hidden = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  int ffn = 0;
  int vocabulary = 0;  // rows of the embedding and of the head that this GPU holds
  int gpus = 1, rank = 0;

  int q_width() const { return heads * head_dim; }
  int kv_width() const { return kv_heads * head_dim; }
};

struct EngineLimits {
  int tokens = 0;     // in one step
  int sequences = 0;  // in one step
  int pages = 0;      // of the KV cache; page 0 takes the padding rows
  int context = 0;    // tokens of the longest sequence
};

class Transformer {
 public:
  Transformer(const ModelShape& shape, const EngineLimits& limits, const GraphSizes& graphs, Communicator& communicator,
              uint32_t seed);
  ~Transformer();
  Transformer(const Transformer&) = delete;
  Transformer& operator=(const Transformer&) = delete;

  void choose_algorithms();
  void prepare();
  void start(const BatchLayout& layout, const int* host_input, int* host_tokens);
  void finish();
  // Of the last step: seconds the GPU worked between the copies, and seconds the host took to launch that.
  double gpu_seconds() const;
  double launch_seconds() const { return launch_seconds_; }

  // GPU seconds that a layer takes longer than its kernels do when each kind runs by itself, layer after layer, as the
  // tables of a profile were measured: what changing from one kernel to another costs, in a decode step from its graph
  // and in a step of decodes and a prompt's chunk that is launched kernel by kernel. Every GPU of a group calls it.
  struct LayerGaps {
    double graph_s = 0.0, eager_s = 0.0;
  };
  LayerGaps layer_gaps();

  // For checks: logits of the last step, [row][gpus x vocabulary], and this GPU's weights.
  std::vector<bf16> logits(int rows) const;
  struct Layer {
    std::unique_ptr<Buffer> qkv, o, gate_up, down, attention_norm, ffn_norm;
  };
  const std::vector<Layer>& layers() const { return layers_; }
  const Buffer& embedding_table() const { return *embedding_; }
  const Buffer& head() const { return *head_; }
  const Buffer& final_norm() const { return *final_norm_; }
  const ModelShape& shape() const { return shape_; }

 private:
  enum Kind : unsigned {  // of kernels, to run some of them only
    kNorm = 1,
    kQkv = 2,
    kRope = 4,
    kAttention = 8,
    kO = 16,
    kGateUp = 32,
    kActivation = 64,
    kDown = 128,
    kReduce = 256,
    kLayerKinds = 511,
    kEnds = 512,
    kAll = 1023
  };
  bool runs(Kind kind) const { return (kinds_ & kind) != 0; }

  void make_weights(uint32_t seed);
  void make_buffers();
  void connect();
  void capture(int batch, int context);
  cudaGraphExec_t capture_forward(const BatchLayout& layout);
  double median_seconds(const std::function<void()>& launch);
  double layer_gap(const Batch& batch, bool eager);
  void forward(const BatchLayout& layout);
  void layer(int index, const BatchLayout& layout);
  void rope(int index, const BatchLayout& layout);
  void attend(int index, const BatchLayout& layout);
  void head(const BatchLayout& layout);
  void* decode_workspace(int sequences) const;
  const int* input(int offset) const { return input_->as<int>() + offset; }

  ModelShape shape_;
  EngineLimits limits_;
  GraphSizes graphs_;
  Communicator& communicator_;
  int device_ = 0;
  cudaStream_t stream_ = nullptr;
  cudaEvent_t started_ = nullptr, ended_ = nullptr;
  double launch_seconds_ = 0.0;
  unsigned kinds_ = kAll;
  GemmContext gemm_;
  Products qkv_product_, o_product_, gate_up_product_, down_product_, head_product_;
  std::vector<Layer> layers_;
  std::unique_ptr<Buffer> embedding_, head_, final_norm_;
  std::vector<std::unique_ptr<Buffer>> keys_, values_;
  // Activations of one step.
  std::unique_ptr<Buffer> input_, residual_, x_, normed_, qkv_, queries_, attended_, gate_up_, activated_;
  std::unique_ptr<Buffer> head_residual_, head_x_, logits_part_, logits_gathered_, logits_, tokens_;
  std::unique_ptr<Buffer> decode_workspace_, sample_workspace_;
  int decode_rows_ = 0;                                      // the largest batch that decode_workspace_ is for
  std::map<std::pair<int, int>, cudaGraphExec_t> captured_;  // (batch, context)
};

}  // namespace dssim::cuda
