// SPDX-License-Identifier: Apache-2.0
#include "kernels/profile_tables.hpp"

namespace dssim {
namespace {

// The table of this format, made of what `read` finds when it is first asked for.
template <typename Table, typename Read>
const Table* table_of(std::map<Precision, std::optional<Table>>& cache, Precision format, const Machine& machine,
                      const Read& read) {
  const auto [at, is_new] = cache.try_emplace(format);
  if (is_new)
    if (const auto samples = read(); !samples.empty()) at->second.emplace(samples, format, machine);
  return at->second ? &*at->second : nullptr;
}

}  // namespace

ProfileTables::ProfileTables(const std::filesystem::path& root, const std::string& gpu, const std::string& stack)
    : profile_(root, gpu, stack), machine_(Machine::of(profile_.measured_on())) {
  if (!profile_.kernels().empty()) tables_.emplace(root, gpu, profile_.kernels());
}

const GemmTable* ProfileTables::gemm(Precision weights) const {
  return table_of(gemms_, weights, machine_, [&] { return tables().gemm(weights); });
}

const MoeTable* ProfileTables::moe(Precision weights) const {
  return table_of(moes_, weights, machine_, [&] { return tables().moe(weights); });
}

const DecodeTable* ProfileTables::decode(Precision kv_cache) const {
  read_attention(kv_cache);
  const auto& table = decodes_[kv_cache];
  return table && !table->empty() ? &*table : nullptr;
}

const PrefillTable* ProfileTables::prefill(Precision kv_cache) const {
  read_attention(kv_cache);
  const auto& table = prefills_[kv_cache];
  return table && !table->empty() ? &*table : nullptr;
}

const MixedAttentionTable* ProfileTables::mixed(Precision kv_cache) const {
  const PrefillTable* tiles = prefill(kv_cache);
  const auto [at, is_new] = mixed_.try_emplace(kv_cache);
  if (is_new && tiles != nullptr)
    if (const auto samples = tables().mixed_attention(kv_cache); !samples.empty())
      at->second.emplace(samples, bytes_of(kv_cache), *tiles, machine_);
  return at->second ? &*at->second : nullptr;
}

const LatentAttentionTable* ProfileTables::latent(Precision kv_cache) const {
  const auto* table = table_of(latents_, kv_cache, machine_, [&] { return tables().latent_attention(kv_cache); });
  return table != nullptr && !table->empty() ? table : nullptr;
}

const ElementwiseTable& ProfileTables::elementwise() const {
  if (!elementwise_) {
    auto samples = tables().elementwise();
    for (const auto& copy : tables().copies()) samples.push_back({copy.kernel, copy.bytes, 1, copy.seconds});
    elementwise_.emplace(samples, machine_);
  }
  return *elementwise_;
}

const CollectiveTable& ProfileTables::all_reduce() const {
  if (!all_reduce_) all_reduce_.emplace(tables().collectives("all_reduce"), machine_);
  return *all_reduce_;
}

const CollectiveTable& ProfileTables::nccl() const {
  if (!nccl_) nccl_.emplace(tables().collectives("nccl"), machine_);
  return *nccl_;
}

void ProfileTables::read_attention(Precision kv_cache) const {
  const auto [at, is_new] = decodes_.try_emplace(kv_cache);
  if (!is_new) return;
  const auto samples = tables().attention(kv_cache);
  if (samples.empty()) return;
  at->second.emplace(samples, bytes_of(kv_cache), machine_, profile_.measured_on().decode_blocks_per_sm);
  prefills_[kv_cache].emplace(samples, bytes_of(kv_cache), profile_.measured_on());
}

}  // namespace dssim
