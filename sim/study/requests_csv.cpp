// SPDX-License-Identifier: Apache-2.0
#include "sim/study/requests_csv.hpp"

#include <fmt/format.h>

#include <iterator>
#include <utility>

namespace dssim {

RequestsCsv::RequestsCsv(const std::filesystem::path& path) : file_(path) {
  buffer_ = "arrival,input,output,scheduled,first_token,done\n";
}

void RequestsCsv::add(const RequestRecord& record) {
  const uint64_t offset = record.id - next_id_;
  if (offset >= waiting_.size()) waiting_.resize(offset + 1);
  waiting_[offset] = record;
  while (!waiting_.empty() && waiting_.front()) {
    write(*waiting_.front());
    waiting_.pop_front();
    ++next_id_;
  }
}

void RequestsCsv::write(const RequestRecord& r) {
  auto out = std::back_inserter(buffer_);
  fmt::format_to(out, "{:.6f},{},{},", r.arrival_s, r.input_tokens, r.output_tokens);
  if (r.outcome == Outcome::completed)
    fmt::format_to(out, "{:.6f},{:.6f},{:.6f}\n", r.scheduled_s, r.first_token_s, r.done_s);
  else
    buffer_ += ",,\n";
  if (buffer_.size() < 1 << 16) return;
  file_.write(std::exchange(buffer_, {}));
}

void RequestsCsv::commit() {
  for (const auto& record : waiting_)
    if (record) write(*record);
  file_.write(buffer_);
  file_.commit();
}

}  // namespace dssim
