// SPDX-License-Identifier: Apache-2.0
#include "sim/training/step.hpp"

#include <algorithm>
#include <cmath>

#include "sim/training/layer_shape.hpp"
#include "sim/training/sharding.hpp"

namespace dssim {
namespace {

double value(int64_t count) {
  return static_cast<double>(count);
}

// Parameters of matrix products that one token passes through: layers and head.
double product_parameters(const Architecture& m, bool layers_only) {
  const auto feed_forward = [&](int64_t width) { return parameters_of(feed_forward_matrices(m, width, 1)); };
  double sum = value(m.layers) * parameters_of(attention_matrices(m, 1));
  if (m.is_moe())
    sum += value(m.layers_of(LayerKind::moe)) * (feed_forward(m.ffn) * value(m.experts_per_token) +
                                                 feed_forward(m.shared_ffn) + value(m.hidden) * value(m.experts));
  sum += value(m.layers_of(LayerKind::dense)) * feed_forward(m.ffn_of(LayerKind::dense));
  return sum + (layers_only || m.is_encoder() ? 0 : value(m.hidden) * value(m.vocabulary));
}

// FLOPs of scores and of their product with the values, forward, one token of a sequence this long.
double attention_flops(const TrainingJob& job) {
  const Architecture& m = job.model;
  return 2 * value(m.layers) * value(m.q_width() + m.attended_width()) * value(job.sequence);
}

// One layer of the model's last kind, as prediction modules have it.
TrainingJob one_layer(const TrainingJob& job) {
  TrainingJob one = job;
  one.model.layers = 1;
  one.model.dense_layers = 0;
  return one;
}

// What prediction modules add, forward and backward: a layer, their product and the head.
double prediction_flops(const TrainingJob& job) {
  const TrainingJob one = one_layer(job);
  const double hidden = value(job.model.hidden);
  return job.mtp * (6 * (product_parameters(one.model, false) + 2 * hidden * hidden) + 3 * attention_flops(one));
}

// What the model's layers do again in backward.
double repeated_flops(const TrainingJob& job) {
  if (job.recompute == Recompute::full) return 2 * product_parameters(job.model, true) + attention_flops(job);
  if (job.recompute == Recompute::none) return 0;
  if (job.attention == TrainingAttention::unfused) return attention_flops(job);
  double again = 0;
  for (const auto& matrix : attention_matrices(job.model, 1))
    if (matrix.expands) again += 2 * value(job.model.layers) * matrix.parameters();
  return again;
}

// Bytes the optimizer moves per parameter it updates: gradient, moments and weights read, moments and weights written.
double optimizer_traffic(const TrainingJob& job) {
  const double weight = job.parameter_bytes();
  const double moments = optimizer_bytes_per_parameter(job) - (job.master_weights && weight < 4 ? 4 : 0);
  const double master = job.master_weights && weight < 4 ? 8 + weight : 2 * weight;
  return bytes_of(job.gradient_precision) + 2 * moments + master;
}

}  // namespace

std::vector<std::pair<std::string_view, double>> StepParts::named() const {
  return {{"compute", compute_s},
          {"tensor", tensor_s},
          {"pipeline bubble", pipeline_bubble_s},
          {"data", data_s},
          {"experts", expert_s},
          {"context", context_s},
          {"recomputation", recompute_s},
          {"optimizer", optimizer_s},
          {"launches", host_s},
          {"stragglers", stragglers_s},
          {"input", input_s}};
}

double model_flops_per_step(const TrainingJob& job) {
  return job.tokens_per_step() * (6 * product_parameters(job.model, false) + 3 * attention_flops(job));
}

double hardware_flops_per_step(const TrainingJob& job) {
  const double again = repeated_flops(job) + job.mtp * repeated_flops(one_layer(job));
  return model_flops_per_step(job) + job.tokens_per_step() * (again + prediction_flops(job));
}

double exposed_seconds(double exchange_s, double window_s, double buckets) {
  if (exchange_s <= 0) return 0;
  // Either the last bucket trails the window, or the exchanges have been queueing since the first.
  return std::max(exchange_s / buckets, window_s / buckets + exchange_s - window_s);
}

// One step being put together.
class StepPredictor::Builder {
 public:
  Builder(StepPredictor& owner, const TrainingJob& job)
      : owner_(owner),
        job_(job),
        schedule_(find_schedule(job.schedule)),
        stages_(job.pipeline_parallel),
        chunks_(schedule_.chunks_per_stage(job.virtual_stages)),
        layers_(position_layers(job, schedule_.positions(stages_, chunks_))),
        cost_(job, owner.stack_, owner.kernels_, owner.groups_) {}

  TrainingStep build() {
    TrainingStep step;
    run(step);
    add_gradients(step.parts);
    add_optimizer(step.parts);
    add_stragglers(step.parts);
    add_input(step.parts);
    finish(step);
    return step;
  }

 private:
  struct Position {
    PassCost forward, backward, again;                 // again: recomputed in backward
    double forward_saved_s = 0, backward_saved_s = 0;  // beside a pass of the other kind
    double forward_data_s = 0, backward_data_s = 0;    // shards gathered or scattered in each micro-batch
  };

  GroupNetwork& groups() { return owner_.groups_; }
  Group data_group(bool experts) const {
    // Ranks that hold the same experts lie expert_parallel ranks apart.
    const int apart = experts ? job_.expert_parallel : 1;
    return {job_.tensor_parallel * apart, job_.gradient_ranks() / apart};
  }

  void fill_positions() {
    for (size_t p = 0; p < layers_.size(); ++p) {
      const double layers = layers_[p].all();
      Position at;
      for (const auto kind : {LayerKind::dense, LayerKind::moe}) {
        const double count = layers_[p].of(kind);
        at.forward += cost_.layer(kind).forward.times(count);
        at.backward += cost_.layer(kind).backward.times(count);
        at.again += cost_.recomputed(kind).times(count);
      }
      if (p == 0) {
        at.forward += cost_.embedding().forward;
        at.backward += cost_.embedding().backward;
      }
      if (p + 1 == layers_.size()) {
        for (const PassCosts& costs : {cost_.head().times(1 + job_.mtp), cost_.prediction().times(job_.mtp)}) {
          at.forward += costs.forward;
          at.backward += costs.backward;
        }
      }
      if (job_.micro_batches() > 1) {
        const auto held = position_parameters(job_, layers_[p], p == 0, p + 1 == layers_.size());
        at.backward.compute_s += accumulation_seconds(held.total(), at.backward.weight_s);
      }
      if (schedule_.overlaps_experts()) save_beside(at);
      add_shards(at, layers);
      positions_.push_back(at);
    }
  }

  // A micro-batch's gradients are added to those of the others: both read, the sum written. Fused, the product that
  // makes them reads and writes the sum, which shows only where it takes longer than the product.
  double accumulation_seconds(double parameters, double products_s) const {
    const double kept = job_.sharding >= Sharding::zero2 ? parameters / job_.gradient_ranks() : parameters;
    const double pass_s = moved_seconds(bytes_of(job_.gradient_precision) * kept);
    return owner_.stack_.fused_accumulation ? std::max(0.0, 2 * pass_s - products_s) : 3 * pass_s;
  }
  std::vector<int> positions_on(int stage) const { return schedule_.positions_on(stage, stages_, chunks_); }
  const PositionLayers& layers_at(int position) const { return layers_[static_cast<size_t>(position)]; }
  double layers_on_first_stage() const {
    double held = 0;
    for (const int p : positions_on(0)) held += layers_at(p).all();
    return held;
  }
  // MoE layers of the stage with the most: dense ones come first, and exchange nothing with experts.
  double most_moe_layers() const {
    double most = 0;
    for (int stage = 0; stage < stages_; ++stage) {
      double held = 0;
      for (const int p : positions_on(stage)) held += layers_at(p).moe;
      most = std::max(most, held);
    }
    return most;
  }

  // Where a forward and a backward run beside each other, the exchange of each with its experts is hidden by the
  // other's compute, which has the multiprocessors that are set aside for exchanges less.
  void save_beside(Position& at) const {
    const double sms = value(owner_.cluster_.gpu.sms), taken = owner_.stack_.exchange_sms;
    const double longer = sms > taken ? taken / (sms - taken) : 0;
    const auto saved = [&](const PassCost& own, const PassCost& other) {
      return std::max(0.0, std::min(own.expert_s, other.compute_s) - longer * own.compute_s);
    };
    at.forward_saved_s = saved(at.forward, at.backward);
    at.backward_saved_s = saved(at.backward, at.forward);
  }

  // ZeRO-2 and 3: in each micro-batch gradients are scattered behind the layer that made them, and under ZeRO-3 each
  // layer's shards gathered one layer ahead, forward and again backward, each with a copy between the collective's
  // buffer and the tensors (also in a group of one).
  void add_shards(Position& at, double layers) {
    if (job_.sharding < Sharding::zero2 || layers == 0) return;
    const auto parameters = stage_parameters(job_, 0);
    const double held = layers_on_first_stage();
    if (job_.sharding == Sharding::zero3) {
      const double share = owner_.stack_.shard_values * parameters.total() * layers / held;
      at.forward_data_s += moved_seconds(share * job_.parameter_bytes());
      at.backward_data_s += moved_seconds(share * (job_.parameter_bytes() + bytes_of(job_.gradient_precision)));
    }
    double forward_s = 0, backward_s = 0;  // of one layer, hidden where they can be
    for (const auto& e : step_exchanges(job_, parameters.shared, parameters.experts)) {
      if (e.phase != ExchangePhase::each_forward && e.phase != ExchangePhase::each_backward) continue;
      const Group group = data_group(e.experts);
      const double one = groups().seconds(e.kind, group, e.bytes / held);
      const bool forward = e.phase == ExchangePhase::each_forward;
      const bool overlaps = e.kind == CollectiveKind::reduce_scatter ? job_.overlap_gradients : job_.overlap_parameters;
      double& data_s = forward ? at.forward_data_s : at.backward_data_s;
      if (overlaps) {
        (forward ? forward_s : backward_s) += one;
        data_s += owner_.stack_.overlap_cost * hidden_cost(e.kind, group, e.bytes / held, one) * layers;
      } else {
        data_s += one * layers;
      }
    }
    // A pipeline's other passes hide the first layer's; a lone replica starts each pass with a gather that nothing
    // hides.
    const auto exposed = [&](double one, double pass_s) {
      const double first = stages_ == 1 ? std::min(one, pass_s / layers) : 0;
      return first + layers * std::max(0.0, one - pass_s / layers);
    };
    at.forward_data_s += exposed(forward_s, at.forward.seconds());
    at.backward_data_s += exposed(backward_s, at.backward.seconds() + at.again.seconds());
  }

  // Compute lost beside an exchange: what its bytes would keep the GPU's own links busy, at most its own time.
  double hidden_cost(CollectiveKind kind, Group group, double bytes, double seconds) {
    return groups().spans_nodes(group) ? std::min(seconds, groups().wire_seconds(kind, group, bytes)) : seconds;
  }

  double transfer_s() {
    if (stages_ == 1) return 0;
    const bool parts = job_.tensor_parallel > 1 && (job_.sequence_parallel || owner_.stack_.pipeline_scatter);
    const double bytes = cost_.tensor_bytes();
    double seconds = groups().send_seconds(stage_stride(), parts ? bytes / job_.tensor_parallel : bytes, true);
    if (parts && !job_.sequence_parallel)
      seconds += groups().seconds(CollectiveKind::all_gather, cost_.tensor_group(), bytes);
    sent_bytes_ = parts ? bytes / job_.tensor_parallel : bytes;
    // Sends beside compute show only where they outlast a pass.
    if (owner_.stack_.pipeline_overlap) seconds = std::max(0.0, seconds - positions_.front().forward.seconds());
    return seconds;
  }
  int stage_stride() const { return job_.tensor_parallel * job_.context_parallel * job_.data_parallel; }

  static double forward_s(const Position& at) { return at.forward.seconds() + at.forward_data_s; }
  static double backward_s(const Position& at) {
    return at.backward.seconds() + at.again.seconds() + at.backward_data_s;
  }

  void run(TrainingStep& step) {
    fill_positions();
    std::vector<PositionTime> times;
    for (const auto& at : positions_)
      times.push_back({forward_s(at), backward_s(at), std::min(at.backward.weight_s, backward_s(at)),
                       at.forward_saved_s, at.backward_saved_s});
    const int micro_batches = static_cast<int>(job_.micro_batches());
    const auto timing = run_pipeline_collapsed(schedule_, stages_, micro_batches, chunks_, times, transfer_s());
    step.passes = timing.passes;
    const auto busiest =
        static_cast<int>(std::max_element(timing.busy_s.begin(), timing.busy_s.end()) - timing.busy_s.begin());
    StepParts& parts = step.parts;
    const double half = schedule_.weight_copies() > 1 ? 0.5 : 1;  // each direction sees half of the micro-batches
    for (const int p : positions_on(busiest)) add_work(parts, positions_[static_cast<size_t>(p)], half * micro_batches);
    // What pairs of passes hid.
    if (schedule_.overlaps_experts()) {
      const double saved_s = parts.total_s() - timing.busy_s[static_cast<size_t>(busiest)];
      parts.expert_s = std::max(0.0, parts.expert_s - saved_s);
    }
    parts.pipeline_bubble_s = std::max(0.0, timing.makespan_s - timing.busy_s[static_cast<size_t>(busiest)]);
    busy_s_ = timing.busy_s[static_cast<size_t>(busiest)];
    step.memory = plan_training_memory(job_, owner_.stack_, owner_.cluster_.gpu.memory_bytes, timing.peak_in_flight);
  }

  static void add_work(StepParts& parts, const Position& at, double count) {
    parts.compute_s += count * (at.forward.compute_s + at.backward.compute_s);
    parts.tensor_s += count * (at.forward.tensor_s + at.backward.tensor_s);
    parts.expert_s += count * (at.forward.expert_s + at.backward.expert_s);
    parts.context_s += count * (at.forward.context_s + at.backward.context_s);
    parts.recompute_s += count * (at.again.seconds() - at.again.host_s);
    parts.data_s += count * (at.forward_data_s + at.backward_data_s);
    parts.host_s += count * (at.forward.host_s + at.backward.host_s + at.again.host_s);
  }

  // The first stage ends last, so its exchanges decide.
  void add_gradients(StepParts& parts) {
    const auto parameters = stage_parameters(job_, 0);
    double window_s = 0, forward_window_s = 0;
    for (const int p : positions_on(0)) {
      window_s += backward_s(positions_[static_cast<size_t>(p)]);
      forward_window_s += forward_s(positions_[static_cast<size_t>(p)]);
    }
    if (job_.exchange == GradientExchange::parameter_server) {
      const double exchange_s = server_seconds(parameters.total());
      parts.data_s +=
          job_.overlap_gradients ? exposed_seconds(exchange_s, window_s, bucket_count(parameters.total())) : exchange_s;
    } else {
      for (const auto& e : step_exchanges(job_, parameters.shared, parameters.experts)) {
        if (e.phase != ExchangePhase::backward && e.phase != ExchangePhase::parameters) continue;
        const bool gradients = e.phase == ExchangePhase::backward;
        const bool overlaps = gradients ? job_.overlap_gradients : job_.overlap_parameters;
        const Group group = data_group(e.experts);
        const double buckets = overlaps ? std::max(1.0, std::ceil(e.bytes / job_.bucket_bytes)) : 1;
        const double seconds = buckets * groups().seconds(e.kind, group, e.bytes / buckets);
        if (!overlaps) {
          parts.data_s += seconds;
          continue;
        }
        parts.data_s += exposed_seconds(seconds, gradients ? window_s : forward_window_s, buckets);
        parts.data_s += owner_.stack_.overlap_cost * hidden_cost(e.kind, group, e.bytes, seconds);
      }
    }
    if (job_.gradient_ranks() > 1) parts.data_s += encode_seconds(parameters.total());
  }

  double bucket_count(double parameters) const {
    return std::max(1.0, std::ceil(parameters * compressed_gradient(job_).wire_bytes / job_.bucket_bytes));
  }

  double moved_seconds(double bytes) const {
    return bytes / (owner_.cluster_.gpu.memory_bytes_per_s * owner_.stack_.memory_efficiency);
  }

  // Compression, and the copies into and out of buckets.
  double encode_seconds(double parameters) const {
    const auto compressed = compressed_gradient(job_);
    const double flops = compressed.flops * parameters / owner_.cluster_.gpu.matrix_flops_per_s(Precision::fp32);
    double seconds = std::max(flops, moved_seconds(compressed.moved_bytes * parameters));
    if (job_.sharding == Sharding::none && job_.exchange == GradientExchange::all_reduce)
      seconds += moved_seconds(owner_.stack_.bucket_values * bytes_of(job_.gradient_precision) * parameters);
    return seconds;
  }

  double server_node_rate() const {  // bytes per second of a node's NICs
    const Cluster& c = owner_.cluster_;
    return c.fabric->nic_bytes_per_s * c.fabric->efficiency * c.nics_per_node();
  }
  double workers_on_node() const { return std::min(owner_.cluster_.gpus_per_node(), job_.gpus()); }

  // Every worker pushes its gradients to the servers that hold those parameters, and pulls them back.
  double server_seconds(double parameters) const {
    const Cluster& c = owner_.cluster_;
    const double bytes = parameters * (compressed_gradient(job_).wire_bytes + job_.parameter_bytes());
    const double workers = job_.gpus();
    const double at_worker = bytes * workers_on_node() / server_node_rate();
    const double at_server = bytes * workers / (server_node_rate() * job_.parameter_servers);
    const double update =
        parameters * workers / job_.gradient_ranks() * 4 * 7 / c.node.host_memory_bytes_per_s / job_.parameter_servers;
    return std::max(at_worker, at_server) + update;
  }

  // The busier direction of a worker's PCIe, and of the NICs of a node: a server's or a worker's.
  LinkLoad server_load(double parameters) const {
    const double bytes = parameters * std::max(compressed_gradient(job_).wire_bytes, job_.parameter_bytes());
    const double node_bytes = bytes * std::max(workers_on_node(), value(job_.gpus()) / job_.parameter_servers);
    LinkLoad load;
    const Cluster& c = owner_.cluster_;
    if (const double pcie = c.gpu.pcie_bytes_per_s * c.node.pcie_efficiency; pcie > 0)
      load.of(LinkSort::pcie) = {bytes, bytes / pcie};
    load.of(LinkSort::nic) = {node_bytes / c.nics_per_node(), node_bytes / server_node_rate()};
    return load;
  }

  void add_optimizer(StepParts& parts) {
    const auto parameters = stage_parameters(job_, 0);
    double owned = parameters.total();
    if (job_.sharding != Sharding::none)
      owned =
          parameters.shared / job_.gradient_ranks() + parameters.experts * job_.expert_parallel / job_.gradient_ranks();
    const double bytes = job_.exchange == GradientExchange::parameter_server ? 0 : owned * optimizer_traffic(job_);
    // 8-bit products read weights in 8 bits, as they are and transposed: written once a step.
    const double cast_bytes = job_.precision == Precision::fp8 ? 4 * parameters.total() : 0;
    parts.optimizer_s = moved_seconds(bytes + cast_bytes) + owner_.stack_.step_host_s;
  }

  void add_stragglers(StepParts& parts) {
    const double spread = std::hypot(owner_.stack_.gpu_spread, job_.jitter);
    const double worst = spread * expected_maximum(job_.gpus()) + job_.slow_gpu - 1;
    parts.stragglers_s = worst * busy_s_;
  }

  void add_input(StepParts& parts) {
    const Cluster& c = owner_.cluster_;
    const double nodes = std::ceil(static_cast<double>(job_.gpus()) / c.gpus_per_node());
    double seconds = 0;
    if (job_.input_bytes_per_sequence > 0 && c.storage) {
      const double bytes = job_.input_bytes_per_sequence * value(job_.global_batch);
      const double node_limit =
          c.storage->client_read_bytes_per_s > 0 ? c.storage->client_read_bytes_per_s * nodes : HUGE_VAL;
      const double rate = c.storage->scope == "node" ? c.storage->read_bytes_per_s * nodes
                                                     : std::min(c.storage->read_bytes_per_s, node_limit);
      seconds = bytes / rate;
    }
    if (job_.input_sequences_per_s_per_node > 0)
      seconds = std::max(seconds, value(job_.global_batch) / (job_.input_sequences_per_s_per_node * nodes));
    // Loaders work one step ahead.
    parts.input_s = std::max(0.0, seconds - parts.total_s());
  }

  void finish(TrainingStep& step) {
    step.gpus = job_.gpus();
    step.micro_batches = job_.micro_batches();
    step.tokens_per_s = job_.tokens_per_step() / step.step_s();
    step.model_flops = model_flops_per_step(job_);
    step.hardware_flops = hardware_flops_per_step(job_);
    step.peak_flops_per_s = owner_.cluster_.gpu.matrix_flops_per_s(job_.precision) * job_.gpus();
    step.coverage_s = cost_.coverage_s();
    const auto parameters = stage_parameters(job_, 0);
    const double micro_batches = value(job_.micro_batches());
    LinkLoad all;
    const auto add = [&](const LinkLoad& load, double times) { all.add(load, times); };
    std::vector<Exchange> exchanges;
    if (job_.exchange == GradientExchange::parameter_server) {
      step.gradient_bytes_sent = parameters.total() * compressed_gradient(job_).wire_bytes;
      add(server_load(parameters.total()), 1);
    } else {
      exchanges = step_exchanges(job_, parameters.shared, parameters.experts);
      step.gradient_bytes_sent = bytes_sent(exchanges, job_.micro_batches());
    }
    for (const auto& e : exchanges) {
      const bool each = e.phase == ExchangePhase::each_forward || e.phase == ExchangePhase::each_backward;
      add(groups().load(e.kind, data_group(e.experts), e.bytes), each ? micro_batches : 1);
    }
    const double copies = schedule_.weight_copies();  // each sees its share of micro-batches
    const double layers = layers_on_first_stage() / copies, moe_layers = most_moe_layers() / copies;
    const double directions = job_.recompute == Recompute::full ? 3 : 2;
    const auto add_tensor = [&](CollectiveKind kind, double a_layer) {
      add(groups().load(kind, cost_.tensor_group(), cost_.tensor_bytes()), a_layer * layers * micro_batches);
    };
    if (job_.sequence_parallel) {  // backward gathers the inputs of two products again
      add_tensor(CollectiveKind::reduce_scatter, 2 * directions);
      add_tensor(CollectiveKind::all_gather, 2 * directions + 2);
    } else {
      add_tensor(CollectiveKind::all_reduce, 2 * directions);
    }
    const LayerTraffic each = cost_.traffic();
    add(groups().load(CollectiveKind::all_gather, cost_.context_group(), each.context_bytes),
        directions * layers * micro_batches);
    for (const auto& way : {each.dispatch, each.combine}) add(way, directions * moe_layers * micro_batches);
    if (stages_ > 1)
      add(groups().send_load(stage_stride(), sent_bytes_, false), 2 * micro_batches * job_.virtual_stages);
    step.node_link = all.node_link();
    step.fabric = all.fabric();
    step.flows = groups().flows();
  }

  StepPredictor& owner_;
  const TrainingJob& job_;
  const PipelineSchedule& schedule_;
  int stages_, chunks_;
  std::vector<PositionLayers> layers_;
  LayerCost cost_;
  std::vector<Position> positions_;
  double busy_s_ = 0, sent_bytes_ = 0;
};

StepPredictor::StepPredictor(const Cluster& cluster, const std::string& stack_name, const CollectiveOptions& network)
    : cluster_(cluster),
      stack_(load_training_stack(cluster.gpu, stack_name)),
      kernels_(load_training_kernels(cluster.gpu, stack_)),
      network_(cluster_),
      collectives_(cluster_, network_, network),
      groups_(cluster_, network_, collectives_, cluster_.gpus) {}

std::vector<std::string> StepPredictor::sources() const {
  auto lines = kernels_.sources();
  for (auto& line : collectives_.sources()) lines.push_back(std::move(line));
  lines.push_back("training figures of " + stack_.gpu + "/" + stack_.name + ": " + stack_.title);
  std::sort(lines.begin(), lines.end());
  lines.erase(std::unique(lines.begin(), lines.end()), lines.end());
  return lines;
}

TrainingMemory StepPredictor::memory(const TrainingJob& job) const {
  return plan_training_memory(job, stack_, cluster_.gpu.memory_bytes, in_flight_chunks(job));
}

TrainingStep StepPredictor::predict(const TrainingJob& job) {
  return Builder(*this, job).build();
}

}  // namespace dssim
