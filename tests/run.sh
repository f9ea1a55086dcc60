#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds dssim and runs the whole test suite: from a fresh Debian 12 (as root) to "tests passed".
# The suite runs twice: as users run dssim, and under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/install-packages
# dssim-calibrate runs on GPUs only, but it compiles wherever the CUDA toolkit is.
if command -v nvcc >/dev/null; then
  cmake --preset cuda -DDSSIM_TESTS=OFF -DDSSIM_BENCHMARKS=OFF
  cmake --build --preset cuda --target dssim-calibrate
else
  echo "No CUDA toolkit: dssim-calibrate was not compiled."
fi
# Benchmarks assert nothing, so they are only compiled here; `--target benchmarks` runs them.
for preset in asan release; do
  targets=(all)
  options=(-DDSSIM_TESTS=ON)
  if [ $preset = release ]; then
    targets+=(dssim_benchmarks)
    options+=(-DDSSIM_BENCHMARKS=ON)  # the quickstart, which shares this build folder, leaves them out
  fi
  cmake --preset $preset "${options[@]}"
  cmake --build --preset $preset --target "${targets[@]}"
  ctest --preset $preset
done
