// SPDX-License-Identifier: Apache-2.0
#pragma once

// The subcommands. Each takes the words after its name and returns the exit status; errors leave as exceptions.

#include <string>
#include <vector>

namespace dssim {

using Words = std::vector<std::string>;

int run_command(const Words& words);  // picks the subcommand; a scenario file stands for `run`

int run_scenario(const Words& words);
int run_step(const Words& words);
int run_fit(const Words& words);
int run_collective(const Words& words);
int run_validate(const Words& words);
int run_catalogue(const Words& words);
int run_parallelise(const Words& words);

// A scenario with a [training] table: what run_scenario and run_fit hand on.
bool names_training_scenario(const Words& words);
int run_training_scenario(const Words& words);
int run_training_fit(const Words& words);

}  // namespace dssim
