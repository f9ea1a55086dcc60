#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds dssim and runs the whole test suite: from a fresh Debian 12 (as root) to "tests passed".
# The suite runs twice: as users run dssim, and under AddressSanitizer and UndefinedBehaviorSanitizer.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/install-packages
for preset in asan release; do
  cmake --preset $preset -DDSSIM_TESTS=ON
  cmake --build --preset $preset
  ctest --preset $preset
done
