// SPDX-License-Identifier: Apache-2.0
#pragma once

// The figures NCCL chooses algorithm and protocol by: seconds of launch and of one hop, and the share of a link's rate
// that a protocol keeps. NVIDIA measured them on DGX systems; they are the same for every GPU and group here.
// Source: NVIDIA/nccl src/graph/tuning.cc, releases 2.21 and 2.26 (hop latencies, protocol shares, NVLS efficiency, LL
// limits, tree shares).

#include <array>
#include <cstdint>
#include <string_view>

namespace dssim::nccl {

// LL sends a flag with every 4 bytes, LL128 one with every 120; Simple sends whole chunks and then synchronises.
enum class Protocol : uint8_t { ll, ll128, simple };
inline constexpr std::array<std::string_view, 3> kProtocolNames{"LL", "LL128", "Simple"};
inline constexpr std::array<Protocol, 3> kProtocols{Protocol::ll, Protocol::ll128, Protocol::simple};

using ByProtocol = std::array<double, 3>;

inline constexpr ByProtocol kBase_s{6.6e-6, 14.0e-6, 8.4e-6};      // launch of ring, pairwise, send
inline constexpr ByProtocol kTreeBase_s{6.8e-6, 14.0e-6, 8.4e-6};  // launch of tree

struct Hop {
  ByProtocol nvlink, pcie, network;
};
inline constexpr Hop kRingHop_s{{0.6e-6, 1.9e-6, 3.4e-6}, {1.0e-6, 2.5e-6, 5.7e-6}, {2.7e-6, 4.0e-6, 14.0e-6}};
inline constexpr Hop kTreeHop_s{{0.6e-6, 1.25e-6, 4.0e-6}, {1.0e-6, 1.9e-6, 4.0e-6}, {5.0e-6, 8.5e-6, 14.0e-6}};
// Ring all-reduce in chunks between nodes takes longer than its hops ("plateau").
inline constexpr double kRingPlateau = 1.4;
// The proxy thread's work for one step between nodes; three messages in Simple.
inline constexpr double kNetworkPost_s = 1.0e-6;

inline constexpr double kNvls_s = 25e-6;         // inside one NVLink domain
inline constexpr double kNvlsNetwork_s = 18e-6;  // and one exchange with the InfiniBand switches
inline constexpr double kNvlsTreeHop_s = 14e-6;  // each level of the tree between domains, each way

// Share of a link's rate that carries payload. LL128 between nodes with one GPU each keeps less: the same GPU sends
// and receives through its NIC.
inline constexpr double kLlShare = 0.5;
inline constexpr double kLl128Share = 0.92;
inline constexpr double kLl128LoneShare = 0.7;
inline constexpr double kTreeShare = 0.92;
inline constexpr double kTreeLlShare = 0.92 / 3.8;

// What LL moves at most whatever the links, as bus bandwidth: one domain (by GPU generation), two, more.
inline constexpr double kLlMostAmpere_bytes_per_s = 87.7e9;
inline constexpr double kLlMostHopper_bytes_per_s = 141e9;
inline constexpr double kLlMostBlackwell_bytes_per_s = 282e9;
inline constexpr double kLlMostTwoNodes_bytes_per_s = 39e9;
inline constexpr double kLlMostNodes_bytes_per_s = 20.4e9;

// Share of NVLink's rated bandwidth that multicast and reduction in the switch keep: NCCL's efficiency (0.85, 0.74) of
// the rate it counts on (20.6 of 25 GB/s a link on Hopper, 40.1 of 50 on Blackwell).
inline constexpr double kNvlsShareHopper = 0.85 * 20.6 / 25;
inline constexpr double kNvlsShareBlackwell = 0.74 * 40.1 / 50;

// Trees fall short of latency + bytes / rate at medium sizes. Share of the rate for 64 B, 128 B, … 256 MiB, by
// protocol.
inline constexpr size_t kTreeSizes = 23;
inline constexpr double kTreeFirst_bytes = 64;
inline constexpr std::array<std::array<double, kTreeSizes>, 3> kTreeSizeShare{{
    {1, 1, 1, 1, .9, .8, .7, .7, .7, .7, .6, .5, .4, .4, .5, .6, .7, .8, .9, 1, 1, 1, 1},
    {1, 1, 1, 1, 1, .9, .8, .8, .8, .7, .6, .6, .6, .6, .6, .6, .8, .9, .9, .9, .9, 1, 1},
    {.9, .9, .9, .9, .9, .9, .9, .8, .7, .6, .6, .5, .5, .5, .5, .6, .7, .8, .7, .7, .8, .9, .9},
}};

}  // namespace dssim::nccl
