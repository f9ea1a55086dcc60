// SPDX-License-Identifier: Apache-2.0
#include "platforms/catalogue.hpp"

#include <gtest/gtest.h>

#include <unistd.h>
#include <cmath>

#include <filesystem>
#include <fstream>
#include <functional>
#include <random>

#include "platforms/cluster_network.hpp"
#include "sim/base/error.hpp"
#include "sim/base/files.hpp"

namespace dssim {
namespace {

std::string message_of(const std::function<void()>& work) {
  try {
    work();
  } catch (const Error& e) {
    return e.what();
  }
  return "no error";
}

// reads the whole catalogue: any entry with an unknown key, without a source, or with a wrong unit throws here
TEST(CatalogueTest, EveryEntryReadsAndEveryFigureHasASource) {
  Catalogue catalogue;
  size_t figures = 0;
  for (const CatalogueKind kind : catalogue_kinds()) {
    const auto names = catalogue.names(kind);
    EXPECT_FALSE(names.empty()) << name_of(kind);
    for (const auto& name : names) {
      const Entry& entry = catalogue.entry(kind, name);
      for (const auto& [key, figure] : entry.figures) {
        EXPECT_GE(figure.source.size(), 4u) << entry.file << " " << key;
        EXPECT_TRUE(std::isfinite(figure.value));
        ++figures;
      }
    }
  }
  EXPECT_GT(figures, 1000u);
}

TEST(CatalogueTest, HoldsTheAcceleratorsReliedOn) {
  Catalogue catalogue;
  for (const char* name : {"h100-sxm",
                           "h100-pcie",
                           "h200-sxm",
                           "a100-sxm-80gb",
                           "a100-sxm-40gb",
                           "a100-pcie-80gb",
                           "a100-pcie-40gb",
                           "a40",
                           "l40s",
                           "l4",
                           "rtx-4090",
                           "rtx-5090",
                           "rtx-pro-6000",
                           "t4",
                           "v100-sxm",
                           "v100-pcie",
                           "h100-nvl",
                           "h200-nvl",
                           "gh200",
                           "h800-sxm",
                           "a800-sxm",
                           "h20",
                           "b200",
                           "gb200",
                           "b300",
                           "gb300",
                           "mi250x",
                           "mi300x",
                           "mi325x",
                           "mi355x",
                           "jetson-agx-orin",
                           "jetson-orin-nx",
                           "jetson-orin-nano",
                           "jetson-nano"}) {
    const Gpu gpu = load_gpu(catalogue, name);
    EXPECT_GT(gpu.memory_bytes, 1e9) << name;
    EXPECT_GT(gpu.matrix_flops_per_s(Precision::bf16), 1e11) << name;
    EXPECT_GT(gpu.pcie_bytes_per_s, 1e9) << name;
    EXPECT_GT(gpu.tdp_w, 0) << name;
    EXPECT_GT(gpu.sms, 0) << name;
    EXPECT_GT(gpu.clock_hz, 1e8) << name;
  }
}

// Every node resolves with its GPU, CPU, NIC and drive, alone and two by a fabric.
TEST(CatalogueTest, EveryNodeAndFabricMakesACluster) {
  Catalogue catalogue;
  for (const auto& name : catalogue.names(CatalogueKind::node)) {
    const Cluster one = make_cluster(name);
    EXPECT_GT(one.node.host_memory_bytes_per_s, 0) << name;
    EXPECT_GT(one.power_w(), 0) << name;
    if (!one.node.drive.empty()) EXPECT_EQ(load_storage(catalogue, one.node.drive).scope, "node") << name;
    for (const auto& fabric : catalogue.names(CatalogueKind::fabric)) {
      const ClusterNetwork network(make_cluster(name, 2, fabric));
      const Path path = network.path(network.gpu(0), network.gpu(static_cast<int>(network.endpoint_count()) - 3));
      EXPECT_GT(path.bytes_per_s, 1e6) << name << " " << fabric;
      EXPECT_GT(path.latency_s, 0) << name << " " << fabric;
    }
  }
  for (const auto& name : catalogue.names(CatalogueKind::storage)) load_storage(catalogue, name);
}

TEST(CatalogueTest, DenseRatesOnly) {
  // Published dense rates; the sparse ones are twice these.
  EXPECT_DOUBLE_EQ(load_gpu("h100-sxm").matrix_flops_per_s(Precision::fp8), 1979e12);
  EXPECT_DOUBLE_EQ(load_gpu("a100-sxm-80gb").matrix_flops_per_s(Precision::bf16), 312e12);
  EXPECT_DOUBLE_EQ(load_gpu("a100-sxm-80gb").matrix_flops_per_s(Precision::fp8), 312e12);    // no such unit
  EXPECT_DOUBLE_EQ(load_gpu("t4").matrix_flops_per_s(Precision::bf16), 65e12);               // in FP16
  EXPECT_DOUBLE_EQ(load_gpu("h100-sxm").matrix_flops_per_s(Precision::int4), 989e12);        // dequantised
  EXPECT_DOUBLE_EQ(load_gpu("jetson-agx-orin").matrix_flops_per_s(Precision::int8), 85e12);  // not 275 TOPS
  EXPECT_DOUBLE_EQ(load_gpu("jetson-nano").matrix_flops_per_s(Precision::bf16), 0.472e12);
}

TEST(CatalogueTest, EveryKeyIsDocumented) {
  const std::string page = read_file(std::filesystem::path(DSSIM_SOURCE_DIR) / "docs/catalogue.md");
  for (const CatalogueKind kind : catalogue_kinds()) {
    const size_t section = page.find("### `" + std::string(name_of(kind)) + "`");
    ASSERT_NE(section, std::string::npos);
    const std::string text = page.substr(section, page.find("\n##", section + 4) - section);
    for (const auto& spec : figure_specs(kind))
      EXPECT_NE(text.find("| `" + std::string(spec.key) + "`"), std::string::npos) << spec.key;
    for (const auto& spec : word_specs(kind))
      EXPECT_NE(text.find("| `" + std::string(spec.key) + "`"), std::string::npos) << spec.key;
  }
}

class FolderOfOne : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_ / "nics"); }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  void write(const std::string& text) const { std::ofstream(folder_ / "nics/x.toml") << text; }
  std::string error() const {
    return message_of([&] {
      Catalogue catalogue(folder_);
      catalogue.entry(CatalogueKind::nic, "x");
    });
  }
  const std::filesystem::path folder_ =
      std::filesystem::temp_directory_path() / ("dssim_catalogue_test_" + std::to_string(getpid()));
};

TEST_F(FolderOfOne, RefusesWhatIsWrongAndSaysWhatIsRight) {
  const std::string head = "title = \"X\"\nprotocol = \"ethernet\"\n[figures]\n";
  const auto expect = [&](const std::string& line, const std::string& part) {
    write(head + line + "\n");
    EXPECT_NE(error().find(part), std::string::npos) << line << "\n" << error();
  };
  expect("rate = { value = \"10 Gb/s\", kind = \"datasheet\" }", "x.toml:4: figures.rate.source: is missing");
  expect("rate = { value = \"10 Gb/s\", kind = \"datasheet\", source = \"\" }",
         "must name where the figure comes from");
  expect("rate = { value = \"10 Gb/s\", kind = \"datashet\", source = \"s\" }", "did you mean 'datasheet'?");
  expect("rate = { value = \"10 W\", kind = \"datasheet\", source = \"s\" }", "'10 W' is not a bandwidth");
  expect("rate = { value = 10, kind = \"datasheet\", source = \"s\" }", "the unit is missing");
  expect("rate = { value = \"0 Gb/s\", kind = \"datasheet\", source = \"s\" }", "must be more than zero");
  expect("rate = { value = \"nan Gb/s\", kind = \"datasheet\", source = \"s\" }", "must be finite");
  expect("rat = { value = \"10 Gb/s\", kind = \"datasheet\", source = \"s\" }", "is missing");
  expect("rate = { value = \"10 Gb/s\", kind = \"datasheet\", source = \"s\" }\npowr = 3", "did you mean 'power'?");
  expect("rate = \"10 Gb/s\"", "must be a table");
  write(head + "rate = { value = \"10 Gb/s\", kind = \"datasheet\", source = \"s\" }\n");
  EXPECT_EQ(error(), "no error");
}

TEST_F(FolderOfOne, RefusesNamesThatLeaveTheFolder) {
  Catalogue catalogue(folder_);
  for (const char* name : {"../nics/x", "/etc/passwd", "", ".", "..", "x/../x", "X"})
    EXPECT_THROW(catalogue.entry(CatalogueKind::nic, name), Error) << name;
}

// Every mutation of a valid entry ends in a valid entry or in an Error: no crash, no other exception.
TEST_F(FolderOfOne, SurvivesMutations) {
  const std::string valid = read_file(data_root() / "platforms/catalogue/nics/connectx-7-ndr400.toml");
  std::mt19937 random(7);
  const std::string_view alphabet = "\"{}[]=,.#\n 09-+eEnaif/GbTs\\u\x80\xff\0";
  int fine = 0, refused = 0;
  for (int round = 0; round < 1500; ++round) {
    std::string text = valid;
    for (unsigned edits = random() % 4 + 1; edits > 0; --edits) {
      const size_t at = random() % (text.size() + 1);
      switch (random() % 4) {
        case 0:
          text.erase(at, random() % 20 + 1);
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.insert(at, text.substr(random() % (text.size() + 1), random() % 40));
          break;
        case 3:
          text.resize(std::max<size_t>(at, 1));
          break;
      }
      if (text.empty()) text = "=";
    }
    write(text);
    try {
      Catalogue catalogue(folder_);
      const Entry& entry = catalogue.entry(CatalogueKind::nic, "x");
      EXPECT_GT(entry.figure("rate"), 0);
      ++fine;
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos);
      ++refused;
    }
  }
  EXPECT_GT(fine, 20);
  EXPECT_GT(refused, 500);
}

Cluster from(const std::string& text) {
  const Config config = Config::parse(text, "s.toml");
  const Cluster cluster = read_cluster(config.table("cluster"));
  config.finish();
  return cluster;
}

TEST(ClusterTest, ReadsAScenario) {
  const Cluster c =
      from("[cluster]\nnode = \"dgx-h100\"\nnodes = 4\ngpus = 8\nfabric = \"ndr400-rail\"\nstorage = \"local-nvme\"");
  EXPECT_EQ(c.gpu.name, "h100-sxm");
  EXPECT_EQ(c.gpus, 8);
  EXPECT_EQ(c.gpus_per_node(), 2);
  EXPECT_EQ(c.node_of(3), 1);
  EXPECT_EQ(c.slot_of(3), 1);
  EXPECT_EQ(c.nics_per_node(), 8);
  EXPECT_DOUBLE_EQ(c.power_w(), 4 * 10200);
  EXPECT_DOUBLE_EQ(c.price_usd(), 4 * 270000);
  EXPECT_EQ(c.storage->scope, "node");
  EXPECT_EQ(c.entries.size(), 6u);  // gpu, node, fabric, nic, cpu, storage
}

TEST(ClusterTest, OverridesAnyFigureAndWord) {
  const Cluster c = from(
      "[cluster]\nnode = \"dgx-h100\"\n[cluster.override]\n\"gpu.memory_bandwidth\" = \"4.8 TB/s\"\n\"node.gpus\" = 4\n"
      "\"node.gpu\" = \"h200-sxm\"\n\"cpu.cores\" = 8");
  EXPECT_EQ(c.gpu.name, "h200-sxm");
  EXPECT_DOUBLE_EQ(c.gpu.memory_bytes_per_s, 4.8e12);
  EXPECT_EQ(c.gpus, 4);
  EXPECT_EQ(c.node.cpu_cores, 16);
  for (const Entry& entry : c.entries)
    if (entry.kind == CatalogueKind::gpu) EXPECT_EQ(entry.figures.at("memory_bandwidth").kind, FigureKind::scenario);
}

TEST(ClusterTest, AbsurdSizesEndInAnError) {
  const Cluster c = from(
      "[cluster]\nnode = \"dgx-h100\"\nnodes = 100000\nfabric = \"ndr400-rail\"\n[cluster.override]\n\"node.nics\" = "
      "1000000");
  EXPECT_THROW(ClusterNetwork{c}, Error);
}

TEST(ClusterTest, ErrorsNameTheKeyAndTheRemedy) {
  const auto error = [](const std::string& text) { return message_of([&] { from("[cluster]\n" + text); }); };
  EXPECT_EQ(error("node = \"dgx-h10\""), "s.toml:2: cluster.node: unknown node 'dgx-h10'; did you mean 'dgx-h100'?");
  EXPECT_EQ(error("node = \"dgx-h100\"\ngpus = 9"), "s.toml:3: cluster.gpus: 9 GPUs asked for, but 1 × dgx-h100 has 8");
  EXPECT_NE(error("node = \"dgx-h100\"\nnodes = 2").find("cluster.fabric: is missing: 2 nodes need one"),
            std::string::npos);
  EXPECT_NE(error("node = \"dgx-h100\"\nnodes = 0").find("outside 1 to"), std::string::npos);
  EXPECT_NE(error("node = \"dgx-h100\"\nnodes = 4\ngpus = 2\nfabric = \"eth10\"").find("use at most 2 nodes"),
            std::string::npos);
  EXPECT_NE(error("node = \"dgx-h100\"\nfabrik = \"eth10\"").find("did you mean 'fabric'?"), std::string::npos);
  const std::string o = "node = \"dgx-h100\"\n[cluster.override]\n";
  EXPECT_EQ(error(o + "\"gpu.memory_bandwith\" = \"4 TB/s\""),
            "s.toml:4: cluster.override.gpu.memory_bandwith: unknown figure 'gpu.memory_bandwith'; did you mean "
            "'gpu.memory_bandwidth'?");
  EXPECT_NE(error(o + "\"gpu.memory_bandwidth\" = \"4 TB\"").find("'4 TB' is not a bandwidth"), std::string::npos);
  EXPECT_NE(error(o + "\"gpu.memory\" = \"-1 GB\"").find("must not be negative"), std::string::npos);
  EXPECT_NE(error(o + "\"gpu.memory\" = \"0 GB\"").find("must be more than zero"), std::string::npos);
  EXPECT_NE(error(o + "\"gpu.memory_bandwidth\" = \"1e-9 B/s\"").find("must lie between 1 kB/s and 1000 PB/s"),
            std::string::npos);
  EXPECT_NE(error(o + "\"node.link_latency\" = \"1e300 s\"").find("must lie between"), std::string::npos);
  EXPECT_NE(error(o + "\"node.gpus\" = 2.5").find("must be a whole number"), std::string::npos);
  EXPECT_NE(error(o + "\"node.gpus\" = 1e300").find("must be a whole number"), std::string::npos);
  EXPECT_NE(error(o + "\"node.sockets\" = 1000001").find("must be a whole number of at most 1000000"),
            std::string::npos);
  EXPECT_NE(error(o + "\"node.interconnect\" = \"nvswich\"").find("did you mean 'nvswitch'?"), std::string::npos);
  EXPECT_NE(error(o + "\"fabric.port\" = \"1 Gb/s\"").find("this cluster uses no fabric to change"), std::string::npos);
  EXPECT_NE(error(o + "\"node.pcie_efficiency\" = 1.5").find("must not be more than 1"), std::string::npos);
  EXPECT_NE(error(o + "\"node.gpu\" = \"h101\"").find("unknown gpu 'h101'"), std::string::npos);
  EXPECT_NE(error(o + "gpu = 3").find("unknown figure"), std::string::npos);
}

}  // namespace
}  // namespace dssim
