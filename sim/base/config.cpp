// SPDX-License-Identifier: Apache-2.0
#include "sim/base/config.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <map>
#include <set>

#include "sim/base/files.hpp"
#include "sim/base/names.hpp"

namespace dssim {

struct Config::Document {
  std::string name;
  toml::table root;
  std::map<const toml::table*, std::set<std::string, std::less<>>> asked;
  std::map<const toml::table*, std::string> paths;      // tables handed out, for finish()
  std::map<std::string, std::string, std::less<>> set;  // key path → the assignment that gave it its value
};

namespace {

constexpr std::string_view kOpaqueTable = "cluster.override.";

const toml::node* as_node(const void* p) {
  return static_cast<const toml::node*>(p);
}
const toml::table& as_table(const void* p) {
  return *static_cast<const toml::table*>(p);
}

// toml++'s own conversion refuses integers that no double holds exactly.
double number_in(const toml::node& node) {
  return node.is_integer() ? static_cast<double>(**node.as_integer()) : **node.as_floating_point();
}

std::string joined(const std::string& path, std::string_view key) {
  return path.empty() ? std::string(key) : fmt::format("{}.{}", path, key);
}

// Splits "a.b.c" at its dots. Quotes protect dots; so does the opaque table.
std::vector<std::string> split_path(std::string_view path, const std::string& assignment) {
  std::vector<std::string> parts;
  std::string part;
  char quote = 0;
  for (size_t i = 0; i < path.size(); ++i) {
    const char c = path[i];
    if (quote != 0) {
      if (c == quote)
        quote = 0;
      else
        part += c;
    } else if (c == '"' || c == '\'') {
      quote = c;
    } else if (c == '.' && !(i >= kOpaqueTable.size() && path.starts_with(kOpaqueTable))) {
      parts.push_back(std::move(part));
      part.clear();
    } else if (c != ' ') {
      part += c;
    }
  }
  parts.push_back(std::move(part));
  for (const auto& p : parts)
    if (p.empty())
      throw bad_input(fmt::format("--set {}: write key.path=value, e.g. --set cluster.gpus=4", assignment));
  return parts;
}

void insert_value(toml::table& into, const std::string& key, const std::string& value) {
  try {
    toml::table parsed = toml::parse("value = " + value + "\n");
    if (parsed.size() == 1) {
      into.insert_or_assign(key, std::move(*parsed.get("value")));
      return;
    }
  } catch (const toml::parse_error&) {
    // Not TOML, so it is meant as plain text: "4/s", "fp8".
  }
  into.insert_or_assign(key, value);
}

void assign(toml::table& root, const std::string& assignment, std::map<std::string, std::string, std::less<>>& origin) {
  const auto equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0)
    throw bad_input(fmt::format("--set {}: write key.path=value, e.g. --set cluster.gpus=4", assignment));
  const auto parts = split_path(std::string_view(assignment).substr(0, equals), assignment);
  toml::table* table = &root;
  std::string path;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    path = joined(path, parts[i]);
    toml::node* next = table->get(parts[i]);
    if (next == nullptr) next = &*table->insert(parts[i], toml::table{}).first->second.as_table();
    if (!next->is_table()) throw bad_input(fmt::format("--set {}: {} is not a table", assignment, path));
    table = next->as_table();
  }
  insert_value(*table, parts.back(), assignment.substr(equals + 1));
  origin[joined(path, parts.back())] = assignment;
}

std::string_view type_word(const toml::node& node) {
  if (node.is_string()) return "text";
  if (node.is_integer()) return "an integer";
  if (node.is_floating_point()) return "a number";
  if (node.is_boolean()) return "true/false";
  if (node.is_table()) return "a table";
  if (node.is_array()) return "a list";
  return "a date or time";
}

}  // namespace

Config::Config(std::shared_ptr<Document> document, const void* table, std::string path)
    : document_(std::move(document)), table_(table), path_(std::move(path)) {
  document_->paths.emplace(&as_table(table_), path_);
}

Config Config::load(const std::string& path, std::span<const std::string> assignments) {
  std::error_code code;
  if (std::filesystem::is_fifo(path, code)) throw bad_input(fmt::format("{}: is a pipe: save it as a file", path));
  return parse(read_file(path), path, assignments);
}

Config Config::parse(std::string_view text, const std::string& name, std::span<const std::string> assignments) {
  auto document = std::make_shared<Document>();
  document->name = name;
  try {
    document->root = toml::parse(text, name);
  } catch (const toml::parse_error& e) {
    throw bad_input(fmt::format("{}:{}: not valid TOML: {}", name, e.source().begin.line, e.description()));
  }
  for (const auto& assignment : assignments) assign(document->root, assignment, document->set);
  const void* root = &document->root;
  return {std::move(document), root, ""};
}

const void* Config::find(std::string_view key) const {
  const toml::table& table = as_table(table_);
  document_->asked[&table].emplace(key);
  return table.get(key);
}

const void* Config::require(std::string_view key) const {
  const void* node = find(key);
  if (node == nullptr) throw error(key, "is missing");
  return node;
}

bool Config::has(std::string_view key) const {
  return as_table(table_).contains(key);
}

std::vector<std::string> Config::keys() const {
  std::vector<std::pair<toml::source_position, std::string>> found;
  for (const auto& [key, node] : as_table(table_)) found.emplace_back(node.source().begin, std::string(key.str()));
  std::stable_sort(found.begin(), found.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<std::string> names;
  for (auto& [position, name] : found) names.push_back(std::move(name));
  return names;
}

Config::Kind Config::kind(std::string_view key) const {
  const auto* node = as_table(table_).get(key);
  if (node == nullptr) return Kind::absent;
  if (node->is_string()) return Kind::text;
  if (node->is_integer()) return Kind::integer;
  if (node->is_floating_point()) return Kind::number;
  if (node->is_boolean()) return Kind::boolean;
  if (node->is_table()) return Kind::table;
  if (node->is_array()) return Kind::array;
  return Kind::other;
}

std::string Config::where(std::string_view key) const {
  const std::string path = joined(path_, key);
  // The option that gave this key, or a table around it.
  for (auto end = path.size(); end != std::string::npos && end > 0; end = path.rfind('.', end - 1))
    if (const auto set = document_->set.find(path.substr(0, end)); set != document_->set.end())
      return fmt::format("--set {}: {}", set->second, path);
  const toml::node* node = key.empty() ? nullptr : as_table(table_).get(key);
  auto line = node != nullptr ? node->source().begin.line : as_table(table_).source().begin.line;
  if (node != nullptr && node->source().begin.line == 0)  // a table that options alone brought about
    for (const auto& [given, text] : document_->set)
      if (given.starts_with(path + ".")) return fmt::format("--set {}: {}", text, path);
  if (line == 0) line = 1;
  return path.empty() ? fmt::format("{}:{}", document_->name, line)
                      : fmt::format("{}:{}: {}", document_->name, line, path);
}

Error Config::error(std::string_view key, std::string_view message) const {
  return bad_input(fmt::format("{}: {}", where(key), message));
}

const std::string& Config::file() const {
  return document_->name;
}

std::optional<std::string> Config::find_text(std::string_view key) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return std::nullopt;
  if (!node->is_string()) throw error(key, fmt::format("must be text in quotes, not {}", type_word(*node)));
  return **node->as_string();
}
std::string Config::text(std::string_view key) const {
  require(key);
  return *find_text(key);
}
std::string Config::text(std::string_view key, std::string_view fallback) const {
  return find_text(key).value_or(std::string(fallback));
}

std::string Config::choice(std::string_view key, std::span<const std::string> allowed) const {
  const std::string value = text(key);
  for (const auto& word : allowed)
    if (word == value) return value;
  throw error(key, unknown_name("value", value, allowed));
}
std::string Config::choice(std::string_view key, std::span<const std::string> allowed,
                           std::string_view fallback) const {
  return find(key) == nullptr ? std::string(fallback) : choice(key, allowed);
}

double Config::quantity_at(std::string_view key, const void* at, Dimension dimension) const {
  const toml::node& node = *as_node(at);
  if (const auto* text = node.as_string()) {
    try {
      return parse_quantity(text->get(), dimension);
    } catch (const Error& e) {
      throw error(key, e.what());
    }
  }
  const bool unitless = dimension == Dimension::ratio || dimension == Dimension::count;
  if (!node.is_number())
    throw error(key, fmt::format("must be a {}, e.g. {}, not {}", dimension_name(dimension),
                                 dimension_example(dimension), type_word(node)));
  if (!unitless) throw error(key, fmt::format("the unit is missing; write e.g. {}", dimension_example(dimension)));
  const double value = number_in(node);
  if (!std::isfinite(value) || value < 0) throw error(key, "must be a finite number, zero or more");
  return value;
}
std::optional<double> Config::find_quantity(std::string_view key, Dimension dimension) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return std::nullopt;
  return quantity_at(key, node, dimension);
}
std::vector<double> Config::quantities(std::string_view key, Dimension dimension) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return {};
  if (!node->is_array()) return {quantity_at(key, node, dimension)};
  if (node->as_array()->empty()) throw error(key, "is an empty list");
  std::vector<double> values;
  for (const auto& element : *node->as_array()) values.push_back(quantity_at(key, &element, dimension));
  return values;
}
double Config::quantity(std::string_view key, Dimension dimension) const {
  require(key);
  return *find_quantity(key, dimension);
}
double Config::quantity(std::string_view key, Dimension dimension, double fallback) const {
  return find_quantity(key, dimension).value_or(fallback);
}

std::optional<int64_t> Config::find_integer(std::string_view key, Range<int64_t> range) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return std::nullopt;
  if (!node->is_integer()) throw error(key, fmt::format("must be an integer, not {}", type_word(*node)));
  const int64_t value = **node->as_integer();
  if (value < range.least || value > range.most)
    throw error(key, fmt::format("{} is outside {} to {}", value, range.least, range.most));
  return value;
}
int64_t Config::integer(std::string_view key, Range<int64_t> range) const {
  require(key);
  return *find_integer(key, range);
}
int64_t Config::integer(std::string_view key, Range<int64_t> range, int64_t fallback) const {
  return find_integer(key, range).value_or(fallback);
}

std::optional<double> Config::find_number(std::string_view key, Range<double> range) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return std::nullopt;
  if (!node->is_number()) throw error(key, fmt::format("must be a number, not {}", type_word(*node)));
  const double value = number_in(*node);
  if (!(value >= range.least && value <= range.most))
    throw error(key, fmt::format("{} is outside {} to {}", value, range.least, range.most));
  return value;
}
double Config::number(std::string_view key, Range<double> range) const {
  require(key);
  return *find_number(key, range);
}
double Config::number(std::string_view key, Range<double> range, double fallback) const {
  return find_number(key, range).value_or(fallback);
}

bool Config::boolean(std::string_view key) const {
  const toml::node* node = as_node(require(key));
  if (!node->is_boolean()) throw error(key, fmt::format("must be true or false, not {}", type_word(*node)));
  return **node->as_boolean();
}
bool Config::boolean(std::string_view key, bool fallback) const {
  return find(key) == nullptr ? fallback : boolean(key);
}

std::vector<double> Config::numbers(std::string_view key, Range<double> range) const {
  const toml::node* node = as_node(require(key));
  if (!node->is_array()) throw error(key, fmt::format("must be a list of numbers, not {}", type_word(*node)));
  std::vector<double> values;
  for (const auto& element : *node->as_array()) {
    if (!element.is_number())
      throw error(key, fmt::format("must be a list of numbers, but holds {}", type_word(element)));
    const double value = number_in(element);
    if (!(value >= range.least && value <= range.most))
      throw error(key, fmt::format("{} is outside {} to {}", value, range.least, range.most));
    values.push_back(value);
  }
  return values;
}

std::vector<int64_t> Config::integers(std::string_view key, Range<int64_t> range) const {
  const toml::node* node = as_node(require(key));
  if (!node->is_array()) throw error(key, fmt::format("must be a list of integers, not {}", type_word(*node)));
  std::vector<int64_t> values;
  for (const auto& element : *node->as_array()) {
    if (!element.is_integer())
      throw error(key, fmt::format("must be a list of integers, but holds {}", type_word(element)));
    const int64_t value = **element.as_integer();
    if (value < range.least || value > range.most)
      throw error(key, fmt::format("{} is outside {} to {}", value, range.least, range.most));
    values.push_back(value);
  }
  return values;
}

std::vector<std::string> Config::texts(std::string_view key) const {
  const toml::node* node = as_node(require(key));
  if (!node->is_array()) throw error(key, fmt::format("must be a list of texts, not {}", type_word(*node)));
  std::vector<std::string> values;
  for (const auto& element : *node->as_array()) {
    if (!element.is_string())
      throw error(key, fmt::format("must be a list of texts, but holds {}", type_word(element)));
    values.push_back(**element.as_string());
  }
  return values;
}

std::optional<Config> Config::find_table(std::string_view key) const {
  const toml::node* node = as_node(find(key));
  if (node == nullptr) return std::nullopt;
  if (!node->is_table()) throw error(key, fmt::format("must be a table, not {}", type_word(*node)));
  return Config(document_, node->as_table(), joined(path_, key));
}
Config Config::table(std::string_view key) const {
  if (auto found = find_table(key)) return *found;
  throw bad_input(fmt::format("{}:1: [{}]: this table is missing", document_->name, joined(path_, key)));
}

std::vector<Config> Config::tables(std::string_view key) const {
  const toml::node* node = as_node(find(key));
  std::vector<Config> found;
  if (node == nullptr) return found;
  if (!node->is_array()) throw error(key, fmt::format("must be a list of tables, not {}", type_word(*node)));
  for (const auto& element : *node->as_array()) {
    if (!element.is_table())
      throw error(key, fmt::format("must be a list of tables, but holds {}", type_word(element)));
    found.push_back(Config(document_, element.as_table(), fmt::format("{}[{}]", joined(path_, key), found.size())));
  }
  return found;
}

std::vector<std::string> Config::asked_keys() const {
  std::set<std::string> keys;
  for (const auto& [table, path] : document_->paths)
    for (const auto& key : document_->asked[table]) keys.insert(joined(path, key));
  return {keys.begin(), keys.end()};
}

void Config::finish() const {
  // The first unknown key of the file, whatever order the tables were opened in.
  std::optional<Error> first;
  toml::source_position first_position;
  for (const auto& [table, path] : document_->paths) {
    if (!path.starts_with(path_)) continue;
    const auto& asked = document_->asked[table];
    for (const auto& [key, node] : *table) {
      const auto position = node.source().begin;
      if (asked.contains(key.str()) || (first && !(position < first_position))) continue;
      const std::vector<std::string> valid(asked.begin(), asked.end());
      const std::string shown(key.str());
      first = Config(document_, table, path).error(shown, unknown_name("key", shown, valid));
      first_position = position;
    }
  }
  if (first) throw *first;
}

}  // namespace dssim
