// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/engine/transformer.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <set>
#include <string>
#include <thread>

#include "kernels/cuda/engine/rows.hpp"
#include "kernels/cuda/measure/meter.hpp"
#include "kernels/cuda/ops/attention.hpp"

namespace dssim::cuda {
namespace {

std::size_t size(long a, long b) {
  return static_cast<std::size_t>(a) * static_cast<std::size_t>(b);
}

std::unique_ptr<Buffer> values_of(std::size_t count) {
  return std::make_unique<Buffer>(std::max<std::size_t>(count, 8) * sizeof(bf16));
}

std::unique_ptr<Buffer> zeros(std::size_t count) {
  auto buffer = values_of(count);
  DSSIM_CUDA(cudaMemset(buffer->as(), 0, buffer->bytes()));
  return buffer;
}

// Normal deviates that keep the size of what passes through.
std::unique_ptr<Buffer> random_matrix(int rows, int columns, uint32_t seed) {
  auto buffer = values_of(size(rows, columns));
  fill_bf16(buffer->as(), size(rows, columns), 1.0f / std::sqrt(static_cast<float>(columns)), seed);
  return buffer;
}

std::unique_ptr<Buffer> random_row(int width, uint32_t seed) {
  auto buffer = values_of(size(1, width));
  fill_bf16(buffer->as(), size(1, width), 1.0f, seed);
  return buffer;
}

}  // namespace

Transformer::Transformer(const ModelShape& shape, const EngineLimits& limits, const GraphSizes& graphs,
                         Communicator& communicator, uint32_t seed)
    : shape_(shape),
      limits_(limits),
      graphs_(graphs),
      communicator_(communicator),
      qkv_product_(gemm_, shape.q_width() + 2 * shape.kv_width(), shape.hidden),
      o_product_(gemm_, shape.hidden, shape.q_width()),
      gate_up_product_(gemm_, 2 * shape.ffn, shape.hidden),
      down_product_(gemm_, shape.hidden, shape.ffn),
      head_product_(gemm_, shape.vocabulary, shape.hidden) {
  DSSIM_CUDA(cudaGetDevice(&device_));
  DSSIM_CUDA(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
  DSSIM_CUDA(cudaEventCreate(&started_));
  DSSIM_CUDA(cudaEventCreate(&ended_));
  make_weights(seed);
  make_buffers();
}

Transformer::~Transformer() {
  cudaSetDevice(device_);
  for (auto& [key, graph] : captured_) cudaGraphExecDestroy(graph);
  cudaEventDestroy(started_);
  cudaEventDestroy(ended_);
  cudaStreamDestroy(stream_);
}

void Transformer::make_weights(uint32_t seed) {
  // The norms and the residual are the same on every GPU, the matrices are each GPU's own part.
  uint32_t common = seed;
  uint32_t own = seed + 100000u * static_cast<uint32_t>(shape_.rank + 1);
  embedding_ = values_of(size(shape_.vocabulary, shape_.hidden));
  fill_bf16(embedding_->as(), size(shape_.vocabulary, shape_.hidden), 1.0f, own++);
  for (int i = 0; i < shape_.layers; ++i) {
    Layer layer;
    layer.qkv = random_matrix(shape_.q_width() + 2 * shape_.kv_width(), shape_.hidden, own++);
    layer.o = random_matrix(shape_.hidden, shape_.q_width(), own++);
    layer.gate_up = random_matrix(2 * shape_.ffn, shape_.hidden, own++);
    layer.down = random_matrix(shape_.hidden, shape_.ffn, own++);
    layer.attention_norm = random_row(shape_.hidden, common++);
    layer.ffn_norm = random_row(shape_.hidden, common++);
    layers_.push_back(std::move(layer));
  }
  final_norm_ = random_row(shape_.hidden, common++);
  head_ = random_matrix(shape_.vocabulary, shape_.hidden, own++);
}

void Transformer::make_buffers() {
  long tokens = std::max(round_up(limits_.tokens, kTokenStep), graphs_.batches.empty() ? 0 : graphs_.batches.back());
  long rows = std::max(round_up(limits_.sequences, kTokenStep), graphs_.batches.empty() ? 0 : graphs_.batches.back());
  long width = limits_.context / kPageTokens + 1;
  if (!graphs_.contexts.empty()) width = std::max<long>(width, graphs_.contexts.back() / kPageTokens);
  input_ = std::make_unique<Buffer>((3 * tokens + 4 * rows + rows * width + 64) * sizeof(int));
  residual_ = zeros(size(tokens, shape_.hidden));
  x_ = zeros(size(tokens, shape_.hidden));
  normed_ = zeros(size(tokens, shape_.hidden));
  qkv_ = zeros(size(tokens, shape_.q_width() + 2 * shape_.kv_width()));
  queries_ = zeros(size(tokens, shape_.q_width()));
  attended_ = zeros(size(tokens, shape_.q_width()));
  gate_up_ = zeros(size(tokens, 2 * shape_.ffn));
  activated_ = zeros(size(tokens, shape_.ffn));
  head_residual_ = zeros(size(rows, shape_.hidden));
  head_x_ = zeros(size(rows, shape_.hidden));
  logits_part_ = zeros(size(rows, shape_.vocabulary));
  if (shape_.gpus > 1) {
    logits_gathered_ = zeros(size(rows, static_cast<long>(shape_.gpus) * shape_.vocabulary));
    logits_ = zeros(size(rows, static_cast<long>(shape_.gpus) * shape_.vocabulary));
  }
  tokens_ = std::make_unique<Buffer>(static_cast<std::size_t>(rows) * sizeof(int));
  sample_workspace_ = std::make_unique<Buffer>(sample_workspace_bytes(static_cast<int>(rows)));
  DSSIM_CUDA(cudaMemset(sample_workspace_->as(), 0, sample_workspace_->bytes()));
  decode_rows_ = static_cast<int>(rows);
  decode_workspace_ = std::make_unique<Buffer>(decode_workspace_bytes(decode_rows_, shape_.heads, shape_.head_dim));
  DSSIM_CUDA(cudaMemset(decode_workspace_->as(), 0, decode_workspace_->bytes()));
  for (int i = 0; i < shape_.layers; ++i) {
    std::size_t values = size(static_cast<long>(limits_.pages) * kPageTokens, shape_.kv_width());
    keys_.push_back(zeros(values));
    values_.push_back(zeros(values));
  }
  DSSIM_CUDA(cudaDeviceSynchronize());
}

void Transformer::prepare() {
  DSSIM_CUDA(cudaSetDevice(device_));
  connect();
  for (int batch : graphs_.batches) {
    for (int context : graphs_.contexts) capture(batch, context);
  }
  DSSIM_CUDA(cudaStreamSynchronize(stream_));
}

void Transformer::choose_algorithms() {
  DSSIM_CUDA(cudaSetDevice(device_));
  std::set<int> tokens(graphs_.batches.begin(), graphs_.batches.end());
  std::set<int> rows = tokens;
  for (int m = kTokenStep; m <= round_up(limits_.tokens, kTokenStep); m += kTokenStep) tokens.insert(m);
  for (int m = kTokenStep; m <= round_up(limits_.sequences, kTokenStep); m += kTokenStep) rows.insert(m);
  std::vector<int> all(tokens.begin(), tokens.end());
  RestKeeper rest;
  auto choose = [&](Products& products, std::unique_ptr<Buffer> Layer::*matrix, const Buffer& in, const Buffer& out) {
    std::vector<const void*> weights;
    for (const Layer& l : layers_) weights.push_back((l.*matrix)->as());
    products.choose(all, weights, in.as(), out.as(), stream_, rest);
  };
  // Products of random activations: of zeros they draw less power.
  fill_bf16(normed_->as(), normed_->bytes() / 2, 1.0f, 3);
  fill_bf16(attended_->as(), attended_->bytes() / 2, 1.0f, 4);
  fill_bf16(activated_->as(), activated_->bytes() / 2, 1.0f, 5);
  choose(qkv_product_, &Layer::qkv, *normed_, *qkv_);
  choose(o_product_, &Layer::o, *attended_, *x_);
  choose(gate_up_product_, &Layer::gate_up, *normed_, *gate_up_);
  choose(down_product_, &Layer::down, *activated_, *x_);
  head_product_.choose({rows.begin(), rows.end()}, {head_->as()}, normed_->as(), logits_part_->as(), stream_, rest);
}

void Transformer::connect() {
  if (shape_.gpus == 1) return;
  communicator_.all_reduce(x_->as<bf16>(), size(1, shape_.hidden), stream_);
  communicator_.all_gather(logits_part_->as<bf16>(), logits_gathered_->as<bf16>(), size(1, shape_.vocabulary), stream_);
  DSSIM_CUDA(cudaStreamSynchronize(stream_));
}

void Transformer::capture(int batch, int context) {
  BatchShape shape;
  shape.decodes = shape.rows = batch;
  shape.longest_decode = context;
  captured_.emplace(std::pair(batch, context), capture_forward(lay_out(shape, graphs_)));
}

cudaGraphExec_t Transformer::capture_forward(const BatchLayout& layout) {
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t executable = nullptr;
  DSSIM_CUDA(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  forward(layout);
  DSSIM_CUDA(cudaStreamEndCapture(stream_, &graph));
  DSSIM_CUDA(cudaGraphInstantiate(&executable, graph, 0));
  DSSIM_CUDA(cudaGraphDestroy(graph));
  DSSIM_CUDA(cudaGraphUpload(executable, stream_));
  return executable;
}

// GPU seconds of what is launched, median over a few; rests keep the GPU from its power cap. The GPUs meet before the
// clock starts: one that waited for another's rest would time the wait, rest longer for it, and so on, for ever longer.
double Transformer::median_seconds(const std::function<void()>& launch) {
  std::vector<double> seconds;
  for (int i = -1; i < 11; ++i) {  // the first one warms up
    communicator_.all_reduce(x_->as<bf16>(), size(1, shape_.hidden), stream_);
    DSSIM_CUDA(cudaEventRecord(started_, stream_));
    launch();
    DSSIM_CUDA(cudaEventRecord(ended_, stream_));
    DSSIM_CUDA(cudaStreamSynchronize(stream_));
    if (i >= 0) seconds.push_back(gpu_seconds());
    std::this_thread::sleep_for(std::chrono::duration<double>(2.0 * gpu_seconds()));
  }
  std::nth_element(seconds.begin(), seconds.begin() + 5, seconds.end());
  return seconds[5];
}

double Transformer::layer_gap(const Batch& batch, bool eager) {
  BatchLayout layout = lay_out(batch.shape(), eager ? GraphSizes{} : graphs_);
  std::vector<int> host(static_cast<std::size_t>(layout.total));
  batch.write(layout, host.data());
  DSSIM_CUDA(cudaMemcpy(input_->as(), host.data(), host.size() * sizeof(int), cudaMemcpyHostToDevice));
  auto timed = [&](unsigned kinds, bool from_graph) {
    kinds_ = kinds;
    cudaGraphExec_t graph = from_graph ? capture_forward(layout) : nullptr;
    double seconds = median_seconds([&] {
      if (from_graph) DSSIM_CUDA(cudaGraphLaunch(graph, stream_));
      if (!from_graph) forward(layout);
    });
    if (from_graph) DSSIM_CUDA(cudaGraphExecDestroy(graph));
    kinds_ = kAll;
    return seconds;
  };
  double gap = timed(kLayerKinds, !eager) - timed(0, !eager);  // less what starting costs
  double nothing = timed(0, true);
  for (unsigned kind = kNorm; kind <= kReduce; kind *= 2) gap -= timed(kind, true) - nothing;
  return std::max(0.0, gap / shape_.layers);
}

Transformer::LayerGaps Transformer::layer_gaps() {
  if (graphs_.batches.empty()) return {};
  DSSIM_CUDA(cudaSetDevice(device_));
  constexpr int kChunk = 248;
  const int decodes = std::min(8, graphs_.batches.back());
  const std::vector<int> pages(kChunk / kPageTokens + 1, 0), ids(kChunk, 1);
  Batch batch;
  for (int i = 0; i < decodes; ++i) batch.add_decode({pages.data(), 1}, 8, i);
  const double graph_s = layer_gap(batch, false);
  if (limits_.tokens < kChunk + decodes) return {graph_s, graph_s};
  batch.add_chunk(pages, 0, ids, true);
  return {graph_s, layer_gap(batch, true)};
}

void Transformer::start(const BatchLayout& layout, const int* host_input, int* host_tokens) {
  DSSIM_CUDA(cudaMemcpyAsync(input_->as(), host_input, static_cast<std::size_t>(layout.total) * sizeof(int),
                             cudaMemcpyHostToDevice, stream_));
  DSSIM_CUDA(cudaEventRecord(started_, stream_));
  double before = now_seconds();
  if (layout.graph) {
    DSSIM_CUDA(cudaGraphLaunch(captured_.at({layout.tokens, layout.context}), stream_));
  } else {
    forward(layout);
  }
  launch_seconds_ = now_seconds() - before;
  DSSIM_CUDA(cudaEventRecord(ended_, stream_));
  if (host_tokens != nullptr && layout.shape.rows > 0) {
    DSSIM_CUDA(cudaMemcpyAsync(host_tokens, tokens_->as(), static_cast<std::size_t>(layout.shape.rows) * sizeof(int),
                               cudaMemcpyDeviceToHost, stream_));
  }
}

void Transformer::finish() {
  DSSIM_CUDA(cudaStreamSynchronize(stream_));
}

double Transformer::gpu_seconds() const {
  float milliseconds = 0.0f;
  DSSIM_CUDA(cudaEventElapsedTime(&milliseconds, started_, ended_));
  return milliseconds * 1e-3;
}

void Transformer::forward(const BatchLayout& layout) {
  std::size_t values = size(layout.tokens, shape_.hidden);
  if (runs(kEnds)) {
    embedding_part(input(layout.ids), embedding_->as<bf16>(), shape_.rank * shape_.vocabulary, shape_.vocabulary,
                   x_->as<bf16>(), layout.tokens, shape_.hidden, stream_);
    communicator_.all_reduce(x_->as<bf16>(), values, stream_);
  }
  DSSIM_CUDA(cudaMemsetAsync(residual_->as(), 0, values * sizeof(bf16), stream_));
  for (int i = 0; i < shape_.layers; ++i) layer(i, layout);
  if (runs(kEnds) && layout.rows > 0) head(layout);
}

void Transformer::layer(int index, const BatchLayout& layout) {
  const Layer& l = layers_[static_cast<std::size_t>(index)];
  int m = layout.tokens;
  auto* x = x_->as<bf16>();
  auto norm = [&](const Buffer& weight) {
    if (!runs(kNorm)) return;
    add_rmsnorm(residual_->as<bf16>(), x, weight.as<bf16>(), normed_->as<bf16>(), m, shape_.hidden, stream_);
  };
  auto product = [&](Kind kind, const Products& products, const Buffer& in, const Buffer& weight, const Buffer& out) {
    if (runs(kind)) products.run(m, in.as(), weight.as(), out.as(), stream_);
  };
  auto reduce = [&] {
    if (runs(kReduce)) communicator_.all_reduce(x, size(m, shape_.hidden), stream_);
  };
  norm(*l.attention_norm);
  product(kQkv, qkv_product_, *normed_, *l.qkv, *qkv_);
  if (runs(kRope)) rope(index, layout);
  if (runs(kAttention)) attend(index, layout);
  product(kO, o_product_, *attended_, *l.o, *x_);
  reduce();
  norm(*l.ffn_norm);
  product(kGateUp, gate_up_product_, *normed_, *l.gate_up, *gate_up_);
  if (runs(kActivation)) silu_mul(gate_up_->as<bf16>(), activated_->as<bf16>(), m, shape_.ffn, stream_);
  product(kDown, down_product_, *activated_, *l.down, *x_);
  reduce();
}

void Transformer::rope(int index, const BatchLayout& layout) {
  auto i = static_cast<std::size_t>(index);
  RopeArgs rope;
  rope.qkv = qkv_->as<bf16>();
  rope.queries = queries_->as<bf16>();
  rope.keys = keys_[i]->as<bf16>();
  rope.values = values_[i]->as<bf16>();
  rope.positions = input(layout.positions);
  rope.slots = input(layout.slots);
  rope.rows = layout.tokens;
  rope.heads = shape_.heads;
  rope.kv_heads = shape_.kv_heads;
  rope.head_dim = shape_.head_dim;
  rope_kv_write(rope, stream_);
}

void Transformer::attend(int index, const BatchLayout& layout) {
  auto i = static_cast<std::size_t>(index);
  AttentionArgs args;
  args.keys = keys_[i]->as<bf16>();
  args.values = values_[i]->as<bf16>();
  args.pages = limits_.pages;
  args.heads = shape_.heads;
  args.kv_heads = shape_.kv_heads;
  args.head_dim = shape_.head_dim;
  if (layout.decodes > 0) {
    args.queries = queries_->as<bf16>();
    args.output = attended_->as<bf16>();
    args.page_table = input(layout.decode_pages);
    args.pages_per_sequence = layout.decode_width;
    args.kv_length = input(layout.decode_kv);
    args.sequences = layout.decodes;
    decode_attention(args, layout.context, decode_workspace(layout.decodes), stream_);
  }
  if (layout.shape.chunks > 0) {
    std::size_t first = size(layout.decodes, shape_.q_width());
    args.queries = queries_->as<bf16>() + first;
    args.output = attended_->as<bf16>() + first;
    args.page_table = input(layout.chunk_pages);
    args.pages_per_sequence = layout.chunk_width;
    args.query_start = input(layout.query_start);
    args.kv_length = input(layout.chunk_kv);
    args.sequences = layout.shape.chunks;
    args.query_tokens = layout.shape.chunk_tokens;
    args.longest_query = layout.shape.longest_query;
    prefill_attention(args, stream_);
  }
}

// A batch's counters, one or less for each sequence and head, lie right before its partial results. They end where the
// longest batch's do, so that no batch finds another's results where its counters should be zero.
void* Transformer::decode_workspace(int sequences) const {
  int ints = round_up(decode_rows_ * shape_.heads, 4) - round_up(sequences * shape_.heads, 4);
  return decode_workspace_->as(static_cast<std::size_t>(ints) * sizeof(int));
}

void Transformer::head(const BatchLayout& layout) {
  auto* residual = residual_->as<bf16>();
  auto* x = x_->as<bf16>();
  int rows = layout.rows;
  if (!layout.graph) {  // in a graph every token passes the head
    gather_rows(input(layout.head_rows), residual, x, head_residual_->as<bf16>(), head_x_->as<bf16>(), rows,
                shape_.hidden, stream_);
    residual = head_residual_->as<bf16>();
    x = head_x_->as<bf16>();
  }
  add_rmsnorm(residual, x, final_norm_->as<bf16>(), normed_->as<bf16>(), rows, shape_.hidden, stream_);
  head_product_.run(rows, normed_->as(), head_->as(), logits_part_->as(), stream_);
  const bf16* all = logits_part_->as<bf16>();
  int vocabulary = shape_.vocabulary * shape_.gpus;
  if (shape_.gpus > 1) {
    communicator_.all_gather(logits_part_->as<bf16>(), logits_gathered_->as<bf16>(), size(rows, shape_.vocabulary),
                             stream_);
    for (int g = 0; g < shape_.gpus; ++g) {  // from [gpu][row] to [row][gpu]
      std::size_t width = size(1, shape_.vocabulary) * sizeof(bf16);
      DSSIM_CUDA(cudaMemcpy2DAsync(logits_->as(static_cast<std::size_t>(g) * width), width * shape_.gpus,
                                   logits_gathered_->as(static_cast<std::size_t>(g) * width * rows), width, width,
                                   static_cast<std::size_t>(rows), cudaMemcpyDeviceToDevice, stream_));
    }
    all = logits_->as<bf16>();
  }
  sample(all, tokens_->as<int>(), rows, vocabulary, 1.0f, 5, sample_workspace_->as(), stream_);
}

std::vector<bf16> Transformer::logits(int rows) const {
  DSSIM_CUDA(cudaSetDevice(device_));
  const Buffer& all = shape_.gpus > 1 ? *logits_ : *logits_part_;
  return all.download<bf16>(size(rows, static_cast<long>(shape_.gpus) * shape_.vocabulary));
}

}  // namespace dssim::cuda
