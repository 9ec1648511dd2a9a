// SPDX-License-Identifier: MIT
// Random inputs of any shape, and the operator run over them in pieces.
#pragma once

#include <nha/nha.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

#include "relative_error.hpp"

namespace nha_test {

using nha::Index;

/// How fast slots forget.
enum class Gates { usual, fast, slow, mixed };

struct CaseShape {
  Index batch = 1;
  Index tokens = 32;
  Index kv_heads = 1;
  Index group = 1;
  Index key_dim = 16;
  Index value_dim = 16;
  Index slots = 8;
  Gates gates = Gates::usual;
  bool explicit_write = false;
  /// Packed sequences of these lengths in place of batch and tokens.
  std::vector<Index> lengths = {};

  Index sequences() const { return lengths.empty() ? batch : static_cast<Index>(lengths.size()); }
};

/// Owns random inputs: the same for one shape and seed, whichever compiler is used. They are drawn
/// as float and then rounded to T.
template <class T>
class RandomCase {
 public:
  using Acc = nha::accumulate_t<T>;
  using Inputs = nha::AttentionInputs<T>;

  explicit RandomCase(const CaseShape& given, std::uint32_t seed = 1) : shape(given) {
    if (!shape.lengths.empty()) {
      shape.batch = 1;
      shape.tokens = 0;
      for (Index length : shape.lengths) shape.tokens += length;
      cu_seqlens.push_back(0);
      for (Index length : shape.lengths) cu_seqlens.push_back(cu_seqlens.back() + length);
    }
    std::mt19937 random(seed);
    std::normal_distribution<float> normal;
    const Index query_heads = shape.kv_heads * shape.group;
    const auto fill = [&](Index heads, Index last) {
      nha::Tensor<T, 4> tensor({shape.batch, shape.tokens, heads, last});
      for (T& value : tensor.values()) value = static_cast<T>(normal(random));
      return tensor;
    };
    q_window = fill(query_heads, shape.key_dim);
    k_window = fill(shape.kv_heads, shape.key_dim);
    q_slot = fill(query_heads, shape.key_dim);
    k_slot = fill(shape.kv_heads, shape.key_dim);
    v = fill(shape.kv_heads, shape.value_dim);
    log_gate = nha::Tensor<Acc, 4>({shape.batch, shape.tokens, shape.kv_heads, shape.slots});
    write = nha::Tensor<Acc, 4>({shape.batch, shape.tokens, shape.kv_heads, shape.slots});
    std::uniform_real_distribution<float> uniform(0.0f, 1.0f);
    for (Index i = 0; i < log_gate.size(); ++i) {
      const Index slot = shape.slots > 0 ? i % shape.slots : 0;
      // One after the other: the order of arguments is the compiler's.
      const float u = uniform(random);
      const float n = normal(random);
      log_gate.data()[i] = static_cast<Acc>(gate(slot, n, u));
      write.data()[i] = static_cast<Acc>(uniform(random));
    }
  }

  Inputs inputs() const {
    Inputs in{.q_window = q_window,
              .k_window = k_window,
              .q_slot = q_slot,
              .k_slot = k_slot,
              .v = v,
              .log_gate = log_gate,
              .cu_seqlens = cu_seqlens};
    if (shape.explicit_write) in.write = write;
    return in;
  }
  nha::AttentionShape attention_shape() const {
    return {.batch = shape.sequences(),
            .kv_heads = shape.kv_heads,
            .key_dim = shape.key_dim,
            .value_dim = shape.value_dim,
            .slots = shape.slots};
  }

  CaseShape shape;
  nha::Tensor<T, 4> q_window, k_window, q_slot, k_slot, v;
  nha::Tensor<Acc, 4> log_gate, write;
  std::vector<std::int64_t> cu_seqlens;

 private:
  float gate(Index slot, float normal, float uniform) const {
    switch (shape.gates) {
      case Gates::fast:
        return -40.0f * uniform;
      case Gates::slow:
        return -1e-6f * uniform;
      case Gates::mixed:
        return -uniform *
               std::pow(10.0f, 1.3f - 6.3f * static_cast<float>(slot) /
                                          static_cast<float>(std::max<Index>(shape.slots, 2) - 1));
      case Gates::usual:
        break;
    }
    return -std::log1p(std::exp(-normal)) / 8;
  }
};

/// Outputs of the operator for a case, NaN until they are written: one that is not written is far
/// from any expected one.
template <class T>
struct CaseOutputs {
  using Acc = nha::accumulate_t<T>;

  explicit CaseOutputs(const CaseShape& s)
      : o({s.batch, s.tokens, s.kv_heads * s.group, s.value_dim}),
        lse({s.batch, s.tokens, s.kv_heads * s.group}),
        slot_share({s.batch, s.tokens, s.kv_heads * s.group}) {
    std::ranges::fill(o.values(), static_cast<T>(std::numeric_limits<float>::quiet_NaN()));
    std::ranges::fill(lse.values(), std::numeric_limits<Acc>::quiet_NaN());
    std::ranges::fill(slot_share.values(), std::numeric_limits<Acc>::quiet_NaN());
  }

  nha::AttentionOutputs<T> views() { return {.o = o, .lse = lse, .slot_share = slot_share}; }
  /// Tokens [first, first + count) of every sequence.
  nha::AttentionOutputs<T> tokens(Index first, Index count) { return views().tokens(first, count); }

  nha::Tensor<T, 4> o;
  nha::Tensor<Acc, 3> lse, slot_share;
};

/// Runs tokens [first, last) through prefill in pieces of `piece` tokens.
template <class T, class State>
void prefill_range(const RandomCase<T>& c, State& state, CaseOutputs<T>& out, Index first,
                   Index last, Index piece, const nha::PrefillOptions& options = {}) {
  nha::Workspace workspace;
  for (Index t = first; t < last; t += piece) {
    const Index count = std::min(piece, last - t);
    nha::prefill(c.inputs().tokens(t, count), state, out.tokens(t, count), workspace, options);
  }
}

/// The largest of the errors of o, lse and slot_share.
template <class A, class B>
double relative_error(const CaseOutputs<A>& a, const CaseOutputs<B>& b) {
  return std::max({relative_error(a.o, b.o), relative_error(a.lse, b.lse),
                   relative_error(a.slot_share, b.slot_share)});
}

/// The same for tokens [first, first + count) alone: the others may not have been written.
template <class A, class B>
double relative_error(const CaseOutputs<A>& a, const CaseOutputs<B>& b, Index first, Index count) {
  const auto part = [&](const auto& tensor) {
    auto extents = tensor.extents();
    extents[1] = count;
    std::remove_cvref_t<decltype(tensor)> out(extents);
    const Index row = tensor.extent(1) > 0 && tensor.extent(0) > 0
                          ? tensor.size() / (tensor.extent(0) * tensor.extent(1))
                          : 0;
    for (Index n = 0; n < tensor.extent(0); ++n)
      std::copy_n(tensor.data() + (n * tensor.extent(1) + first) * row, count * row,
                  out.data() + n * count * row);
    return out;
  };
  return std::max({relative_error(part(a.o), part(b.o)), relative_error(part(a.lse), part(b.lse)),
                   relative_error(part(a.slot_share), part(b.slot_share))});
}

/// The largest of the errors of slot keys, slot values and masses, each over all sequences and
/// heads. Infinity if the states differ in shape.
template <class StateA, class StateB>
double slot_error(const StateA& a, const StateB& b) {
  const auto& shape = b.shape();
  if (!(a.shape() == shape)) return INFINITY;
  const auto collect = [&](const auto& state) {
    std::array<std::vector<double>, 3> out;
    for (Index n = 0; n < shape.batch; ++n)
      for (Index h = 0; h < shape.kv_heads; ++h)
        for (Index m = 0; m < shape.slots; ++m) {
          for (Index d = 0; d < shape.key_dim; ++d)
            out[0].push_back(nha::widen(state.slot_k(n, h)(m, d)));
          for (Index d = 0; d < shape.value_dim; ++d)
            out[1].push_back(nha::widen(state.slot_v(n, h)(m, d)));
          out[2].push_back(state.slot_mass(n, h)(m));
        }
    return out;
  };
  const auto of_a = collect(a), of_b = collect(b);
  double error = 0;
  for (std::size_t part = 0; part < of_a.size(); ++part)
    error = std::max(error, relative_error(of_a[part].data(), of_b[part].data(),
                                           static_cast<Index>(of_b[part].size())));
  return error;
}

}  // namespace nha_test
