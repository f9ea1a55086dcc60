#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds dssim and runs the whole test suite: from a fresh Debian 12 (as root) to "tests passed".
# The suite runs twice: as users run dssim, and under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/install-packages
for preset in asan release; do
  targets=(all)
  options=(-DDSSIM_TESTS=ON)
  if [ $preset = release ]; then
    # Benchmarks assert nothing, so they are only compiled here; `--target benchmarks` runs them. dssim-calibrate runs on GPUs
    # only, but it compiles wherever the CUDA toolkit is. The quickstart, which shares this build folder, leaves both out.
    targets+=(dssim_benchmarks)
    options+=(-DDSSIM_BENCHMARKS=ON)
    if command -v nvcc >/dev/null; then
      options+=(-DDSSIM_CUDA=ON)
    else
      echo "No CUDA toolkit: dssim-calibrate was not compiled."
    fi
  fi
  cmake --preset $preset "${options[@]}"
  cmake --build --preset $preset --target "${targets[@]}"
  ctest --preset $preset
done
