// SPDX-License-Identifier: Apache-2.0
// A small random model, prompts whole and in chunks, decodes beside chunks and from graphs: the engine's logits against
// float64 on the host, which computes every sequence afresh without a cache. Weights are what the GPUs hold.
#include <cmath>
#include <cstdio>
#include <numeric>

#include "kernels/cuda/engine/gpu_group.hpp"
#include "kernels/cuda/engine/replay.hpp"

#include "kernels/cuda/ops/attention.hpp"

namespace dssim::cuda {
namespace {

using Numbers = std::vector<double>;

constexpr double kTheta = 500000.0;  // rope_kv_write's default
constexpr double kEpsilon = 1e-5;    // add_rmsnorm's
// Activations are rounded to bf16 (2e-3) a dozen times on the way through three layers, and errors add as squares.
constexpr double kBar = 2e-2;

Numbers read(const Buffer& buffer, std::size_t count) {
  std::vector<bf16> raw = buffer.download<bf16>(count);
  Numbers numbers(count);
  for (std::size_t i = 0; i < count; ++i) numbers[i] = static_cast<double>(__bfloat162float(raw[i]));
  return numbers;
}

Numbers normed(const Numbers& x, const Numbers& weight) {
  double squares = std::inner_product(x.begin(), x.end(), x.begin(), 0.0);
  double scale = 1.0 / std::sqrt(squares / static_cast<double>(x.size()) + kEpsilon);
  Numbers out(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) out[i] = x[i] * scale * weight[i];
  return out;
}

Numbers product(const Numbers& matrix, const Numbers& x) {
  Numbers out(matrix.size() / x.size());
  for (std::size_t r = 0; r < out.size(); ++r)
    out[r] = std::inner_product(x.begin(), x.end(), matrix.begin() + static_cast<long>(r * x.size()), 0.0);
  return out;
}

// The model in float64, one GPU's part after another.
class Reference {
 public:
  explicit Reference(const GpuGroup& group) {
    for (int g = 0; g < group.gpus(); ++g) {
      const Transformer& t = group.model(g);
      const ModelShape& s = t.shape();
      auto count = [](int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); };
      Part part{s,
                read(t.embedding_table(), count(s.vocabulary, s.hidden)),
                read(t.head(), count(s.vocabulary, s.hidden)),
                read(t.final_norm(), count(s.hidden, 1)),
                {}};
      for (const auto& l : t.layers()) {
        part.layers.push_back({read(*l.qkv, count(s.q_width() + 2 * s.kv_width(), s.hidden)),
                               read(*l.o, count(s.hidden, s.q_width())), read(*l.gate_up, count(2 * s.ffn, s.hidden)),
                               read(*l.down, count(s.hidden, s.ffn)), read(*l.attention_norm, count(s.hidden, 1)),
                               read(*l.ffn_norm, count(s.hidden, 1))});
      }
      parts_.push_back(std::move(part));
    }
  }

  // Logits after the last of `ids`.
  Numbers logits(const std::vector<int>& ids) const {
    std::vector<Numbers> hidden;
    for (int id : ids) hidden.push_back(embedding(id));
    for (std::size_t l = 0; l < parts_[0].layers.size(); ++l) {
      std::vector<Numbers> sums(ids.size(), Numbers(hidden[0].size(), 0.0));
      for (const Part& p : parts_) add_attention(p, l, hidden, sums);
      for (std::size_t t = 0; t < ids.size(); ++t) add(hidden[t], sums[t]);
      for (Numbers& h : hidden) {
        Numbers in = normed(h, parts_[0].layers[l].ffn_norm);
        Numbers sum(h.size(), 0.0);
        for (const Part& p : parts_) add(sum, feed_forward(p, l, in));
        add(h, sum);
      }
    }
    Numbers last = normed(hidden.back(), parts_[0].final_norm);
    Numbers out;
    for (const Part& p : parts_) {
      Numbers part = product(p.head, last);
      out.insert(out.end(), part.begin(), part.end());
    }
    return out;
  }

 private:
  struct Layer {
    Numbers qkv, o, gate_up, down, attention_norm, ffn_norm;
  };
  struct Part {
    ModelShape shape;
    Numbers embedding, head, final_norm;
    std::vector<Layer> layers;
  };

  static void add(Numbers& to, const Numbers& x) {
    for (std::size_t i = 0; i < to.size(); ++i) to[i] += x[i];
  }

  Numbers embedding(int id) const {
    const Part& p = parts_[static_cast<std::size_t>(id / parts_[0].shape.vocabulary)];
    auto first = p.embedding.begin() + static_cast<long>(id % p.shape.vocabulary) * p.shape.hidden;
    return Numbers(first, first + p.shape.hidden);
  }

  static void rotate(double* head, int dim, std::size_t position) {
    for (int i = 0; i < dim / 2; ++i) {
      double angle = static_cast<double>(position) * std::pow(kTheta, -2.0 * i / dim);
      double low = head[i];
      double high = head[i + dim / 2];
      head[i] = low * std::cos(angle) - high * std::sin(angle);
      head[i + dim / 2] = high * std::cos(angle) + low * std::sin(angle);
    }
  }

  static void add_attention(const Part& p, std::size_t l, const std::vector<Numbers>& hidden,
                            std::vector<Numbers>& sums) {
    const ModelShape& s = p.shape;
    std::vector<Numbers> qkv;
    for (std::size_t t = 0; t < hidden.size(); ++t) {
      qkv.push_back(product(p.layers[l].qkv, normed(hidden[t], p.layers[l].attention_norm)));
      for (int h = 0; h < s.heads + s.kv_heads; ++h) rotate(qkv[t].data() + h * s.head_dim, s.head_dim, t);
      Numbers attended(static_cast<std::size_t>(s.q_width()), 0.0);
      for (int h = 0; h < s.heads; ++h) {
        int kv = s.heads + h / (s.heads / s.kv_heads);
        const double* query = qkv[t].data() + h * s.head_dim;
        Numbers weight;
        double total = 0.0;
        for (std::size_t u = 0; u <= t; ++u) {
          const double* key = qkv[u].data() + kv * s.head_dim;
          weight.push_back(std::exp(std::inner_product(query, query + s.head_dim, key, 0.0) /
                                    std::sqrt(static_cast<double>(s.head_dim))));
          total += weight.back();
        }
        for (std::size_t u = 0; u <= t; ++u) {
          const double* value = qkv[u].data() + (kv + s.kv_heads) * s.head_dim;
          for (int i = 0; i < s.head_dim; ++i)
            attended[static_cast<std::size_t>(h * s.head_dim + i)] += weight[u] / total * value[i];
        }
      }
      add(sums[t], product(p.layers[l].o, attended));
    }
  }

  static Numbers feed_forward(const Part& p, std::size_t l, const Numbers& in) {
    Numbers both = product(p.layers[l].gate_up, in);
    auto ffn = static_cast<std::size_t>(p.shape.ffn);
    Numbers active(ffn);
    for (std::size_t i = 0; i < ffn; ++i) active[i] = both[i] / (1.0 + std::exp(-both[i])) * both[ffn + i];
    return product(p.layers[l].down, active);
  }

  std::vector<Part> parts_;
};

double error_of(const Numbers& got, const Numbers& reference) {
  double difference = 0.0;
  double size = 0.0;
  for (std::size_t i = 0; i < reference.size(); ++i) {
    difference += (got[i] - reference[i]) * (got[i] - reference[i]);
    size += reference[i] * reference[i];
  }
  return std::sqrt(difference / size);
}

// A sequence under test: its tokens are given, so that a wrong token cannot hide a wrong logit.
struct Tested {
  std::vector<int> ids, pages;
};

class EngineCheck {
 public:
  explicit EngineCheck(GpuGroup& group) : group_(group), reference_(group) {}

  Tested sequence(int tokens, int first_page) const {
    Tested t;
    int vocabulary = group_.model(0).shape().vocabulary * group_.gpus();
    for (int i = 0; i < tokens; ++i) t.ids.push_back((i * 7919 + first_page * 31) % vocabulary);
    // Pages in no order.
    for (int i = 0; i < 16; ++i) t.pages.push_back(first_page + (i * 5) % 16);
    return t;
  }
  void decode(const Tested& t, int position) {
    batch_.add_decode(t.pages, position + 1, t.ids[static_cast<std::size_t>(position)]);
    ends_.push_back({&t, position + 1});
  }
  void chunk(const Tested& t, int past, int tokens, bool ends) {
    batch_.add_chunk(t.pages, past,
                     std::span(t.ids).subspan(static_cast<std::size_t>(past), static_cast<std::size_t>(tokens)), ends);
    if (ends) ends_.push_back({&t, past + tokens});
  }
  // Runs what was added and compares every row of logits.
  void step(const char* what) {
    group_.run(batch_);
    std::size_t width = static_cast<std::size_t>(group_.model(0).shape().vocabulary * group_.gpus());
    std::vector<bf16> all = group_.model(0).logits(static_cast<int>(ends_.size()));
    for (std::size_t r = 0; r < ends_.size(); ++r) {
      Numbers got(width);
      for (std::size_t i = 0; i < width; ++i) got[i] = static_cast<double>(__bfloat162float(all[r * width + i]));
      auto [tested, length] = ends_[r];
      report(what, error_of(got, reference_.logits({tested->ids.begin(), tested->ids.begin() + length})));
      last_ = got;
    }
    batch_.clear();
    ends_.clear();
  }
  void report(const char* what, double error) {
    bool ok = error <= kBar;  // NaN fails
    good_ = good_ && ok;
    std::printf("  engine, %-36s %9.2e  (bar %.0e) %s\n", what, error, kBar, ok ? "ok" : "WRONG");
  }
  const Numbers& last() const { return last_; }
  bool good() const { return good_; }

 private:
  GpuGroup& group_;
  Reference reference_;
  Batch batch_;
  std::vector<std::pair<const Tested*, int>> ends_;
  Numbers last_;
  bool good_ = true;
};

}  // namespace

bool verify_engine(int gpus) {
  ModelShape shape;
  shape.layers = 3;
  shape.hidden = 256;
  shape.heads = 8 / gpus;
  shape.kv_heads = 2 / gpus;
  shape.head_dim = 128;
  shape.ffn = 512 / gpus;
  shape.vocabulary = 512 / gpus;
  shape.gpus = gpus;
  GpuGroup group(shape, {256, 16, 80, 256}, {{1, 2, 4}, {64, 256}});
  EngineCheck check(group);
  Tested a = check.sequence(60, 1);
  Tested b = check.sequence(150, 17);
  Tested c = check.sequence(150, 33);
  c.ids = b.ids;
  check.chunk(a, 0, 37, true);
  check.step("prefill");
  check.decode(a, 37);
  check.step("decode, graph of one");
  check.decode(a, 38);
  check.chunk(b, 0, 50, false);
  check.step("decode beside a chunk");
  check.decode(a, 39);
  check.chunk(b, 50, 70, true);
  check.step("decode beside the last chunk");
  Numbers chunked = check.last();
  check.chunk(c, 0, 120, true);
  check.step("the same prompt whole");
  check.report("chunked against whole", error_of(chunked, check.last()));
  check.decode(a, 40);
  check.decode(b, 120);
  check.decode(c, 120);
  check.step("decode of three, padded to four");
  check.chunk(a, 41, 9, true);
  check.chunk(b, 121, 20, true);
  check.step("two chunks in one step");
  return check.good();
}

}  // namespace dssim::cuda
