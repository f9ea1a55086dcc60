#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Builds dssim-calibrate alone, on a machine with CUDA 12 or 13, CMake and Boost.Program_options:
#   kernels/cuda/build.sh [build folder] [more options for cmake]
set -e
source=$(cd "$(dirname "$0")" && pwd)
build=${1:-build/calibrate}
[ $# -gt 0 ] && shift
cmake -S "$source" -B "$build" -DCMAKE_BUILD_TYPE=Release "$@"
cmake --build "$build" -j "$(nproc)"
echo "built: $build/dssim-calibrate"
