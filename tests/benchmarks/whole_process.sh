#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Whole-process figures of the shapes whose speed is promised (docs/speed.md): seconds (best of three), peak memory, and, where
# valgrind is installed, instructions per request of a smaller run of each shape, which repeat exactly.
# Usage: whole_process.sh path/to/dssim
set -euo pipefail
dssim=$(realpath "$1")
cd "$(dirname "$0")/../.."

# Seconds and peak kB of the best of three runs of a command.
measure() {
  python3 - "$@" <<'PY'
import resource, subprocess, sys, time
best = float("inf")
for _ in range(3):
    start = time.perf_counter()
    subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
    best = min(best, time.perf_counter() - start)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(f"{best:8.3f} s {peak / 1024:8.0f} MiB", end="")
PY
}
instructions() {
  local requests=$1
  shift
  command -v valgrind >/dev/null || { echo "  (no valgrind)"; return; }
  local log
  log=$(valgrind --tool=callgrind --callgrind-out-file=/dev/null "$@" 2>&1 >/dev/null | sed -n 's/.*refs: *\([0-9,]*\).*/\1/p' | tr -d ,)
  if [ "$requests" -gt 0 ]; then echo "  $((log / requests)) instructions/request ($requests requests)"; else echo "  $log instructions"; fi
}
row() { printf '%-44s' "$1"; }

row "step, Llama 3 8B"; measure "$dssim" step scenarios/quickstart.toml --decode 64 --kv 1024 --quiet
instructions 0 "$dssim" step scenarios/quickstart.toml --decode 64 --kv 1024 --quiet
row "fit, Llama 3 8B"; measure "$dssim" fit scenarios/quickstart.toml --quiet
instructions 0 "$dssim" fit scenarios/quickstart.toml --quiet
azure=scenarios/serving/llama-2-70b-h100-tp4.toml
row "5,000 Azure requests, Llama 2 70B TP4"; measure "$dssim" $azure --quiet
instructions 1000 "$dssim" $azure --quiet --set workload.requests=1000
busy=(scenarios/quickstart.toml --quiet --set workload.rate=20/s --set workload.requests=19366)
row "19,366 requests near saturation, one H100"; measure "$dssim" "${busy[@]}"
instructions 2000 "$dssim" "${busy[@]}" --set workload.requests=2000
million=scenarios/serving/llama-65b-128-nodes.toml
row "1,000,000 requests over 128 replicas"; measure "$dssim" $million --quiet
instructions 20000 "$dssim" $million --quiet --set workload.requests=20000
