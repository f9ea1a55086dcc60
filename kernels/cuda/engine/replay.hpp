// SPDX-License-Identifier: Apache-2.0
// `dssim-calibrate replay SCENARIO.toml`: the scenario's requests, served in real time by an engine made of this
// program's kernels under dssim's own scheduler. What it writes is what `dssim validate` compares a prediction with.
#pragma once

namespace dssim::cuda {

// argv[0] is "replay". Exit status.
int replay_command(int argc, char** argv);

// The engine's logits for a small random model against float64 on the host. Prints a line for each comparison.
bool verify_engine(int gpus);

}  // namespace dssim::cuda
