// SPDX-License-Identifier: Apache-2.0
#include "kernels/cuda/measure/profile.hpp"

#include <cstdio>
#include <cstdlib>
#include <iomanip>
#include <stdexcept>

#include "kernels/cuda/ops/status.hpp"

namespace dssim::cuda {
namespace {

constexpr std::uintmax_t kPackAbove = 64 * 1024;  // bytes; smaller tables stay readable as they are
constexpr const char* kHeading = "[table.";

void write_lines(const std::filesystem::path& path, const std::vector<std::string>& lines) {
  std::ofstream out(path.string() + ".part", std::ios::trunc);
  for (const std::string& line : lines) out << line << '\n';
  out.close();
  if (!out) throw Unavailable("cannot write " + path.string());
  std::filesystem::rename(path.string() + ".part", path);
}

}  // namespace

Table::Table(std::filesystem::path path, const std::string& header) : path_(std::move(path)) {
  out_.open(path_.string() + ".part", std::ios::trunc);
  if (!out_) throw Unavailable("cannot write " + path_.string() + ".part");
  out_ << header << '\n';
}

void Table::write_numbers(const Reading& reading) {
  out_ << reading.seconds << ',' << std::setprecision(2) << reading.mad << '\n';
  ++rows_;
}

void Table::finish() {
  if (!out_.is_open()) return;
  out_.close();
  if (!out_) throw Unavailable("cannot write " + path_.string() + ": disk full?");
  std::filesystem::rename(path_.string() + ".part", path_);
}

Profile::Profile(std::filesystem::path folder, const std::vector<std::string>& replaced, bool resume)
    : folder_(std::move(folder)), partial_(folder_.string() + ".partial") {
  bool exists = std::filesystem::exists(folder_ / "stack.toml");
  if (exists) read_engine(folder_ / "stack.toml");
  if (exists && replaced.empty()) {
    throw Unavailable(folder_.string() +
                      " holds a profile already: name another folder (--out), or tables to replace (--tables)");
  }
  if (resume && std::filesystem::exists(partial_ / "calibration.toml")) {
    read_notes(partial_ / "calibration.toml");
    return;
  }
  std::filesystem::remove_all(partial_);
  std::filesystem::create_directories(partial_);
  if (!exists) return;
  std::filesystem::copy(folder_, partial_, std::filesystem::copy_options::recursive);
  read_notes(folder_ / "calibration.toml");
  for (const std::string& table : replaced) {
    notes_.erase(table);
    std::filesystem::remove(partial_ / (table + ".csv"));
    std::filesystem::remove(partial_ / (table + ".csv.gz"));
  }
}

void Profile::read_notes(const std::filesystem::path& calibration_toml) {
  std::ifstream in(calibration_toml);
  std::string line;
  std::string table;
  const std::string heading = kHeading;
  while (std::getline(in, line)) {
    if (line.rfind(heading, 0) == 0) {
      table = line.substr(heading.size(), line.size() - heading.size() - 1);
      notes_[table];
    } else if (!table.empty() && !line.empty()) {
      notes_[table].push_back(line);
    }
  }
}

void Profile::read_engine(const std::filesystem::path& stack_toml) {
  std::ifstream in(stack_toml);
  std::vector<std::string> comments;
  bool inside = false;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] == '[') {
      inside = line.rfind("[engine]", 0) == 0;
      continue;
    }
    if (!inside || line.empty()) continue;
    comments.push_back(line);
    if (line[0] == '#') continue;
    std::string key = line.substr(0, line.find_first_of(" ="));
    if (key != "graph_batch_sizes" && key != "attention")
      engine_lines_.insert(engine_lines_.end(), comments.begin(), comments.end());
    comments.clear();
  }
}

Table Profile::begin(const std::string& table, const std::string& header) const {
  return Table(partial_ / (table + ".csv"), header);
}

void Profile::end(Table& table, const std::string& name, const std::vector<std::string>& notes) {
  table.finish();
  notes_[name] = notes;
  write_description(false);
}

void Profile::note(const std::string& table, const std::vector<std::string>& lines) {
  std::vector<std::string>& notes = notes_.at(table);
  notes.insert(notes.end(), lines.begin(), lines.end());
  write_description(false);
}

void Profile::write_description(bool complete) const {
  std::vector<std::string> stack = description_.stack_head;
  stack.push_back(std::string("complete = ") + (complete ? "true" : "false"));
  stack.insert(stack.end(), description_.stack_body.begin(), description_.stack_body.end());
  stack.insert(stack.end(), engine_lines_.begin(), engine_lines_.end());
  std::vector<std::string> calibration = description_.calibration;
  for (const auto& [table, lines] : notes_) {
    calibration.push_back("\n" + std::string(kHeading) + table + "]");
    calibration.insert(calibration.end(), lines.begin(), lines.end());
  }
  write_lines(partial_ / "calibration.toml", calibration);
  write_lines(partial_ / "stack.toml", stack);
}

void Profile::complete() {
  for (const auto& entry : std::filesystem::directory_iterator(partial_)) {
    if (entry.path().extension() != ".csv" || entry.file_size() < kPackAbove) continue;
    // -n keeps the time out of the file; where there is no gzip the table stays as it is, which readers take too.
    std::string command = "gzip -n -9 '" + entry.path().string() + "'";
    if (std::system(command.c_str()) != 0) std::fprintf(stderr, "note: %s not packed\n", entry.path().c_str());
  }
  write_description(true);
  std::filesystem::remove(partial_ / "report.toml");
  std::filesystem::path old = folder_.string() + ".old";
  std::filesystem::remove_all(old);
  if (std::filesystem::exists(folder_)) std::filesystem::rename(folder_, old);
  std::filesystem::rename(partial_, folder_);
  std::filesystem::remove_all(old);
}

}  // namespace dssim::cuda
