// SPDX-License-Identifier: Apache-2.0

#include "kernels/profile.hpp"

#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "platforms/node.hpp"
#include "sim/base/error.hpp"

namespace dssim {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kStack = R"(title = "t"
source = "s"
[measured_on]
architecture = "hopper"
bf16 = "1 TFLOPS"
memory_bandwidth = "1 GB/s"
l2 = "1 MB"
sms = 10
[memory]
context = "1 GB"
[engine]
attention = "flash-2"
graph_batch_sizes = [1, 2, 4]
)";

class ProfileFiles : public testing::Test {
 protected:
  ProfileFiles() : root_(fs::temp_directory_path() / ("dssim-profile-" + std::to_string(::getpid()))) {
    fs::create_directories(folder());
    write("stack.toml", kStack);
  }
  ~ProfileFiles() override { fs::remove_all(root_); }
  fs::path folder() const { return root_ / "g" / "s"; }
  void write(const std::string& name, std::string_view text) const {
    std::ofstream(folder() / name, std::ios::binary) << text;
  }
  // Adds to the stack's [engine].
  void write_engine(std::string_view keys) const { write("stack.toml", std::string(kStack) + std::string(keys)); }
  Profile open() const { return {root_, "g", "s"}; }
  template <typename Action>
  std::string message(const Action& action) const {
    try {
      action();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      return e.what();
    }
    return "no error";
  }
  fs::path root_;
};

TEST_F(ProfileFiles, ReadsTheStackAndOnlyTheFormatAskedFor) {
  write("gemm.csv", "dtype,m,n,k,seconds,mad\nbf16,1,2,3,1e-6,0\nfp8,4,5,6,2e-6,0\n");
  const Profile profile = open();
  EXPECT_EQ(profile.stack().graph_batch_sizes.size(), 3U);
  EXPECT_EQ(profile.measured_on().sms, 10);
  ASSERT_EQ(profile.gemm(Precision::fp8).size(), 1U);
  EXPECT_EQ(profile.gemm(Precision::fp8)[0].n, 5);
  ASSERT_EQ(profile.gemm(Precision::fp16).size(), 1U);  // read as the other 16-bit format
  EXPECT_TRUE(profile.gemm(Precision::int4).empty());
  EXPECT_TRUE(profile.moe(Precision::bf16).empty());  // no table
}

TEST_F(ProfileFiles, ATableSplitByFormatWins) {
  write("gemm.csv", "dtype,m,n,k,seconds\nbf16,1,2,3,1e-6\n");
  write("gemm.bf16.csv", "dtype,m,n,k,seconds\nbf16,7,2,3,1e-6\n");
  EXPECT_EQ(open().gemm(Precision::bf16)[0].m, 7);
}

TEST_F(ProfileFiles, DamagedTablesSayWhere) {
  write("gemm.csv", "dtype,m,n,k,seconds\nbf16,1,2,3,0\n");
  EXPECT_NE(message([&] { open().gemm(Precision::bf16); }).find("gemm.csv:2: seconds: 0 is out of range"),
            std::string::npos);
  write("gemm.csv", "dtype,m,n,k,seconds\nbf16,1,2,3\n");
  EXPECT_NE(message([&] { open().gemm(Precision::bf16); }).find("gemm.csv:2: has 4 fields"), std::string::npos);
  write("gemm.csv", "dtype,m,n,seconds\nbf16,1,2,1\n");
  EXPECT_NE(message([&] { open().gemm(Precision::bf16); }).find("column 'k' is missing"), std::string::npos);
  write("gemm.csv", "dtype,m,n,k,seconds\nbf16,1,2,nan,1\n");
  EXPECT_NE(message([&] { open().gemm(Precision::bf16); }).find("gemm.csv:2: k: 'nan'"), std::string::npos);
  write("attention_mixed.csv",
        "kv_dtype,heads,kv_heads,head_dim,q_len,past_len,decode_batch,decode_kv_len,seconds\nbf16,8,1,128,16,-1,1,16,"
        "1\n");
  EXPECT_NE(message([&] { open().mixed_attention(Precision::bf16); }).find("past_len: -1 is out of range"),
            std::string::npos);
  write("attention.csv",
        "dtype,kv_dtype,batch,q_len,past_len,heads,kv_heads,head_dim,seconds\nbf16,bf16,1,1,0,8,0,128,1\n");
  EXPECT_NE(message([&] { open().attention(Precision::bf16); }).find("kv_heads: 0 is out of range"), std::string::npos);
}

TEST_F(ProfileFiles, LatentAttentionIsReadByItsWay) {
  const std::string header = "way,kv_dtype,heads,batch,q_len,past_len,seconds\n";
  write("latent_attention.csv", header + "absorbed,bf16,16,4,1,99,1e-3\nexpanded,bf16,16,1,600,0,2e-3\n");
  const auto samples = open().latent_attention(Precision::bf16);
  ASSERT_EQ(samples.size(), 2U);
  EXPECT_TRUE(samples[0].absorbed);
  EXPECT_EQ(samples[0].past_len, 99);
  EXPECT_FALSE(samples[1].absorbed);
  EXPECT_TRUE(open().latent_attention(Precision::fp8).empty());
  write("latent_attention.csv", header + "folded,bf16,16,4,1,99,1e-3\n");
  EXPECT_NE(message([&] { open().latent_attention(Precision::bf16); }).find("way: 'folded' is neither absorbed nor"),
            std::string::npos);
  write("latent_attention.csv", header + "absorbed,bf16,0,4,1,99,1e-3\n");
  EXPECT_NE(message([&] { open().latent_attention(Precision::bf16); }).find("heads: 0 is out of range"),
            std::string::npos);
}

TEST_F(ProfileFiles, ACutOffGzipIsAnError) {
  fs::copy_file(fs::path(DSSIM_SOURCE_DIR) / "kernels/profiles/h100-sxm/torch-2.11/gemm.bf16.csv.gz",
                folder() / "gemm.bf16.csv.gz");
  fs::resize_file(folder() / "gemm.bf16.csv.gz", 3000);
  EXPECT_NE(message([&] { open().gemm(Precision::bf16); }), "no error");
}

TEST_F(ProfileFiles, StackKeysAreChecked) {
  write("stack.toml", std::string(kStack) + "launches = 3\n");
  EXPECT_NE(message([&] { open(); }).find("launches"), std::string::npos);
  std::string falling(kStack);
  falling.replace(falling.find("[1, 2, 4]"), 9, "[1, 4, 2]");
  write("stack.toml", falling);
  EXPECT_NE(message([&] { open(); }).find("graph_batch_sizes: must rise"), std::string::npos);
}

// A profile's efficiencies are defined by the figures in its stack.toml: they must be the catalogue's.
TEST(ShippedProfiles, FiguresAreTheCatalogues) {
  int profiles = 0;
  for (const auto& gpu : fs::directory_iterator(fs::path(DSSIM_SOURCE_DIR) / "kernels/profiles")) {
    if (!gpu.is_directory()) continue;
    for (const auto& stack : fs::directory_iterator(gpu.path())) {
      if (!fs::exists(stack.path() / "stack.toml")) continue;
      const Profile profile(gpu.path().parent_path(), gpu.path().filename(), stack.path().filename());
      const MeasuredGpu& on = profile.measured_on();
      const Gpu sold = load_gpu(gpu.path().filename());
      EXPECT_EQ(on.architecture, sold.architecture) << stack.path();
      EXPECT_DOUBLE_EQ(on.memory_bytes_per_s, sold.memory_bytes_per_s) << stack.path();
      EXPECT_DOUBLE_EQ(on.bf16_flops_per_s, sold.matrix_flops_per_s(Precision::bf16)) << stack.path();
      if (on.fp8_flops_per_s > 0) {
        EXPECT_DOUBLE_EQ(on.fp8_flops_per_s, sold.matrix_flops_per_s(Precision::fp8)) << stack.path();
      }
      EXPECT_DOUBLE_EQ(on.l2_bytes, sold.l2_bytes) << stack.path();
      EXPECT_DOUBLE_EQ(on.nvlink_bytes_per_s, sold.nvlink_bytes_per_s) << stack.path();
      EXPECT_EQ(on.sms, sold.sms) << stack.path();
      EXPECT_FALSE(profile.source().empty());
      ++profiles;
    }
  }
  EXPECT_GE(profiles, 8);
}

TEST_F(ProfileFiles, TheClockRecoversByTheAreaOfWhatIsLost) {
  write("power_cap.csv", "kernel,dtype,flops,burst_seconds,seconds\ngemm,bf16,1e6,1e-6,1.2e-6\n");
  write("power_burst.csv", "regime,seconds\ndecode_like,0.05\n");
  EXPECT_EQ(open().power_cap().recovery_s(), 0.05) << "a profile from before this table";
  write("power_recovery.csv", "after,seconds\n0.01,1.2\n0.03,1.1\n0.05,1\n");
  EXPECT_NEAR(open().power_cap().recovery_s(), 0.01 + 0.02 * 0.75 + 0.02 * 0.25, 1e-12);
  write("power_recovery.csv", "after,seconds\n0.01,1.2\n0.01,1.1\n");
  EXPECT_NE(message([&] { open().power_cap(); }).find("power_recovery.csv:3: after: must be later"), std::string::npos);
  write("power_recovery.csv", "after,seconds\n0.01,1\n0.02,1.1\n");
  EXPECT_NE(message([&] { open().power_cap(); }).find("the first row must take longer"), std::string::npos);
  write("power_recovery.csv", "after,seconds\n0.01,1\n");
  EXPECT_NE(message([&] { open().power_cap(); }).find("needs two rows"), std::string::npos);
}

TEST_F(ProfileFiles, DecodesHoldTheClockDownByTheMeasuredClocks) {
  write("power_cap.csv", "kernel,dtype,flops,burst_seconds,seconds\ngemm,bf16,1e6,1e-6,1.2e-6\n");
  write("power_burst.csv", "regime,seconds\ndecode_like,0.05\n");
  EXPECT_EQ(open().power_cap().held(), 0) << "no power.csv";
  const std::string head = "regime,power_w,sm_clock_mhz\nidle,120,300\nmemory_bound,600,2000\ncompute_bound,690,1500\n";
  write("power.csv", head);
  EXPECT_EQ(open().power_cap().held(), 0) << "no such row";
  write("power.csv", head + "decode_like,690,1900\n");
  EXPECT_NEAR(open().power_cap().held(), 0.2, 1e-12) << "of the highest clock, which is not the idle GPU's";
  write("power.csv", head + "decode_like,690,1400\n");
  EXPECT_EQ(open().power_cap().held(), 1);
  const Profile h200(fs::path(DSSIM_SOURCE_DIR) / "kernels/profiles", "h200-sxm", "dssim-1");
  EXPECT_NEAR(h200.power_cap().held(), (1980. - 1875) / (1980 - 1500), 1e-12);
}

TEST_F(ProfileFiles, GapsAreByTensorParallelDegree) {
  write_engine("layer_gap = \"8 us\"\n");
  EXPECT_EQ(Stack::gap_s(open().stack().layer_gap_s, 4), 8e-6);
  EXPECT_EQ(open().stack().eager_gap_s, open().stack().layer_gap_s);
  write_engine("layer_gap = [\"8 us\", \"10 us\", \"18 us\"]\n");
  const Stack stack = open().stack();
  for (const auto& [degree, gap] : {std::pair{1, 8e-6}, {2, 10e-6}, {3, 10e-6}, {4, 18e-6}, {16, 18e-6}})
    EXPECT_DOUBLE_EQ(Stack::gap_s(stack.layer_gap_s, degree), gap) << degree;
  write_engine("layer_gap = \"8 us\"\neager_gap = [\"20 us\", \"30 us\"]\n");
  EXPECT_DOUBLE_EQ(Stack::gap_s(open().stack().eager_gap_s, 8), 30e-6);
  EXPECT_DOUBLE_EQ(Stack::gap_s(open().stack().layer_gap_s, 8), 8e-6);
  write_engine("layer_gap = [\"8 us\", \"10 GB\"]\n");
  EXPECT_NE(message([&] { open(); }).find("engine.layer_gap: '10 GB' is not a time"), std::string::npos);
  write_engine("layer_gap = []\n");
  EXPECT_NE(message([&] { open(); }).find("engine.layer_gap: is an empty list"), std::string::npos);
}

}  // namespace
}  // namespace dssim
