// SPDX-License-Identifier: Apache-2.0
#pragma once

// Runs a function in a forked child and hands back what it returns, through a pipe. SimGrid allows one engine per
// process, so every test that starts flows runs like this. The result is a string, a vector of doubles, or trivially
// copyable.
//
//   const double end_s = run_forked([&] { … return simulation.now(); });
//
// An exception in the child is thrown again here as std::runtime_error with its text; a child that dies is one too.

#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace dssim::test {

namespace detail {

template <typename T>
std::string to_bytes(const T& value) {
  if constexpr (std::is_same_v<T, std::string>) {
    return value;
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    return {reinterpret_cast<const char*>(value.data()), value.size() * sizeof(double)};
  } else {
    static_assert(std::is_trivially_copyable_v<T>);
    return {reinterpret_cast<const char*>(&value), sizeof value};
  }
}

template <typename T>
T from_bytes(const std::string& bytes) {
  if constexpr (std::is_same_v<T, std::string>) {
    return bytes;
  } else if constexpr (std::is_same_v<T, std::vector<double>>) {
    std::vector<double> values(bytes.size() / sizeof(double));
    std::memcpy(values.data(), bytes.data(), values.size() * sizeof(double));
    return values;
  } else {
    if (bytes.size() != sizeof(T)) throw std::runtime_error("the forked child handed back too little");
    T value;
    std::memcpy(&value, bytes.data(), sizeof value);
    return value;
  }
}

inline void write_all(int file, const std::string& bytes) {
  for (size_t done = 0; done < bytes.size();) {
    const ssize_t wrote = write(file, bytes.data() + done, bytes.size() - done);
    if (wrote <= 0) _exit(3);
    done += static_cast<size_t>(wrote);
  }
}

}  // namespace detail

template <typename Work>
auto run_forked(Work work) -> decltype(work()) {
  using Result = decltype(work());
  int ends[2];
  if (pipe(ends) != 0) throw std::runtime_error("no pipe");
  std::fflush(nullptr);
  const pid_t child = fork();
  if (child < 0) throw std::runtime_error("no fork");
  if (child == 0) {
    close(ends[0]);
    std::string bytes;
    int status = 0;
    try {
      bytes = detail::to_bytes(work());
    } catch (const std::exception& e) {
      bytes = e.what();
      status = 1;
    }
    detail::write_all(ends[1], bytes);
    std::fflush(nullptr);
    _exit(status);
  }
  close(ends[1]);
  std::string bytes;
  char buffer[4096];
  for (ssize_t got; (got = read(ends[0], buffer, sizeof buffer)) > 0;) bytes.append(buffer, static_cast<size_t>(got));
  close(ends[0]);
  int status = 0;
  waitpid(child, &status, 0);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 1) throw std::runtime_error(bytes);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) throw std::runtime_error("the forked child died");
  return detail::from_bytes<Result>(bytes);
}

}  // namespace dssim::test
