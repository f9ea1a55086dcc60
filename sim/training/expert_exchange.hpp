// SPDX-License-Identifier: Apache-2.0
#pragma once

// Tokens on their way to their experts and back, as DeepEP sends them (DeepSeek-V3, arXiv 2412.19437, section 3.2.2):
// once to each node that holds an expert of the token, over the NIC, and from there over NVLink to each of its GPUs
// that does.
//
//   k experts a token, drawn evenly over n places, lie on n (1 − (1 − 1/n)^k) of them; nodes are at most `routed_nodes`
//   seconds = 37 us + 14 us × (nodes − 1) + the longer of what a GPU sends over its NIC and over NVLink
// Shares of the links' rates and latencies: AIConfigurator's tables of DeepEP on H100 (Apache-2.0), 7,168 values, top 8
// of 256: 4,096 tokens on 4 nodes leave each NIC at 44 of 47 GB/s, both ways; on one node NVLink carries 283 of 369
// GB/s (H800, as DeepEP publishes: 134 of 164). One token: 37, 58, 88 and 136 us on 1, 2, 4 and 8 nodes. Units:
// seconds, bytes. Tested by tests/unit/training_layer_test.cpp and tests/validation/training_test.cpp.

#include "sim/training/group_network.hpp"

namespace dssim {

// Copies of one token that a GPU sends, on average.
struct TokenCopies {
  double over_nic = 0, over_node_links = 0;
};

// `ranks` hold the experts, `per_node` of them in each node; routed_nodes 0: as many as there are.
TokenCopies token_copies(int experts_per_token, int ranks, int per_node, int routed_nodes);

// One way, for a GPU with `tokens` of `bytes` each.
struct ExpertExchange {
  double seconds = 0;
  LinkLoad load;
};
ExpertExchange expert_exchange(const GroupNetwork& network, const TokenCopies& copies, int nodes, double tokens,
                               double bytes);

}  // namespace dssim
