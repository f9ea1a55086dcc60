// SPDX-License-Identifier: Apache-2.0
#pragma once

// What can be bought: platforms/catalogue/<folder>/<name>.toml, one file an entry, every figure with unit, source and
// kind.
//
//   title = "NVIDIA H100 SXM5 80 GB"
//   architecture = "hopper"                                    # a word
//   [figures]
//   memory_bandwidth = { value = "3350 GB/s", source = "NVIDIA H100 datasheet", kind = "datasheet" }
//
// A figure's dimension and an entry's possible words follow from its kind (figure_specs, word_specs). A scenario
// changes any of them by "<kind>.<key>" in [cluster.override]; the figure then says so in its source. Only the entries
// asked for are read. Errors: unknown kind, entry, figure or word with the nearest valid one; a figure without source;
// a wrong unit.

#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "sim/base/config.hpp"
#include "sim/base/units.hpp"

namespace dssim {

enum class CatalogueKind { gpu, node, fabric, nic, cpu, storage };
inline constexpr size_t kCatalogueKinds = 6;

std::string_view name_of(CatalogueKind kind);    // "gpu": in overrides and errors
std::string_view folder_of(CatalogueKind kind);  // "gpus": on disk and on the command line
std::span<const CatalogueKind> catalogue_kinds();

// Where a figure comes from: the maker's document, somebody's measurement, or an assumption stated as such. `scenario`
// is an override of this run.
enum class FigureKind { datasheet, measured, assumed, scenario };
std::string_view name_of(FigureKind kind);

struct FigureSpec {
  std::string_view key;
  Dimension dimension;
  bool required;
  std::string_view meaning;  // one line, for help and docs
};
struct WordSpec {
  std::string_view key;
  bool required;
  std::vector<std::string> choices;  // empty: any text, or a name in the catalogue
  std::string_view meaning;
};
std::span<const FigureSpec> figure_specs(CatalogueKind kind);
std::span<const WordSpec> word_specs(CatalogueKind kind);

struct Figure {
  double value = 0;  // SI
  Dimension dimension = Dimension::count;
  std::string text;  // as written: "3350 GB/s"
  std::string source;
  FigureKind kind = FigureKind::datasheet;
};

struct Entry {
  CatalogueKind kind = CatalogueKind::gpu;
  std::string name, title, file;
  std::map<std::string, std::string, std::less<>> words;
  std::map<std::string, Figure, std::less<>> figures;

  double figure(std::string_view key, double fallback = 0) const;  // fallback where the entry has no such figure
  std::string word(std::string_view key, std::string_view fallback = "") const;
};

class Catalogue {
 public:
  Catalogue();  // of data_root()
  explicit Catalogue(std::filesystem::path folder);

  std::vector<std::string> names(CatalogueKind kind) const;
  // With the overrides applied. Read once; the reference stays valid.
  const Entry& entry(CatalogueKind kind, const std::string& name);
  // Every key of `table` is "<kind>.<figure or word>". Must come before the first entry() of that kind.
  void override_with(const Config& table);
  // The first override of a kind that no entry() was asked for, as an error; call after the last entry().
  void refuse_unused_overrides() const;
  // Entries read so far: what a run rests on.
  std::vector<const Entry*> entries_in_use() const;

 private:
  struct Override {
    std::string key;
    std::optional<Figure> figure;  // else a word
    std::string word;
    std::string where;
  };
  Entry read(CatalogueKind kind, const std::string& name) const;

  std::filesystem::path folder_;
  std::map<CatalogueKind, std::vector<Override>> overrides_;
  std::map<std::pair<CatalogueKind, std::string>, Entry> entries_;
};

}  // namespace dssim
