// SPDX-License-Identifier: Apache-2.0
#include "kernels/fit.hpp"

#include <Eigen/QR>
#include <algorithm>
#include <cmath>


namespace dssim {

Fit fit_seconds(std::span<const double> terms, size_t width, std::span<const double> seconds) {
  const auto rows = static_cast<Eigen::Index>(seconds.size());
  if (seconds.size() < width) return {};
  Eigen::MatrixXd relative(rows, static_cast<Eigen::Index>(width));
  for (Eigen::Index i = 0; i < rows; ++i)
    for (Eigen::Index j = 0; j < relative.cols(); ++j)
      relative(i, j) = terms[static_cast<size_t>(i) * width + static_cast<size_t>(j)] / seconds[static_cast<size_t>(i)];
  const Eigen::VectorXd ones = Eigen::VectorXd::Ones(rows);
  std::vector<Eigen::Index> used(width);
  for (size_t i = 0; i < width; ++i) used[i] = static_cast<Eigen::Index>(i);
  Fit fit;
  fit.rows = seconds.size();
  while (!used.empty()) {
    const Eigen::MatrixXd part = relative(Eigen::all, used);
    const Eigen::VectorXd solution = part.colPivHouseholderQr().solve(ones);
    Eigen::Index least = 0;
    if (solution.minCoeff(&least) >= 0) {
      fit.coefficients.assign(width, 0.0);
      for (size_t i = 0; i < used.size(); ++i)
        fit.coefficients[static_cast<size_t>(used[i])] = solution(static_cast<Eigen::Index>(i));
      std::vector<double> errors(seconds.size());
      const Eigen::VectorXd error = (part * solution - ones).cwiseAbs();
      std::copy(error.begin(), error.end(), errors.begin());
      std::sort(errors.begin(), errors.end());
      fit.median_error = errors[(errors.size() - 1) / 2];
      fit.p90_error = errors[static_cast<size_t>(0.9 * static_cast<double>(errors.size() - 1))];
      return fit;
    }
    used.erase(used.begin() + least);
  }
  return fit;
}

}  // namespace dssim
