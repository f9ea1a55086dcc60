#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Replays scenarios on this machine's GPUs and packs what was measured:
#   kernels/cuda/replay.sh OUT SCENARIO.toml...
# writes OUT/<scenario>.requests.csv.gz, .iterations.csv.gz and .log. A scenario whose files are there is passed over,
# so an interrupted call is taken up by calling it again. DSSIM_CALIBRATE names the program, if not build/cuda's.
program=${DSSIM_CALIBRATE:-build/cuda/kernels/cuda/dssim-calibrate}
out=$1
shift
mkdir -p "$out" || exit 2
failed=0
for scenario in "$@"; do
  name=$out/$(basename "$scenario" .toml)
  [ -s "$name.iterations.csv.gz" ] && continue
  if "$program" replay "$scenario" --requests "$name.requests.csv" --iterations "$name.iterations.csv" >"$name.log" 2>&1
  then
    gzip -9nf "$name.requests.csv" && gzip -9nf "$name.iterations.csv"
  else
    failed=1
  fi
  cat "$name.log"
done
exit $failed
