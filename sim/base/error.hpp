// SPDX-License-Identifier: Apache-2.0
#pragma once

// One error type for everything a user can be told. `what()` is a single line ready to print.
//
//   bad_input   a file, key, value or option is wrong: "file:line: key: what, and what would be valid"   exit status 2
//   cannot_run  the input is sound but the configuration cannot run (does not fit in memory, say)        exit status 3
//   failure     anything else (a full disk, a broken invariant)                                          exit status 1
//
// Programming errors use assert, never this.

#include <stdexcept>
#include <string>

namespace dssim {

enum class ErrorKind { bad_input, cannot_run, failure };

class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& message) : std::runtime_error(message), kind_(kind) {}

  ErrorKind kind() const { return kind_; }
  int exit_status() const {
    switch (kind_) {
      case ErrorKind::bad_input:
        return 2;
      case ErrorKind::cannot_run:
        return 3;
      case ErrorKind::failure:
        return 1;
    }
    return 1;
  }

 private:
  ErrorKind kind_;
};

inline Error bad_input(const std::string& message) {
  return {ErrorKind::bad_input, message};
}
inline Error cannot_run(const std::string& message) {
  return {ErrorKind::cannot_run, message};
}
inline Error failure(const std::string& message) {
  return {ErrorKind::failure, message};
}

}  // namespace dssim
