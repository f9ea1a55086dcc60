// SPDX-License-Identifier: Apache-2.0

// How well the tables predict kernel times that were held out of them, and times of a GPU they were not measured on.
// Every case prints its median and 90th percentile error; docs/cost-model.md quotes them.

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

#include "kernels/attention_table.hpp"
#include "kernels/gemm_table.hpp"
#include "kernels/latent_attention_table.hpp"
#include "kernels/mixed_attention_table.hpp"
#include "kernels/moe_table.hpp"
#include "kernels/profile.hpp"
#include "kernels/profile_report.hpp"
#include "sim/base/csv.hpp"
#include "support/relative_errors.hpp"

namespace dssim {
namespace {

const std::string kProfiles = std::string(DSSIM_SOURCE_DIR) + "/kernels/profiles";

using Errors = test::RelativeErrors;

// Splits samples in two by a rule on their position.
template <typename Sample, typename Rule>
std::pair<std::vector<Sample>, std::vector<Sample>> split(const std::vector<Sample>& all, const Rule& held_out) {
  std::vector<Sample> kept, out;
  for (const auto& s : all) (held_out(s) ? out : kept).push_back(s);
  return {kept, out};
}

struct Case {
  const char *gpu, *stack;
};

class Kernels : public testing::TestWithParam<Case> {
 protected:
  Kernels() : profile_(kProfiles, GetParam().gpu, GetParam().stack), machine_(Machine::of(profile_.measured_on())) {}
  std::string name(const char* what) const { return std::string(GetParam().gpu) + "/" + GetParam().stack + " " + what; }
  Profile profile_;
  Machine machine_;
};

// Sizes that models have: no side below 256.
bool practical(const GemmSample& s) {
  return s.n >= 256 && s.k >= 256;
}

TEST_P(Kernels, GemmTokensHeldOut) {
  const auto all = profile_.gemm(Precision::bf16);
  std::set<double> ms;
  for (const auto& s : all) ms.insert(s.m);
  const std::vector<double> ordered(ms.begin(), ms.end());
  std::set<double> out;
  for (size_t i = 2; i + 1 < ordered.size(); i += 3) out.insert(ordered[i]);
  const auto [kept, held] = split(all, [&](const GemmSample& s) { return out.count(s.m) > 0; });
  const GemmTable table(kept, Precision::bf16, machine_);
  Errors errors;
  for (const auto& s : held)
    if (practical(s)) errors.add(table.price(machine_, Precision::bf16, s.m, s.n, s.k).seconds, s.seconds);
  errors.print(name("gemm, every third token count held out"));
  EXPECT_LT(errors.quantile(0.5), 0.06);
  EXPECT_LT(errors.quantile(0.9), 0.20);
}

TEST_P(Kernels, GemmShapesHeldOut) {
  const auto all = profile_.gemm(Precision::bf16);
  std::set<std::pair<double, double>> shapes;
  for (const auto& s : all)
    if (practical(s) && s.n <= 32768 && s.k <= 32768) shapes.insert({s.n, s.k});
  Errors errors;
  size_t i = 0;
  for (const auto& shape : shapes) {
    if (shapes.size() > 100 && ++i % 7 != 0) continue;
    const auto [kept, held] =
        split(all, [&](const GemmSample& s) { return s.n == shape.first && s.k == shape.second; });
    const GemmTable table(kept, Precision::bf16, machine_);
    for (const auto& s : held) errors.add(table.price(machine_, Precision::bf16, s.m, s.n, s.k).seconds, s.seconds);
  }
  errors.print(name("gemm, weight shapes held out one by one"));
  EXPECT_LT(errors.quantile(0.5), 0.12);
}

TEST_P(Kernels, DecodeHeldOut) {
  const auto [kept, held] = split(profile_.attention(Precision::bf16), [](const AttentionSample& s) {
    return s.q_len == 1 && static_cast<int>(std::lround(std::log2(s.batch) + std::log2(s.past_len + 1))) % 3 == 1 &&
           s.past_len > 127 && s.past_len < 65535 && s.batch > 1;
  });
  if (held.empty()) GTEST_SKIP();
  const DecodeTable table(kept, 2, machine_, profile_.measured_on().decode_blocks_per_sm);
  Errors errors;
  for (const auto& s : held)
    errors.add(table.price(machine_, 2, s.heads, s.kv_heads, s.head_dim, s.batch, s.batch * (s.past_len + 1)).seconds,
               s.seconds);
  errors.print(name("decode attention, every third point held out"));
  EXPECT_LT(errors.quantile(0.5), 0.05);
}

TEST_P(Kernels, DecodeHeadsHeldOut) {
  const auto all = profile_.attention(Precision::bf16);
  std::set<std::pair<int, int>> shapes;
  for (const auto& s : all)
    if (s.q_len == 1) shapes.insert({s.heads, s.kv_heads});
  if (shapes.size() < 5) GTEST_SKIP();
  Errors errors;
  for (const auto& shape : shapes) {
    if (shape.second < 2 || shape.first > 40) continue;
    const auto [kept, held] =
        split(all, [&](const AttentionSample& s) { return s.heads == shape.first && s.kv_heads == shape.second; });
    const DecodeTable table(kept, 2, machine_, profile_.measured_on().decode_blocks_per_sm);
    for (const auto& s : held)
      if (s.q_len == 1 && s.past_len > 127)
        errors.add(
            table.price(machine_, 2, s.heads, s.kv_heads, s.head_dim, s.batch, s.batch * (s.past_len + 1)).seconds,
            s.seconds);
  }
  errors.print(name("decode attention, head counts held out one by one"));
  EXPECT_LT(errors.quantile(0.5), 0.10);
}

TileWork tiles_of(const AttentionSample& s, double kv_bytes, double tile_rows) {
  TileWork one, work;
  one.tile_rows = work.tile_rows = tile_rows;
  one.add(s.q_len, s.past_len, s.heads, s.kv_heads, s.head_dim, kv_bytes, true);
  work.add(one, s.batch);
  return work;
}

TEST_P(Kernels, PrefillHeldOut) {
  int i = 0;
  const auto [kept, held] =
      split(profile_.attention(Precision::bf16), [&](const AttentionSample& s) { return s.q_len > 1 && ++i % 5 == 0; });
  if (held.empty()) GTEST_SKIP();
  const PrefillTable table(kept, 2, profile_.measured_on());
  Errors errors;
  for (const auto& s : held)
    if (s.q_len >= 128) errors.add(table.price(machine_, tiles_of(s, 2, table.tile_rows()), s).seconds, s.seconds);
  errors.print(name("prefill attention, every fifth row held out"));
  EXPECT_LT(errors.quantile(0.5), 0.08);
}

TEST_P(Kernels, MoeTokensHeldOut) {
  const auto all = profile_.moe(Precision::bf16);
  if (all.empty()) GTEST_SKIP();
  std::set<double> ms;
  for (const auto& s : all) ms.insert(s.tokens);
  const std::vector<double> ordered(ms.begin(), ms.end());
  std::set<double> out;
  for (size_t i = 2; i + 1 < ordered.size(); i += 3) out.insert(ordered[i]);
  const auto [kept, held] = split(all, [&](const MoeSample& s) { return out.count(s.tokens) > 0; });
  const MoeTable table(kept, Precision::bf16, machine_);
  Errors errors;
  for (const auto& s : held) errors.add(table.price(machine_, Precision::bf16, s).seconds, s.seconds);
  errors.print(name("moe, every third token count held out"));
  EXPECT_LT(errors.quantile(0.5), 0.06);
}

// Prefill chunk and decodes in one launch of FlashAttention-2: from the tiles of launches of prefill alone, and from
// what is known of such launches besides.
class Mixed : public Kernels {
 protected:
  void SetUp() override {
    if (profile_.mixed_attention(Precision::bf16).empty()) GTEST_SKIP() << "not measured";
  }
  void judge(const MixedAttentionTable& table, const std::vector<MixedAttentionSample>& held, const char* what,
             double median, double p90) const {
    Errors before, after;
    for (const auto& s : held) {
      const double tiles = tiles_
                               .price(machine_, tiles_of(s, 2, tiles_.tile_rows(), machine_),
                                      {0, 0, 0, s.heads, s.kv_heads, s.head_dim, 0})
                               .seconds;
      before.add(tiles, s.seconds);
      after.add(tiles * std::exp(table.at(s).log), s.seconds);
    }
    before.print(name("mixed, ") + what + ", tiles alone");
    after.print(name("mixed, ") + what);
    EXPECT_LT(after.quantile(0.5), median);
    EXPECT_LT(after.quantile(0.9), p90);
    EXPECT_LT(after.quantile(0.5), 0.7 * before.quantile(0.5));
  }
  // A sample of the measured launches that are in no plane of the table: of finer grids, and thinned ones.
  std::vector<MixedAttentionSample> off_the_grid() const {
    std::set<double> q, past, kv;
    for (const auto& s : all_) q.insert(s.q_len), past.insert(s.past_len), kv.insert(s.decode_kv_len);
    CsvTable csv(std::string(DSSIM_SOURCE_DIR) + "/tests/validation/data/attention_mixed_" + GetParam().gpu + ".csv",
                 {"heads", "kv_heads", "head_dim", "prefill_q_len", "prefill_past_len", "decode_batch", "decode_kv_len",
                  "seconds"});
    std::vector<MixedAttentionSample> rows;
    while (csv.next()) {
      const MixedAttentionSample s{static_cast<int>(csv.integer(0)),
                                   static_cast<int>(csv.integer(1)),
                                   static_cast<int>(csv.integer(2)),
                                   csv.number(3),
                                   csv.number(4),
                                   csv.number(5),
                                   csv.number(6),
                                   csv.number(7)};
      if (!q.count(s.q_len) || !past.count(s.past_len) || !kv.count(s.decode_kv_len)) rows.push_back(s);
    }
    return rows;
  }
  std::vector<MixedAttentionSample> all_ = profile_.mixed_attention(Precision::bf16);
  PrefillTable tiles_{profile_.attention(Precision::bf16), 2, profile_.measured_on()};
};

TEST_P(Mixed, OffTheGrid) {
  judge(MixedAttentionTable(all_, 2, tiles_, machine_), off_the_grid(), "off the grid", 0.02, 0.11);
}

TEST_P(Mixed, PlanesHeldOut) {
  const auto [kept, held] =
      split(all_, [](const MixedAttentionSample& s) { return s.past_len == 512 || s.decode_kv_len == 1024; });
  judge(MixedAttentionTable(kept, 2, tiles_, machine_), held, "a plane of two axes held out", 0.02, 0.12);
}

// Half the heads (tensor parallelism 2) from all of them and back, where both were measured.
TEST_P(Mixed, HeadsHeldOut) {
  std::set<int> heads;
  for (const auto& s : all_) heads.insert(s.heads);
  if (heads.size() < 2) GTEST_SKIP() << "one choice of heads";
  for (const int out : heads) {
    const auto [kept, held] = split(all_, [&](const MixedAttentionSample& s) { return s.heads == out; });
    judge(MixedAttentionTable(kept, 2, tiles_, machine_), held, out == 16 ? "16 heads from 32" : "32 heads from 16",
          0.06, 0.25);
  }
}

INSTANTIATE_TEST_SUITE_P(Measured, Mixed,
                         testing::Values(Case{"rtx-4090", "vllm-0.19"}, Case{"rtx-pro-6000", "vllm-0.19"}),
                         [](const auto& info) {
                           std::string name = info.param.gpu;
                           std::replace(name.begin(), name.end(), '-', '_');
                           return name;
                         });

// What one GPU's launches take over their tiles does not carry over to another: no better than the tiles alone.
TEST(MixedCarried, IsNotWorthIt) {
  const auto carried = [](const char* from, const char* to) {
    const Profile source(kProfiles, from, "vllm-0.19"), target(kProfiles, to, "vllm-0.19");
    const Machine on = Machine::of(source.measured_on()), at = Machine::of(target.measured_on());
    const PrefillTable there(source.attention(Precision::bf16), 2, source.measured_on()),
        here(target.attention(Precision::bf16), 2, target.measured_on());
    const MixedAttentionTable table(source.mixed_attention(Precision::bf16), 2, there, on);
    Errors before, after;
    for (const auto& s : target.mixed_attention(Precision::bf16)) {
      const double tiles =
          here.price(at, tiles_of(s, 2, here.tile_rows(), at), {0, 0, 0, s.heads, s.kv_heads, s.head_dim, 0}).seconds;
      before.add(tiles, s.seconds);
      after.add(tiles * std::exp(table.at(s).log), s.seconds);
    }
    before.print(std::string("mixed on ") + to + ", tiles alone");
    after.print(std::string("mixed ") + from + " -> " + to);
    return after.quantile(0.9) / before.quantile(0.9);
  };
  const double forth = carried("rtx-4090", "rtx-pro-6000"), back = carried("rtx-pro-6000", "rtx-4090");
  EXPECT_GT(std::max(forth, back), 0.95);
}

INSTANTIATE_TEST_SUITE_P(
    Measured, Kernels,
    testing::Values(Case{"h100-sxm", "dssim-1"}, Case{"h200-sxm", "dssim-1"}, Case{"h100-sxm", "vllm-0.14"},
                    Case{"h100-sxm", "torch-2.11"}, Case{"a100-sxm-80gb", "vllm-0.14"}, Case{"h200-sxm", "vllm-0.19"},
                    Case{"h200-sxm", "torch-2.11"}, Case{"rtx-4090", "vllm-0.19"}, Case{"rtx-pro-6000", "vllm-0.19"}),
    [](const auto& info) {
      std::string name = std::string(info.param.gpu) + "_" + info.param.stack;
      std::replace_if(
          name.begin(), name.end(), [](char c) { return !std::isalnum(static_cast<unsigned char>(c)); }, '_');
      return name;
    });

// Shapes drawn at random that are in no table, predicted from the profile: what calibration promises, by operator.
class Judged : public testing::TestWithParam<const char*> {};

TEST_P(Judged, UnseenShapes) {
  const ProfileReport report = report_on_profile(std::filesystem::path(kProfiles) / GetParam() / "dssim-1");
  EXPECT_GE(report.errors.size(), 7U);
  for (const auto& e : report.errors) {
    std::printf("%s/dssim-1 %-20s n %4zu  median %4.1f %%  p90 %4.1f %%  worst %4.1f %%\n", GetParam(), e.name.c_str(),
                e.shapes, 100 * e.median, 100 * e.p90, 100 * e.worst);
    EXPECT_LE(e.median, 0.04) << e.name;
    EXPECT_LE(e.p90, 0.12) << e.name;
  }
}

// report.toml is what a run's trust reads.
TEST_P(Judged, TheReportBesideTheTablesIsTheirs) {
  const Profile profile(kProfiles, GetParam(), "dssim-1");
  for (const auto& e : report_on_profile(std::filesystem::path(kProfiles) / GetParam() / "dssim-1").errors) {
    const auto kept = profile.uncertainty(e.name);
    ASSERT_TRUE(kept) << e.name << ": run dssim-calibrate --report on the profile";
    EXPECT_NEAR(kept->median, e.median, 1e-3) << e.name << ": run dssim-calibrate --report on the profile";
    EXPECT_NEAR(kept->p90, e.p90, 1e-3) << e.name;
  }
  EXPECT_FALSE(profile.uncertainty("no such operator"));
}

INSTANTIATE_TEST_SUITE_P(Profiles, Judged, testing::Values("h100-sxm", "h200-sxm"),
                         [](const auto& info) { return std::string(info.param).substr(0, 4); });

// Every third row of latent attention, and one number of heads after another.
LatentWork work_of(const LatentHeads& heads, const LatentSample& s) {
  LatentWork work;
  if (s.absorbed)
    work.add_absorbed(heads, s.batch * s.q_len, s.batch * (s.past_len + s.q_len),
                      s.batch * s.q_len * (s.past_len + (s.q_len + 1) / 2));
  else
    work.add_expanded(heads, s.q_len, s.past_len, s.batch);
  return work;
}

LatentAttentionTable::Way way_of(const LatentSample& s) {
  using Way = LatentAttentionTable::Way;
  return !s.absorbed ? Way::expanded : s.q_len == 1 ? Way::decode : Way::absorbed;
}

TEST_P(Kernels, LatentAttentionHeldOut) {
  for (const Precision kv : {Precision::bf16, Precision::fp8}) {
    const auto all = profile_.latent_attention(kv);
    if (all.empty()) continue;
    std::array<Errors, 3> rows, heads;
    const auto judge = [&](const auto& held_out, std::array<Errors, 3>& errors) {
      const auto [kept, held] = split(all, held_out);
      const LatentAttentionTable table(kept, kv, machine_);
      for (const auto& s : held) {
        const LatentHeads h{s.heads, 512, 64, 128, 128, kv};
        errors[static_cast<size_t>(way_of(s))].add(table.price(machine_, h, way_of(s), work_of(h, s)).seconds,
                                                   s.seconds);
      }
    };
    int row = 0;
    judge([&](const LatentSample&) { return ++row % 3 == 0; }, rows);
    for (const int h : {2, 4, 8, 16, 32, 64}) judge([&](const LatentSample& s) { return s.heads == h; }, heads);
    const char* ways[] = {"decode", "absorbed chunks", "expanded chunks"};
    for (size_t way = 0; way < 3; ++way) {
      if (rows[way].relative.empty()) continue;
      const std::string what = "latent attention, " + std::string(name_of(kv)) + " cache, " + ways[way];
      rows[way].print(name((what + ", every third row held out").c_str()));
      heads[way].print(name((what + ", heads held out one by one").c_str()));
      EXPECT_LT(rows[way].quantile(0.5), 0.12);
    }
  }
}

struct Transfer {
  Case from, to;
};
class Carried : public testing::TestWithParam<Transfer> {};

TEST_P(Carried, ToAnotherGpu) {
  const auto& [from, to] = GetParam();
  const Profile source(kProfiles, from.gpu, from.stack), target(kProfiles, to.gpu, to.stack);
  const Machine on = Machine::of(source.measured_on()), at = Machine::of(target.measured_on());
  const std::string name = std::string(from.gpu) + " -> " + to.gpu + " ";
  const GemmTable gemm(source.gemm(Precision::bf16), Precision::bf16, on);
  Errors memory_bound, compute_bound;
  for (const auto& s : target.gemm(Precision::bf16))
    if (practical(s))
      (s.m <= 128 ? memory_bound : compute_bound)
          .add(gemm.price(at, Precision::bf16, s.m, s.n, s.k).seconds, s.seconds);
  memory_bound.print(name + "gemm, m up to 128");
  compute_bound.print(name + "gemm, m above 128");
  const auto samples = source.attention(Precision::bf16);
  const DecodeTable decode(samples, 2, on, source.measured_on().decode_blocks_per_sm);
  const PrefillTable prefill(samples, 2, source.measured_on());
  Errors decodes, prefills;
  for (const auto& s : target.attention(Precision::bf16)) {
    if (s.q_len == 1 && s.past_len > 127 && s.head_dim == 128)
      decodes.add(decode.price(at, 2, s.heads, s.kv_heads, s.head_dim, s.batch, s.batch * (s.past_len + 1)).seconds,
                  s.seconds);
    else if (s.q_len >= 128 && s.head_dim == 128 && !prefill.empty())
      prefills.add(prefill.price(at, tiles_of(s, 2, prefill.tile_rows()), s).seconds, s.seconds);
  }
  decodes.print(name + "decode attention");
  if (!prefills.relative.empty()) prefills.print(name + "prefill attention");
  if (const auto moes = target.moe(Precision::bf16); !moes.empty()) {
    const MoeTable moe(source.moe(Precision::bf16), Precision::bf16, on);
    Errors errors;
    for (const auto& s : moes) errors.add(moe.price(at, Precision::bf16, s).seconds, s.seconds);
    errors.print(name + "moe");
  }
  const auto latents = source.latent_attention(Precision::bf16), there = target.latent_attention(Precision::bf16);
  if (!latents.empty() && !there.empty()) {
    const LatentAttentionTable table(latents, Precision::bf16, on);
    std::array<Errors, 3> errors;
    for (const auto& s : there) {
      const LatentHeads heads{s.heads, 512, 64, 128, 128, Precision::bf16};
      errors[static_cast<size_t>(way_of(s))].add(table.price(at, heads, way_of(s), work_of(heads, s)).seconds,
                                                 s.seconds);
    }
    errors[0].print(name + "latent decode");
    errors[2].print(name + "latent attention, expanded chunks");
  }
  EXPECT_LT(memory_bound.quantile(0.5), 0.25);
  if (std::string(from.stack) != "dssim-1") return;
  for (const auto& errors : {memory_bound, compute_bound, decodes, prefills})  // the same kernels on another chip
    EXPECT_LE(errors.quantile(0.5), 0.10) << name;
}

INSTANTIATE_TEST_SUITE_P(Pairs, Carried,
                         testing::Values(Transfer{{"h100-sxm", "dssim-1"}, {"h200-sxm", "dssim-1"}},
                                         Transfer{{"h200-sxm", "dssim-1"}, {"h100-sxm", "dssim-1"}},
                                         Transfer{{"h100-sxm", "torch-2.11"}, {"h200-sxm", "torch-2.11"}},
                                         Transfer{{"h100-sxm", "vllm-0.14"}, {"h200-sxm", "vllm-0.19"}},
                                         Transfer{{"a100-sxm-80gb", "vllm-0.14"}, {"h100-sxm", "vllm-0.14"}},
                                         Transfer{{"h100-sxm", "vllm-0.14"}, {"a100-sxm-80gb", "vllm-0.14"}}));

}  // namespace
}  // namespace dssim
