// SPDX-License-Identifier: Apache-2.0
#pragma once

// The --requests file: arrival,input,output,scheduled,first_token,done, in seconds, in order of arrival. A request that
// was refused or timed out has empty times. Requests end in another order than they arrive in, so those that ended are
// held back until every earlier one has: memory grows with requests in flight.

#include <deque>
#include <filesystem>
#include <optional>

#include "sim/base/files.hpp"
#include "sim/results/request_record.hpp"

namespace dssim {

class RequestsCsv {
 public:
  explicit RequestsCsv(const std::filesystem::path& path);
  void add(const RequestRecord& record);
  // Writes what is left (a run that was stopped has gaps) and puts the file in place.
  void commit();

 private:
  void write(const RequestRecord& record);

  AtomicFile file_;
  std::string buffer_;
  std::deque<std::optional<RequestRecord>> waiting_;  // ids from next_id_
  uint64_t next_id_ = 0;
};

}  // namespace dssim
