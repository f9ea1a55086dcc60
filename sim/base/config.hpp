// SPDX-License-Identifier: Apache-2.0
#pragma once

// Reading TOML (scenarios, catalogue entries, stack files) with errors that a user can act on.
//
// Every error reads "file:line: key.path: what is wrong, and what would be valid". Keys are remembered as they are
// asked for; finish() then refuses every key that nobody asked for, naming the nearest one that was.
//
//   Config file = Config::load("quickstart.toml", {{"cluster.gpus=4"}});
//   Config cluster = file.table("cluster");
//   int64_t nodes = cluster.integer("nodes", {1, 100000}, 1);          // range, default
//   double rate = file.table("workload").quantity("rate", Dimension::rate);
//   file.finish();
//
// A Config is a cheap handle on one table; it keeps the document alive.

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/error.hpp"
#include "sim/base/units.hpp"

namespace dssim {

template <typename T>
struct Range {
  T least, most;
};

class Config {
 public:
  // `assignments` are "key.path=value" texts that replace or add keys (the --set option). The value is read as TOML
  // where it is valid TOML, else as a string. Everything after "cluster.override." is one key, since its keys contain
  // dots.
  static Config load(const std::string& path, std::span<const std::string> assignments = {});
  static Config parse(std::string_view text, const std::string& name, std::span<const std::string> assignments = {});

  bool has(std::string_view key) const;
  std::vector<std::string> keys() const;  // in the order of the file

  // Without a fallback the key must be there. find_* give nullopt where the key is absent.
  std::string text(std::string_view key) const;
  std::string text(std::string_view key, std::string_view fallback) const;
  std::optional<std::string> find_text(std::string_view key) const;
  // One of `allowed`; the error names the nearest.
  std::string choice(std::string_view key, std::span<const std::string> allowed) const;
  std::string choice(std::string_view key, std::span<const std::string> allowed, std::string_view fallback) const;

  double quantity(std::string_view key, Dimension dimension) const;
  double quantity(std::string_view key, Dimension dimension, double fallback) const;
  std::optional<double> find_quantity(std::string_view key, Dimension dimension) const;
  // A list of them, or one for a list of one; empty where the key is absent.
  std::vector<double> quantities(std::string_view key, Dimension dimension) const;

  int64_t integer(std::string_view key, Range<int64_t> range) const;
  int64_t integer(std::string_view key, Range<int64_t> range, int64_t fallback) const;
  std::optional<int64_t> find_integer(std::string_view key, Range<int64_t> range) const;

  double number(std::string_view key, Range<double> range) const;
  double number(std::string_view key, Range<double> range, double fallback) const;
  std::optional<double> find_number(std::string_view key, Range<double> range) const;

  bool boolean(std::string_view key) const;
  bool boolean(std::string_view key, bool fallback) const;

  std::vector<int64_t> integers(std::string_view key, Range<int64_t> range) const;
  std::vector<double> numbers(std::string_view key, Range<double> range) const;
  std::vector<std::string> texts(std::string_view key) const;

  Config table(std::string_view key) const;
  std::optional<Config> find_table(std::string_view key) const;
  std::vector<Config> tables(std::string_view key) const;  // an array of tables; empty where absent

  enum class Kind { absent, text, integer, number, boolean, table, array, other };
  Kind kind(std::string_view key) const;

  // Refuses keys of this table, and of the tables opened through it, that were never asked for.
  void finish() const;

  // Every key asked for so far, as "table.key", sorted: what the readers understand (the scenario reference is tested
  // by it).
  std::vector<std::string> asked_keys() const;

  // An error at `key` (or at this table where the key is absent), to be thrown by the caller.
  Error error(std::string_view key, std::string_view message) const;
  std::string where(std::string_view key) const;  // "file:line: key.path"
  const std::string& file() const;

 private:
  struct Document;
  struct Node;
  Config(std::shared_ptr<Document> document, const void* table, std::string path);
  const void* find(std::string_view key) const;
  const void* require(std::string_view key) const;
  double quantity_at(std::string_view key, const void* node, Dimension dimension) const;

  std::shared_ptr<Document> document_;
  const void* table_;  // toml::table, hidden so that only config.cpp includes toml++
  std::string path_;
};

}  // namespace dssim
