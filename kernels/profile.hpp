// SPDX-License-Identifier: Apache-2.0
#pragma once

// A profile: measured kernel times of one GPU under one stack, kernels/profiles/<gpu>/<stack>/. The cost model
// reads what kernels/profiles/build_profiles.py and dssim-calibrate write.
//
//   stack.toml                     what was measured on, and what the engine adds (docs/profiles.md lists the keys)
//   gemm[.<format>].csv[.gz]       dtype,m,n,k,seconds: out[m,n] = in[m,k] × weights[k,n]
//   attention[.<format>].csv[.gz]  dtype,kv_dtype,batch,q_len,past_len,heads,kv_heads,head_dim,seconds: q_len 1 = decode
//   attention_mixed[.<format>].csv[.gz]  kv_dtype,heads,kv_heads,head_dim,q_len,past_len,decode_batch,decode_kv_len,
//                                  seconds: one prefill chunk and decodes in one launch, a full grid
//   latent_attention[.<format>].csv[.gz]  way,kv_dtype,heads,batch,q_len,past_len,seconds: way is absorbed or expanded,
//                                  q_len 1 = decode; 512 + 64 latent values, heads of 128 + 64 and 128
//   moe[.<format>].csv[.gz]        dtype,distribution,hidden,ffn,top_k,experts,tp,ep,tokens,seconds: distribution is
//                                  balanced or power_law
//   elementwise.csv[.gz]           kernel,dtype,rows,width,seconds
//   all_reduce, nccl .csv[.gz]     collective,gpus,bytes,seconds
//   copy.csv[.gz]                  kernel,bytes,seconds
//   power_cap.csv                  kernel,dtype,flops,burst_seconds,seconds: one kernel in a burst and under the power cap
//   power_burst.csv                regime,seconds: how long a large product keeps the highest clock after decode_like work
//   power_recovery.csv             after,seconds: decode-like work, `after` seconds from the cap
//   report.toml                    how well the tables predict shapes that are not in them (kernels/profile_report.hpp)
// A table split by number format (gemm.fp8.csv.gz) is read only where that format is asked for; in one that is not
// split, rows of other formats are passed over. Further columns are ignored. Seconds > 0, sizes > 0 (past_len and
// counts ≥ 0), each checked. Units: seconds and bytes. Errors: Error(bad_input), "file:line: column: what is wrong".

#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/power_cap.hpp"
#include "kernels/price.hpp"
#include "kernels/stack.hpp"
#include "platforms/precision.hpp"

namespace dssim {

struct GemmSample {
  double m = 0, n = 0, k = 0, seconds = 0;
};
struct AttentionSample {
  double batch = 0, q_len = 0, past_len = 0;
  int heads = 0, kv_heads = 0, head_dim = 0;
  double seconds = 0;
};
// A chunk of q_len tokens onto past_len and decode_batch decodes, each at decode_kv_len tokens of KV, in one launch.
struct MixedAttentionSample {
  int heads = 0, kv_heads = 0, head_dim = 0;
  double q_len = 0, past_len = 0, decode_batch = 0, decode_kv_len = 0;
  double seconds = 0;
};
// Latent attention with the products in and out of the latent space (kernels/latent_attention_table.hpp).
struct LatentSample {
  bool absorbed = false;
  int heads = 0;
  double batch = 0, q_len = 0, past_len = 0, seconds = 0;
};
struct MoeSample {
  double tokens = 0, hidden = 0, ffn = 0, top_k = 0, experts = 0, tp = 0, ep = 0, seconds = 0;
  bool balanced = false;  // every expert got the same tokens; else a skewed draw
};
struct ElementwiseSample {
  std::string kernel;
  double rows = 0, width = 0, seconds = 0;
};
struct CollectiveSample {
  std::string collective;
  int gpus = 0;
  double bytes = 0, seconds = 0;
};
struct CopySample {
  std::string kernel;
  double bytes = 0, seconds = 0;
};

// The figures of the GPU the tables were measured on, as far as efficiency is defined by them (SI). They stand in
// stack.toml, so that a what-if on the catalogue's figures cannot change what the measurements meant.
struct MeasuredGpu {
  double bf16_flops_per_s = 0, fp8_flops_per_s = 0;
  double memory_bytes_per_s = 0, l2_bytes = 0;
  double nvlink_bytes_per_s = 0;  // one direction; 0 = none
  int sms = 0;
  std::string architecture;          // as in the catalogue: "hopper"
  int attention_tile_rows = 128;     // query rows of one block of the attention kernel
  bool attention_writes_kv = false;  // the attention times include writing the new keys and values to the cache
  // Blocks that a multiprocessor holds of dssim-calibrate's own kernels; 0: the tables are of other kernels.
  int prefill_blocks_per_sm = 0, decode_blocks_per_sm = 0;
};

class Profile {
 public:
  // Reads stack.toml; tables when asked for. Throws where the folder or a key is wrong.
  Profile(const std::filesystem::path& root, const std::string& gpu, const std::string& stack);

  const Stack& stack() const { return stack_; }
  const MeasuredGpu& measured_on() const { return measured_on_; }
  const std::string& source() const { return source_; }  // origin, date, licence in one line
  bool complete() const { return complete_; }            // false: a calibration run that was cut short
  // The stack on the same GPU whose tables this one borrows ("" = it has its own).
  const std::string& kernels() const { return kernels_; }

  bool has(std::string_view table, std::string_view format = "") const;
  // Empty where the table is not there. The check_ tables hold shapes that are in no table, to judge a prediction by.
  std::vector<GemmSample> gemm(Precision weights, std::string_view table = "gemm") const;
  std::vector<AttentionSample> attention(Precision kv_cache, std::string_view table = "attention") const;
  std::vector<MixedAttentionSample> mixed_attention(Precision kv_cache) const;
  std::vector<LatentSample> latent_attention(Precision kv_cache) const;
  std::vector<MoeSample> moe(Precision weights, std::string_view table = "moe") const;
  std::vector<ElementwiseSample> elementwise(std::string_view table = "elementwise") const;
  std::vector<CollectiveSample> collectives(std::string_view table) const;  // "all_reduce" or "nccl"
  std::vector<CopySample> copies() const;
  PowerCap power_cap() const;  // without the tables: none

  // Error of the prediction on shapes that are in no table, by operator (kernels/profile_report.hpp names them), as
  // report.toml beside the tables says; nothing where that was not judged.
  std::optional<Uncertainty> uncertainty(std::string_view op) const;

 private:
  std::filesystem::path file(std::string_view table, std::string_view format) const;
  double held_clock() const;

  std::filesystem::path folder_;
  Stack stack_;
  MeasuredGpu measured_on_;
  std::string source_, kernels_;
  bool complete_ = true;
  mutable std::optional<std::map<std::string, Uncertainty, std::less<>>> uncertainties_;  // read when first asked for
};

}  // namespace dssim
