// SPDX-License-Identifier: Apache-2.0
#pragma once

// One profile with the tables that its kernels are priced by, each read when first asked for and kept. Where the
// profile borrows tables (`kernels` in its stack.toml), those of the profile beside it that it names. A table is null
// where the profile holds none of that format. Not for sharing between threads. Errors: a damaged table is bad_input, when it
// is first asked for. Part of CostModel; tested through it by tests/unit/cost_model_test.cpp.

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "kernels/attention_table.hpp"
#include "kernels/bandwidth_tables.hpp"
#include "kernels/gemm_table.hpp"
#include "kernels/latent_attention_table.hpp"
#include "kernels/machine.hpp"
#include "kernels/mixed_attention_table.hpp"
#include "kernels/moe_table.hpp"
#include "kernels/profile.hpp"

namespace dssim {

class ProfileTables {
 public:
  ProfileTables(const std::filesystem::path& root, const std::string& gpu, const std::string& stack);
  const Profile& profile() const { return profile_; }
  const Machine& machine() const { return machine_; }

  const GemmTable* gemm(Precision weights) const;
  const MoeTable* moe(Precision weights) const;
  const DecodeTable* decode(Precision kv_cache) const;
  const PrefillTable* prefill(Precision kv_cache) const;
  // What launches with decodes in them take beside prefill()'s tiles.
  const MixedAttentionTable* mixed(Precision kv_cache) const;
  const LatentAttentionTable* latent(Precision kv_cache) const;
  const ElementwiseTable& elementwise() const;
  const CollectiveTable& all_reduce() const;
  const CollectiveTable& nccl() const;

 private:
  const Profile& tables() const { return tables_ ? *tables_ : profile_; }
  void read_attention(Precision kv_cache) const;

  Profile profile_;
  std::optional<Profile> tables_;  // borrowed
  Machine machine_;
  mutable std::map<Precision, std::optional<GemmTable>> gemms_;
  mutable std::map<Precision, std::optional<MoeTable>> moes_;
  mutable std::map<Precision, std::optional<DecodeTable>> decodes_;
  mutable std::map<Precision, std::optional<PrefillTable>> prefills_;
  mutable std::map<Precision, std::optional<MixedAttentionTable>> mixed_;
  mutable std::map<Precision, std::optional<LatentAttentionTable>> latents_;
  mutable std::optional<ElementwiseTable> elementwise_;
  mutable std::optional<CollectiveTable> all_reduce_, nccl_;
};

}  // namespace dssim
