// SPDX-License-Identifier: Apache-2.0
#include "sim/serving/router.hpp"

#include "sim/base/random.hpp"
#include "sim/serving/replica.hpp"

namespace dssim {
namespace {

using Replicas = std::vector<std::unique_ptr<Replica>>;

class RoundRobin : public Router {
 public:
  explicit RoundRobin(uint64_t) {}
  size_t choose(const Request&, const Replicas& replicas) override { return next_++ % replicas.size(); }

 private:
  size_t next_ = 0;
};

class Random : public Router {
 public:
  explicit Random(uint64_t seed) : stream_(seed, "router") {}
  size_t choose(const Request&, const Replicas& replicas) override { return stream_.below(replicas.size()); }

 private:
  RandomStream stream_;
};

class LeastLoaded : public Router {
 public:
  explicit LeastLoaded(uint64_t) {}
  size_t choose(const Request&, const Replicas& replicas) override {
    size_t best = start_ % replicas.size();
    for (size_t i = 1; i < replicas.size() && replicas[best]->outstanding() > 0; ++i) {
      const size_t candidate = (start_ + i) % replicas.size();
      if (replicas[candidate]->outstanding() < replicas[best]->outstanding()) best = candidate;
    }
    start_ = best + 1;
    return best;
  }

 private:
  size_t start_ = 0;
};

class PrefixAware : public Router {
 public:
  explicit PrefixAware(uint64_t seed) : least_loaded_(seed) {}
  size_t choose(const Request& request, const Replicas& replicas) override {
    const size_t idle = least_loaded_.choose(request, replicas);
    const int64_t block_tokens = replicas[idle]->scheduler().kv().block_tokens();
    hashes_.clear();
    append_block_hashes(request, block_tokens, hashes_);
    size_t best = idle;
    int64_t longest = 0;
    for (size_t i = 0; i < replicas.size(); ++i) {
      if (replicas[i]->outstanding() > replicas[idle]->outstanding() + kImbalance) continue;
      const int64_t cached = replicas[i]->scheduler().kv().match(hashes_).blocks;
      if (cached > longest) {
        longest = cached;
        best = i;
      }
    }
    const double share = static_cast<double>(longest * block_tokens) / static_cast<double>(request.input_tokens);
    return share > kLeastShare ? best : idle;
  }

 private:
  static constexpr int64_t kImbalance = 32;
  static constexpr double kLeastShare = 0.5;
  LeastLoaded least_loaded_;
  std::vector<uint64_t> hashes_;
};

template <typename T>
std::unique_ptr<Router> make(uint64_t seed) {
  return std::make_unique<T>(seed);
}

struct Registered {
  std::string_view name;
  std::unique_ptr<Router> (*create)(uint64_t seed);
};
constexpr Registered kRouters[] = {{"round-robin", make<RoundRobin>},
                                   {"random", make<Random>},
                                   {"least-loaded", make<LeastLoaded>},
                                   {"prefix-aware", make<PrefixAware>}};

}  // namespace

std::unique_ptr<Router> make_router(std::string_view name, uint64_t seed) {
  for (const auto& router : kRouters)
    if (router.name == name) return router.create(seed);
  return nullptr;
}

std::vector<std::string> router_names() {
  std::vector<std::string> names;
  for (const auto& router : kRouters) names.emplace_back(router.name);
  return names;
}

}  // namespace dssim
