// SPDX-License-Identifier: Apache-2.0
#include "kernels/cost_model.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "kernels/machine.hpp"
#include "kernels/profile.hpp"
#include "kernels/profile_tables.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {
namespace {

constexpr double kLaunchFloor = 2.5e-6;  // shortest kernel in any of the tables
constexpr std::string_view kElementwiseNames[] = {"add_rmsnorm", "silu_mul", "rope", "embedding", "sampler"};
constexpr std::string_view kCollectiveNames[] = {"all_reduce", "all_gather", "reduce_scatter", "all_to_all"};

std::string_view table_name(Elementwise kernel) {
  return kElementwiseNames[static_cast<size_t>(kernel)];
}

struct Location {
  std::string gpu, stack;
};

std::vector<Location> find_profiles(const std::filesystem::path& root) {
  std::vector<Location> found;
  std::error_code ignored;
  for (const auto& gpu : std::filesystem::directory_iterator(root, ignored))
    if (gpu.is_directory())
      for (const auto& stack : std::filesystem::directory_iterator(gpu.path(), ignored))
        if (std::filesystem::exists(stack.path() / "stack.toml"))
          found.push_back({gpu.path().filename().string(), stack.path().filename().string()});
  std::sort(found.begin(), found.end(),
            [](const auto& a, const auto& b) { return std::tie(a.gpu, a.stack) < std::tie(b.gpu, b.stack); });
  return found;
}

// How far apart two GPUs are for carrying tables over: their balance (FLOPs per byte), the sizes behind it, the
// architecture, and the class: HBM and a full set of NVLinks (from V100's 150 GB/s on) against GDDR and none or a
// bridge.
double distance(const Machine& a, const Machine& b) {
  const auto log_ratio = [](double x, double y) { return std::abs(std::log2(x / y)); };
  const double fa = a.flops_per_s(Precision::bf16), fb = b.flops_per_s(Precision::bf16);
  const auto linked = [](const Machine& m) { return m.nvlink_bytes_per_s >= 150e9; };
  return 2 * log_ratio(fa / a.memory_bytes_per_s, fb / b.memory_bytes_per_s) + log_ratio(fa, fb) +
         log_ratio(a.memory_bytes_per_s, b.memory_bytes_per_s) + (a.architecture == b.architecture ? 0 : 1) +
         (linked(a) == linked(b) ? 0 : 2);
}

// A damaged or unfinished profile is an error where it was asked for, and passed over where it could only lend tables.
std::optional<Profile> readable(const std::filesystem::path& root, const Location& location, bool asked) {
  try {
    Profile profile(root, location.gpu, location.stack);
    if (profile.complete()) return profile;
  } catch (const Error&) {
    if (asked) throw;
    return {};
  }
  if (asked)
    throw bad_input(fmt::format("{}/{}/stack.toml: complete: the calibration was cut short; run it again",
                                (root / location.gpu).string(), location.stack));
  return {};
}

}  // namespace

class CostModel::Impl {
 public:
  Impl(std::filesystem::path root, const Gpu& gpu, const std::string& stack);

  // The first profile, in order of preference, for which `has` answers a table; later ones are further from what was
  // asked.
  template <typename Has>
  auto find(const Has& has) const -> std::pair<decltype(has(std::declval<const ProfileTables&>())), Coverage> {
    for (size_t i = 0; i < order_.size(); ++i)
      if (auto table = has(tables(i))) {
        used_[i] = true;
        return {table, i == 0 && !transferred_ ? Coverage::inside : order_[i].second};
      }
    return {{}, Coverage::outside};
  }
  // What no profile holds cannot be priced.
  template <typename Table>
  const Table& require(const Table* table, std::string_view name) const {
    if (table == nullptr) throw bad_input(fmt::format("{}: no profile holds a table '{}'", root_.string(), name));
    return *table;
  }
  const ProfileTables& tables(size_t i) const {
    if (!loaded_[i]) loaded_[i] = std::make_unique<ProfileTables>(root_, order_[i].first.gpu, order_[i].first.stack);
    return *loaded_[i];
  }

  std::pair<const DecodeTable*, Coverage> decode_table(Precision kv_cache) const;
  Price decode(const AttentionHeads& h, double batch, double kv_tokens) const;
  std::pair<const LatentAttentionTable*, Coverage> latent_table(Precision kv_cache) const;
  Price bandwidth_bound(std::string_view kernel, double rows, double width) const;
  Price attention(const AttentionHeads& h, std::span<const AttentionChunk> chunks, double batch, double kv_tokens,
                  bool causal) const;

  std::filesystem::path root_;
  Gpu gpu_;
  Machine target_;
  bool transferred_ = false;
  std::vector<std::pair<Location, Coverage>> order_;  // [0] is the stack's own
  mutable std::vector<std::unique_ptr<ProfileTables>> loaded_;
  mutable std::vector<bool> used_;  // some price rests on it
  Stack stack_;
  PowerCap power_cap_;
};

CostModel::Impl::Impl(std::filesystem::path root, const Gpu& gpu, const std::string& asked)
    : root_(std::move(root)), gpu_(gpu) {
  if (!(gpu.memory_bytes_per_s > 0)) throw bad_input(fmt::format("gpu {}: has no memory bandwidth", gpu.name));
  if (!(gpu.matrix_flops_per_s(Precision::bf16) > 0))
    throw bad_input(fmt::format("gpu {}: has no matrix rate", gpu.name));
  target_ = Machine::of(gpu);
  const auto all = find_profiles(root_);
  if (all.empty()) throw bad_input(fmt::format("{}: holds no profiles", root_.string()));

  std::vector<std::string> stacks;
  for (const auto& l : all)
    if (std::find(stacks.begin(), stacks.end(), l.stack) == stacks.end()) stacks.push_back(l.stack);
  if (!asked.empty() && std::find(stacks.begin(), stacks.end(), asked) == stacks.end())
    throw bad_input(unknown_name("stack", asked, stacks));

  // How far each profile is from what was asked: another version of the engine counts little, another engine as much as
  // two other architectures.
  const auto engine = [](const std::string& name) { return name.substr(0, name.find('-')); };
  const auto is_asked = [&](const Location& l) {
    return asked.empty() ? l.stack.starts_with("vllm") : l.stack == asked;
  };
  std::vector<std::pair<double, Location>> ranked;
  for (const auto& l : all) {
    const auto profile = readable(root_, l, l.stack == asked);
    if (!profile || (!profile->kernels().empty() && l.stack != asked))
      continue;  // borrowed tables are ranked where they lie
    const double gpu_distance = l.gpu == gpu.name ? 0 : distance(target_, Machine::of(profile->measured_on()));
    const double stack_distance = is_asked(l)                                                 ? 0
                                  : engine(l.stack) == engine(asked.empty() ? "vllm" : asked) ? 0.25
                                                                                              : 2;
    ranked.emplace_back(gpu_distance + stack_distance, l);
  }
  std::stable_sort(ranked.begin(), ranked.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  // The stack's own engine figures come first, whatever GPU they were measured on.
  const auto own = std::find_if(ranked.begin(), ranked.end(), [&](const auto& r) { return is_asked(r.second); });
  if (own != ranked.end()) std::rotate(ranked.begin(), own, own + 1);
  if (ranked.empty()) throw bad_input(fmt::format("{}: holds no readable profile", root_.string()));
  for (const auto& [d, l] : ranked) order_.emplace_back(l, l.gpu == gpu.name ? Coverage::edge : Coverage::outside);
  loaded_.resize(order_.size());
  used_.resize(order_.size());
  used_[0] = true;  // its engine figures
  stack_ = tables(0).profile().stack();
  // A power cap is a board's own: it says nothing about another GPU.
  if (stack_.gpu == gpu.name) power_cap_ = tables(0).profile().power_cap();
  // Tables of another GPU, or of this one with figures that a scenario changed.
  const Machine& measured = tables(0).machine();
  const auto differs = [](double a, double b) { return std::abs(a - b) > 0.01 * b; };
  transferred_ = stack_.gpu != gpu.name || differs(target_.memory_bytes_per_s, measured.memory_bytes_per_s) ||
                 differs(target_.flops_per_s(Precision::bf16), measured.flops_per_s(Precision::bf16));
}

CostModel::CostModel(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
CostModel::CostModel(CostModel&&) noexcept = default;
CostModel& CostModel::operator=(CostModel&&) noexcept = default;
CostModel::~CostModel() = default;

CostModel CostModel::load(const Gpu& gpu, const std::string& stack) {
  return load_from((data_root() / "kernels" / "profiles").string(), gpu, stack);
}

CostModel CostModel::load_from(const std::string& profiles_root, const Gpu& gpu, const std::string& stack) {
  return CostModel(std::make_unique<Impl>(profiles_root, gpu, stack));
}

const Gpu& CostModel::gpu() const {
  return impl_->gpu_;
}
const Stack& CostModel::stack() const {
  return impl_->stack_;
}
const PowerCap& CostModel::power_cap() const {
  return impl_->power_cap_;
}
bool CostModel::transferred() const {
  return impl_->transferred_;
}

std::optional<Uncertainty> CostModel::uncertainty(std::string_view op) const {
  return impl_->transferred_ ? std::nullopt : impl_->tables(0).profile().uncertainty(op);
}

std::vector<std::string> CostModel::sources() const {
  std::vector<std::string> lines;
  for (size_t i = 0; i < impl_->order_.size(); ++i)
    if (impl_->used_[i])
      lines.push_back(fmt::format("{}/{}: {}", impl_->order_[i].first.gpu, impl_->order_[i].first.stack,
                                  impl_->loaded_[i]->profile().source()));
  return lines;
}

Price CostModel::gemm(Precision weights, double m, double n, double k) const {
  // A format this profile has no table of: another profile's, if measured on the same architecture, else the efficiency
  // of this profile's 16-bit products.
  auto [table, coverage] = impl_->find([&](const ProfileTables& t) {
    const bool usable = &t == &impl_->tables(0) || t.machine().architecture == impl_->target_.architecture;
    return usable ? t.gemm(weights) : nullptr;
  });
  if (!table) std::tie(table, coverage) = impl_->find([&](const ProfileTables& t) { return t.gemm(Precision::bf16); });
  Price price = impl_->require(table, "gemm").price(impl_->target_, weights, m, n, k);
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::prefill_attention(const AttentionHeads& heads, std::span<const AttentionChunk> chunks,
                                   bool causal) const {
  return impl_->attention(heads, chunks, 0, 0, causal);
}

Price CostModel::decode_attention(const AttentionHeads& heads, double batch, double kv_tokens) const {
  return impl_->decode(heads, batch, kv_tokens);
}

double CostModel::decode_spread(const AttentionHeads& h, double batch, double kv_tokens, double longest) const {
  const DecodeTable* table = impl_->decode_table(h.kv_cache).first;
  if (table == nullptr) return 1;
  return table->spread(impl_->target_, bytes_of(h.kv_cache), static_cast<double>(h.heads),
                       static_cast<double>(h.kv_heads), static_cast<double>(h.head_dim), batch, kv_tokens, longest);
}

// Where no profile has a table of this cache's format: the 16-bit one.
std::pair<const DecodeTable*, Coverage> CostModel::Impl::decode_table(Precision kv_cache) const {
  const auto of = [&](Precision format) { return find([&](const ProfileTables& t) { return t.decode(format); }); };
  const auto found = of(kv_cache);
  return found.first != nullptr ? found : of(Precision::bf16);
}

Price CostModel::Impl::decode(const AttentionHeads& h, double batch, double kv_tokens) const {
  const auto [table, coverage] = decode_table(h.kv_cache);
  Price price = require(table, "attention")
                    .price(target_, bytes_of(h.kv_cache), static_cast<int>(h.heads), static_cast<int>(h.kv_heads),
                           static_cast<int>(h.head_dim), batch, kv_tokens);
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::mixed_attention(const AttentionHeads& heads, std::span<const AttentionChunk> chunks, double batch,
                                 double kv_tokens) const {
  return chunks.empty() ? impl_->decode(heads, batch, kv_tokens)
                        : impl_->attention(heads, chunks, batch, kv_tokens, true);
}

Price CostModel::Impl::attention(const AttentionHeads& h, std::span<const AttentionChunk> chunks, double batch,
                                 double kv_tokens, bool causal) const {
  Precision kv_cache = h.kv_cache;
  const ProfileTables* owner = nullptr;
  const auto prefill = [&](const ProfileTables& t) { return (owner = &t)->prefill(kv_cache); };
  auto [table, coverage] = find(prefill);
  if (!table) kv_cache = Precision::bf16, std::tie(table, coverage) = find(prefill);
  TileWork work;
  work.tile_rows = require(table, "attention").tile_rows();
  const auto heads = static_cast<int>(h.heads), kv_heads = static_cast<int>(h.kv_heads),
             dim = static_cast<int>(h.head_dim);
  const bool one_launch = batch > 0 && stack_.attention == AttentionKernel::flash2;
  const MixedAttentionTable* mixed = nullptr;
  if (one_launch && causal && owner->profile().stack().gpu == gpu_.name) mixed = owner->mixed(kv_cache);
  if (mixed != nullptr && !mixed->has(heads, kv_heads, dim)) mixed = nullptr;
  double log_ratio = 0;
  Coverage measured = Coverage::inside;
  for (const auto& c : chunks) {
    const double before = work.kv_sum;
    work.add(c.new_tokens, c.past_tokens, heads, kv_heads, dim, bytes_of(h.kv_cache), causal);
    if (mixed == nullptr) continue;
    const auto ratio = mixed->at({heads, kv_heads, dim, c.new_tokens, c.past_tokens, batch, kv_tokens / batch, 0});
    log_ratio += ratio.log * (work.kv_sum - before);
    measured = worse(measured, ratio.coverage);
  }
  if (mixed != nullptr) log_ratio /= work.kv_sum;
  if (one_launch) work.add_decodes(batch, kv_tokens / batch, heads, kv_heads, dim, bytes_of(h.kv_cache), target_);
  Price price = table->price(target_, work, {0, 0, 0, heads, kv_heads, dim, 0});
  if (mixed != nullptr) price = {price.seconds * std::exp(log_ratio), measured};
  // Carried over, it is held to what the card sustains, as products are.
  if (owner->profile().stack().gpu != gpu_.name)
    price.seconds = std::max(price.seconds, target_.least_seconds(work.flops, 0, Precision::bf16));
  if (batch > 0 && !one_launch) {
    const Price decodes = decode(h, batch, kv_tokens);
    price.seconds += decodes.seconds;
    coverage = worse(coverage, decodes.coverage);
  }
  price.coverage = worse(price.coverage, coverage);
  return price;
}

// An 8-bit cache has a kernel of its own on some architectures: elsewhere the 16-bit table's efficiency.
std::pair<const LatentAttentionTable*, Coverage> CostModel::Impl::latent_table(Precision kv_cache) const {
  auto found = find([&](const ProfileTables& t) {
    const bool usable = &t == &tables(0) || t.machine().architecture == target_.architecture;
    return usable ? t.latent(kv_cache) : nullptr;
  });
  if (found.first == nullptr) found = find([&](const ProfileTables& t) { return t.latent(Precision::bf16); });
  require(found.first, "latent_attention");
  return found;
}

Price CostModel::latent_decode(const LatentHeads& heads, double batch, double kv_tokens) const {
  const auto [table, coverage] = impl_->latent_table(heads.kv_cache);
  LatentWork work;
  work.add_absorbed(heads, batch, kv_tokens, kv_tokens);
  Price price = table->price(impl_->target_, heads, LatentAttentionTable::Way::decode, work);
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::latent_prefill(const LatentHeads& heads, std::span<const AttentionChunk> chunks) const {
  const auto [table, coverage] = impl_->latent_table(heads.kv_cache);
  LatentWork absorbed, expanded;
  for (const auto& c : chunks) {
    const double kv = c.past_tokens + c.new_tokens;
    if (c.new_tokens <= table->absorbed_tokens())
      absorbed.add_absorbed(heads, c.new_tokens, kv, c.new_tokens * (c.past_tokens + (c.new_tokens + 1) / 2));
    else
      expanded.add_expanded(heads, c.new_tokens, c.past_tokens);
  }
  Price sum{0, coverage};
  for (const auto& [way, work] :
       {std::pair{LatentAttentionTable::Way::absorbed, &absorbed}, {LatentAttentionTable::Way::expanded, &expanded}}) {
    if (work->tokens <= 0) continue;
    const Price price = table->price(impl_->target_, heads, way, *work);
    sum = {sum.seconds + price.seconds, worse(sum.coverage, price.coverage)};
  }
  return sum;
}

Price CostModel::moe(Precision weights, const MoeShape& s) const {
  auto [table, coverage] = impl_->find([&](const ProfileTables& t) { return t.moe(weights); });
  if (!table) std::tie(table, coverage) = impl_->find([&](const ProfileTables& t) { return t.moe(Precision::bf16); });
  Price price = impl_->require(table, "moe")
                    .price(impl_->target_, weights,
                           {s.tokens, static_cast<double>(s.hidden), static_cast<double>(s.ffn),
                            static_cast<double>(s.experts_per_token), static_cast<double>(s.experts),
                            static_cast<double>(s.tensor_parallel), static_cast<double>(s.expert_parallel), 0});
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::elementwise(Elementwise kernel, double rows, double width) const {
  return impl_->bandwidth_bound(table_name(kernel), rows, width);
}

// From the nearest profile that has the kernel, else at the memory bandwidth.
Price CostModel::Impl::bandwidth_bound(std::string_view kernel, double rows, double width) const {
  const auto [table, coverage] = find([&](const ProfileTables& t) -> const ElementwiseTable* {
    return t.elementwise().has(kernel) ? &t.elementwise() : nullptr;
  });
  if (!table)
    return {kLaunchFloor + rows * width * ElementwiseTable::bytes_per_value(kernel) / target_.memory_bytes_per_s,
            Coverage::outside};
  Price price = table->price(target_, kernel, rows, width);
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::all_reduce(int gpus, double bytes, bool in_graph) const {
  // Asked first: a table that is looked up counts as a source.
  if (gpus <= 1 || !impl_->stack_.name.starts_with("vllm")) return collective(Collective::all_reduce, gpus, bytes);
  const auto [table, coverage] = impl_->find([&](const ProfileTables& t) -> const CollectiveTable* {
    return t.all_reduce().has("vllm_graph") ? &t.all_reduce() : nullptr;
  });
  if (!table) return collective(Collective::all_reduce, gpus, bytes);
  Price price = table->price(impl_->target_, "vllm_graph", gpus, bytes);
  if (!in_graph)
    price.seconds += 2 * bytes / impl_->target_.memory_bytes_per_s;  // copied into the registered buffer first
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::collective(Collective kind, int gpus, double bytes) const {
  if (gpus <= 1) return {0, Coverage::inside};
  std::string name(kCollectiveNames[static_cast<size_t>(kind)]);
  const auto lookup = [&] {
    return impl_->find(
        [&](const ProfileTables& t) -> const CollectiveTable* { return t.nccl().has(name) ? &t.nccl() : nullptr; });
  };
  auto [table, coverage] = lookup();
  if (!table) {
    name = "alltoall";
    std::tie(table, coverage) = lookup();
  }
  Price price = impl_->require(table, "nccl").price(impl_->target_, name, gpus, bytes);
  price.coverage = worse(price.coverage, coverage);
  return price;
}

Price CostModel::copy(double bytes) const {
  return impl_->bandwidth_bound("copy_d2d", bytes, 1);
}

std::vector<ProfileName> profiles() {
  const auto root = data_root() / "kernels" / "profiles";
  std::vector<ProfileName> names;
  for (const auto& l : find_profiles(root))
    if (const auto profile = readable(root, l, false)) names.push_back({l.gpu, l.stack, profile->stack().title});
  return names;
}

}  // namespace dssim
