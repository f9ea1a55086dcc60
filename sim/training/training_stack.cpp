// SPDX-License-Identifier: Apache-2.0
#include "sim/training/training_stack.hpp"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/profile.hpp"
#include "platforms/node.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

constexpr Range<double> kValues{0, 1000};
constexpr std::string_view kUsualStack = "torch-2.11";

std::filesystem::path training_file(const std::string& gpu, const std::string& stack) {
  return data_root() / "kernels" / "profiles" / gpu / stack / "training.toml";
}

std::vector<ProfileName> training_profiles() {
  std::vector<ProfileName> found;
  for (const auto& profile : profiles())
    if (std::filesystem::exists(training_file(profile.gpu, profile.stack))) found.push_back(profile);
  return found;
}

Traffic traffic(const Config& table, std::string_view key) {
  const auto values = table.numbers(key, kValues);
  if (values.size() != 2) throw table.error(key, "must be two numbers: values moved forward and backward");
  return {values[0], values[1]};
}

Precision precision(const Config& table, std::string_view key, Precision fallback) {
  const auto names = precision_names();
  const auto name = table.choice(key, names, name_of(fallback));
  return static_cast<Precision>(std::find(names.begin(), names.end(), name) - names.begin());
}

// The profile whose tables the stack's kernels are priced by.
Profile tables_of(const std::string& gpu, const std::string& stack) {
  const auto root = data_root() / "kernels" / "profiles";
  Profile own(root, gpu, stack);
  return own.kernels().empty() ? std::move(own) : Profile(root, gpu, own.kernels());
}

TrainingStack read_stack(const ProfileName& profile) {
  const Config t = Config::load(training_file(profile.gpu, profile.stack).string());
  TrainingStack s;
  s.name = profile.stack;
  s.gpu = profile.gpu;
  s.title = t.text("title");
  s.source = t.text("source");
  s.forward_launch_s = t.quantity("forward_launch", Dimension::time);
  s.backward_launch_s = t.quantity("backward_launch", Dimension::time);
  s.collective_launch_s = t.quantity("collective_launch", Dimension::time);
  s.step_host_s = t.quantity("step_host", Dimension::time);
  s.launch_skew_s = t.quantity("launch_skew", Dimension::time, 0);
  s.power_cap = tables_of(profile.gpu, profile.stack).power_cap();
  s.sustained_matmul =
      s.power_cap.acts() ? t.number("sustained_matmul", {0.1, 1}, 1) : t.number("sustained_matmul", {0.1, 1});
  s.memory_efficiency = t.number("memory_efficiency", {0.1, 1});
  s.unaligned_slowdown = t.number("unaligned_slowdown", {1, 10}, 1);
  s.fp8_backward = t.number("fp8_backward", {1, 10}, 1);
  s.overlap_cost = t.number("overlap_cost", {0, 3}, 0);
  s.exchange_sms = t.number("exchange_sms", {0, 1000}, 0);
  s.gpu_spread = t.number("gpu_spread", {0, 0.2}, 0);
  const std::vector<std::string> kernels(std::begin(kTrainingAttentionNames), std::end(kTrainingAttentionNames));
  const auto attention = t.choice("attention", kernels);
  s.attention = static_cast<TrainingAttention>(std::find(kernels.begin(), kernels.end(), attention) - kernels.begin());
  s.flash_backward = t.number("flash_backward", {1, 10}, 2.5);
  s.flash_2 = t.number("flash_2", {1, 10}, 1);
  s.score_product = t.number("score_product", {0.05, 1}, 0.6);
  s.norm = traffic(t, "norm");
  s.residual = traffic(t, "residual");
  s.rope = traffic(t, "rope");
  s.gated = traffic(t, "gated");
  s.plain = traffic(t, "plain");
  s.layout = traffic(t, "layout");
  s.scores = traffic(t, "scores");
  s.dropout_values = t.number("dropout", kValues, 0);
  s.vocabulary_bytes = t.number("vocabulary_bytes", kValues);
  s.bucket_values = t.number("bucket_copies", kValues, 0);
  s.fused_accumulation = t.boolean("fused_accumulation", false);
  s.shard_values = t.number("shard_copies", kValues, 0);
  s.norm_bytes = t.number("kept_norm_bytes", kValues, 2);
  s.ffn_values = t.number("kept_ffn_values", kValues, 3);
  s.logit_bytes = t.number("kept_logit_bytes", kValues);
  s.sequence_parallel = t.boolean("sequence_parallel", false);
  s.overlap_gradients = t.boolean("overlap_gradients", true);
  s.overlap_context = t.boolean("overlap_context", false);
  s.overlap_tensor = t.boolean("overlap_tensor", false);
  s.overlap_parameters = t.boolean("overlap_parameters", true);
  s.master_weights = t.boolean("master_weights", true);
  s.state_precision = precision(t, "state_precision", Precision::fp32);
  s.gradient_precision = precision(t, "gradient_precision", Precision::fp32);
  s.bucket_bytes = t.quantity("gradient_bucket", Dimension::bytes);
  s.pipeline_scatter = t.boolean("pipeline_scatter", false);
  s.pipeline_overlap = t.boolean("pipeline_overlap", false);
  s.reserved_bytes = t.quantity("reserved", Dimension::bytes);
  t.finish();
  return s;
}

// How unlike two GPUs are as places to train on: their matrix rates and memory bandwidths, in octaves.
double distance(const Gpu& a, const Gpu& b) {
  const auto octaves = [](double x, double y) { return x > 0 && y > 0 ? std::abs(std::log2(x / y)) : 10.0; };
  return octaves(a.matrix_flops_per_s(Precision::bf16), b.matrix_flops_per_s(Precision::bf16)) +
         octaves(a.memory_bytes_per_s, b.memory_bytes_per_s) + (a.architecture == b.architecture ? 0 : 4);
}

}  // namespace

std::vector<std::string> training_stack_names() {
  std::vector<std::string> names;
  for (const auto& profile : training_profiles())
    if (std::find(names.begin(), names.end(), profile.stack) == names.end()) names.push_back(profile.stack);
  return names;
}

TrainingStack load_training_stack(const Gpu& gpu, const std::string& name) {
  const auto names = training_stack_names();
  if (!name.empty() && std::find(names.begin(), names.end(), name) == names.end())
    throw bad_input(unknown_name("training stack", name, names));
  const ProfileName* best = nullptr;
  double best_distance = std::numeric_limits<double>::infinity();
  const auto all = training_profiles();
  for (const auto& profile : all) {
    const bool own = profile.gpu == gpu.name;
    if (name.empty() ? !own && profile.stack != kUsualStack : profile.stack != name) continue;
    double d = own ? -2 : distance(gpu, load_gpu(profile.gpu));
    if (own && profile.stack == kUsualStack) d -= 1;
    if (d < best_distance) {
      best_distance = d;
      best = &profile;
    }
  }
  if (best == nullptr) throw bad_input("kernels/profiles: no stack has a training.toml");
  return read_stack(*best);
}

CostModel load_training_kernels(const Gpu& gpu, const TrainingStack& stack) {
  const auto all = profiles();
  const std::string name = tables_of(stack.gpu, stack.name).stack().name;
  const bool own_stack =
      std::any_of(all.begin(), all.end(), [&](const auto& p) { return p.gpu == gpu.name && p.stack == name; });
  const bool own_tables = std::any_of(all.begin(), all.end(), [&](const auto& p) { return p.gpu == gpu.name; });
  return CostModel::load(gpu, own_stack || !own_tables ? name : "");
}

}  // namespace dssim
