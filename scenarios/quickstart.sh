#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds dssim and runs the quickstart: from a fresh Debian 12 (as root) to the first answer.
set -euo pipefail
cd "$(dirname "$0")/.."
.ci/install-packages
cmake --preset release -DDSSIM_TESTS=OFF -DDSSIM_BENCHMARKS=OFF -DDSSIM_CUDA=OFF >/dev/null
cmake --build --preset release
build/release/dssim scenarios/quickstart.toml
