// SPDX-License-Identifier: Apache-2.0
#include "sim/base/config.hpp"

#include <gtest/gtest.h>

#include <functional>
#include <random>

namespace dssim {
namespace {

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& e) {
    EXPECT_EQ(e.exit_status(), 2);
    EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << "one line: " << e.what();
    return e.what();
  }
  return "no error";
}

Config parse(const std::string& text, std::vector<std::string> set = {}) {
  return Config::parse(text, "s.toml", set);
}

TEST(Config, ReadsEveryKind) {
  const Config c = parse(
      "a = 3\nb = 0.5\nc = \"x\"\nd = true\ne = [1, 2]\n[t]\nsize = \"1 GB\"\n[[list]]\nv = 1\n[[list]]\nv = 2\n");
  EXPECT_EQ(c.integer("a", {0, 9}), 3);
  EXPECT_EQ(c.number("b", {0, 1}), 0.5);
  EXPECT_EQ(c.text("c"), "x");
  EXPECT_TRUE(c.boolean("d"));
  EXPECT_EQ(c.integers("e", {0, 9}), (std::vector<int64_t>{1, 2}));
  EXPECT_EQ(c.table("t").quantity("size", Dimension::bytes), 1e9);
  EXPECT_EQ(c.table("t").quantities("size", Dimension::bytes), (std::vector<double>{1e9}));
  EXPECT_TRUE(c.quantities("sizes", Dimension::bytes).empty());
  ASSERT_EQ(c.tables("list").size(), 2u);
  EXPECT_EQ(c.tables("list")[0].integer("v", {0, 9}), 1);
  EXPECT_EQ(c.tables("list")[1].integer("v", {0, 9}), 2);
  c.finish();
}

TEST(Config, NamesFileLineAndKey) {
  const Config c = parse("[cluster]\nnodes = -1\nrate = \"4 GB\"\nname = 3\n");
  const Config t = c.table("cluster");
  EXPECT_EQ(error_of([&] { t.integer("nodes", {1, 10}); }), "s.toml:2: cluster.nodes: -1 is outside 1 to 10");
  EXPECT_EQ(error_of([&] { t.quantity("rate", Dimension::rate); }),
            "s.toml:3: cluster.rate: '4 GB' is not a rate; write e.g. \"4/s\" or \"30/min\"");
  EXPECT_EQ(error_of([&] { t.text("name"); }), "s.toml:4: cluster.name: must be text in quotes, not an integer");
  EXPECT_EQ(error_of([&] { t.text("gone"); }), "s.toml:1: cluster.gone: is missing");
}

TEST(Config, RefusesUnknownKeysWithTheNearest) {
  const Config c = parse("[serving]\nreplicas = 1\nmax_sequence = 4\n");
  const Config t = c.table("serving");
  t.integer("replicas", {1, 9});
  t.integer("max_sequences", {1, 9}, 1);
  EXPECT_EQ(error_of([&] { c.finish(); }),
            "s.toml:3: serving.max_sequence: unknown key 'max_sequence'; did you mean 'max_sequences'?");
}

TEST(Config, AssignmentsReplaceAndAdd) {
  const Config c = parse("[workload]\nrate = \"4/s\"\n",
                         {"workload.rate=8/s", "serving.replicas=2", "cluster.override.gpu.memory_bandwidth=4.8 TB/s"});
  EXPECT_EQ(c.table("workload").quantity("rate", Dimension::rate), 8);
  EXPECT_EQ(c.table("serving").integer("replicas", {1, 9}), 2);
  EXPECT_EQ(c.table("cluster").table("override").quantity("gpu.memory_bandwidth", Dimension::bandwidth), 4.8e12);
  const Config bad = parse("", {"workload.rate=8"});
  EXPECT_EQ(error_of([&] { bad.table("workload").quantity("rate", Dimension::rate); }),
            "--set workload.rate=8: workload.rate: the unit is missing; write e.g. \"4/s\" or \"30/min\"");
  EXPECT_NE(error_of([&] { parse("", {"rate"}); }).find("write key.path=value"), std::string::npos);
  EXPECT_NE(error_of([&] { parse("a = 1", {"a.b=1"}); }).find("a is not a table"), std::string::npos);
}

TEST(Config, SyntaxErrorsCarryTheLine) {
  EXPECT_TRUE(error_of([] { parse("a = 1\nb = = 2\n"); }).starts_with("s.toml:2: not valid TOML"));
  EXPECT_TRUE(error_of([] { Config::load("/nonexistent/x.toml"); }).find("no such file") != std::string::npos);
}

TEST(Config, HugeIntegersAreNumbers) {
  const Config c = parse("a = 9223372036854775807\nb = [9223372036854775807]\n");
  EXPECT_EQ(c.quantity("a", Dimension::count), 0x1p63);
  EXPECT_EQ(c.numbers("b", {0, 1e30}).front(), 0x1p63);
  EXPECT_EQ(error_of([&] { c.number("a", {0, 1}); }), "s.toml:1: a: 9.223372036854776e+18 is outside 0 to 1");
}

// Seeded mutations of a valid document: whatever comes out, reading it must end in a value or in Error(bad_input).
TEST(Config, MutatedDocumentsNeverEscape) {
  const std::string valid =
      "title = \"x\"\nseed = 42\n[cluster]\nnode = \"dgx-h100\"\nnodes = 1\n[workload]\nrate = \"4/s\"\nprompt = { "
      "tokens = 575 }\n";
  std::mt19937 random(7);
  int errors = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string text = valid;
    for (int edits = 1 + static_cast<int>(random() % 4); edits > 0; --edits) {
      const size_t at = random() % text.size();
      switch (random() % 3) {
        case 0:
          text[at] = static_cast<char>(random() % 256);
          break;
        case 1:
          text.erase(at, 1 + random() % 5);
          break;
        default:
          text.insert(at, 1, "\"[]{}=.,\n#0-e"[random() % 13]);
      }
      if (text.empty()) text = "x";
    }
    try {
      const Config c = parse(text);
      c.text("title", "");
      c.integer("seed", {0, 100}, 1);
      if (const auto t = c.find_table("cluster")) t->text("node", ""), t->integer("nodes", {1, 10}, 1);
      if (const auto t = c.find_table("workload")) {
        t->find_quantity("rate", Dimension::rate);
        if (const auto p = t->find_table("prompt")) p->find_integer("tokens", {1, 1000});
      }
      c.finish();
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::bad_input);
      ++errors;
    }
  }
  EXPECT_GT(errors, 1000);  // the mutations do bite
}

}  // namespace
}  // namespace dssim
