// SPDX-License-Identifier: MIT
// The tokens of a chunk as its queries read them through the slots, exact for every gate.
//
// Token j meets query i >= j in slot m with the weight s_j[m] a_(j+1)[m] ... a_i[m]: its write
// strength times the retentions of the tokens after it. The closed form s_j exp(G_i - G_j), with
// running sums G of the log gates, would split into factors for i and j and make a matrix product.
// These factors overflow for fast gates. The functions here walk the chunk with Horner's rule
// instead, one multiplication by a retention for each token. Every weight is then a product of
// numbers in [0, 1], and no gate is too fast or too slow. Chunks are short
// (attention/chunked/plan.hpp), and only pairs j <= i are touched: half of what a product does.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/log.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>
#include <cassert>
#include <limits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// The tokens that enter the slots during a chunk, oldest first: rows `first` to `count` - 1 of
/// retention and write strengths [count, stride]. The rows before `first` hold no token, since the
/// sequence had none so early.
template <class T>
struct EnteringGates {
  const T* retention;
  const T* write;
  Index stride;  // padded(slots): the functions below need no tails
  Index first;
  Index count;
};

namespace detail {

/// Rows x Vectors logits of slots [slot, slot + Vectors * lanes), for rows of the tokens given.
template <class Arch, int Rows, int Vectors, class T>
NHA_INLINE void decay_logits_tile(const EnteringGates<T>& gates, Index group, Index row, Index slot,
                                  const T* pairs, Index pair_stride, T* logits,
                                  Index logit_stride) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  V sum[Rows][Vectors];
  NHA_UNROLL
  for (int r = 0; r < Rows; ++r) {
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v)
      sum[r][v] = simd::load<V>(logits + (row + r) * logit_stride + slot + v * kLanes);
  }
  // Row r belongs to token (row + r) / group and sees the entering tokens up to its own.
  const Index shared = row / group + 1;
  const Index last = (row + Rows - 1) / group + 1;
  for (Index j = gates.first; j < last; ++j) {
    V retention[Vectors], write[Vectors];
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      retention[v] = simd::load<V>(gates.retention + j * gates.stride + slot + v * kLanes);
      write[v] = simd::load<V>(gates.write + j * gates.stride + slot + v * kLanes);
    }
    NHA_UNROLL
    for (int r = 0; r < Rows; ++r) {
      if (j >= shared && j > (row + r) / group) continue;
      const V pair(pairs[(row + r) * pair_stride + j]);
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v)
        sum[r][v] = simd::fma(sum[r][v], retention[v], pair * write[v]);
    }
  }
  NHA_UNROLL
  for (int r = 0; r < Rows; ++r) {
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v)
      simd::store(logits + (row + r) * logit_stride + slot + v * kLanes, sum[r][v]);
  }
}

}  // namespace detail

/// Turns q . slot_k at the chunk's start into q . slot_k as each query sees it. Row r of logits
/// [count * group, slots] belongs to token r / group, and pairs [count * group, count] holds its
/// products with the entering slot keys:
///   logits[r] <- (... ((logits[r] a_0 + pair_r0 s_0) a_1 + pair_r1 s_1) ...) up to its token.
template <class Arch = simd::default_arch, class T>
void decay_logits(const EnteringGates<T>& gates, Index group, const T* pairs, Index pair_stride,
                  T* logits, Index logit_stride) noexcept {
  assert(is_padded(gates.stride));
  constexpr Index kLanes = simd::lanes<T, Arch>;
  constexpr int kRows = 4;
  constexpr int kVectors = kRowPadding / kLanes < 2 ? 1 : 2;
  const Index rows = gates.count * group;
  for (Index slot = 0; slot < gates.stride; slot += kVectors * kLanes) {
    Index row = 0;
    for (; row + kRows <= rows; row += kRows)
      detail::decay_logits_tile<Arch, kRows, kVectors>(gates, group, row, slot, pairs, pair_stride,
                                                       logits, logit_stride);
    for (; row < rows; ++row)
      detail::decay_logits_tile<Arch, 1, kVectors>(gates, group, row, slot, pairs, pair_stride,
                                                   logits, logit_stride);
  }
}

namespace detail {

/// decay_weights() for one row, `count` tokens from `newest` back, and Vectors vectors of slots:
/// adds to sum[i] what token newest - i is weighted with, still spread over the lanes.
template <class Arch, int Vectors, class T, class V>
NHA_INLINE void decay_weights_tile(const EnteringGates<T>& gates, Index newest, Index count,
                                   Index slot, T* weights, V* sum) noexcept {
  constexpr Index kLanes = simd::lanes<T, Arch>;
  V weight[Vectors];
  NHA_UNROLL
  for (int v = 0; v < Vectors; ++v) weight[v] = simd::load<V>(weights + slot + v * kLanes);
  const T* retention = gates.retention + newest * gates.stride + slot;
  const T* write = gates.write + newest * gates.stride + slot;
  for (Index i = 0; i < count; ++i, retention -= gates.stride, write -= gates.stride) {
    V of_token = sum[i];
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      of_token = simd::fma(weight[v], simd::load<V>(write + v * kLanes), of_token);
      weight[v] = weight[v] * simd::load<V>(retention + v * kLanes);
    }
    sum[i] = of_token;
  }
  NHA_UNROLL
  for (int v = 0; v < Vectors; ++v) simd::store(weights + slot + v * kLanes, weight[v]);
}

/// decay_weights() for one row and `count` tokens from `newest` back, at most as many as a vector
/// has lanes: their sums over the slots end in one vector.
template <class Arch, class T>
NHA_INLINE void decay_weights_block(const EnteringGates<T>& gates, Index newest, Index count,
                                    T* weights, T* token_weights) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr int kLanes = static_cast<int>(simd::lanes<T, Arch>);
  constexpr int kNarrow = std::min(8, static_cast<int>(kRowPadding) / kLanes);
  constexpr int kWide = std::min(8, 4 * kNarrow);
  V sum[kLanes];
  NHA_UNROLL
  for (int i = 0; i < kLanes; ++i) {
    sum[i] = V(T{0});
  }
  Index slot = 0;
  for (; slot + kWide * kLanes <= gates.stride; slot += kWide * kLanes)
    decay_weights_tile<Arch, kWide>(gates, newest, count, slot, weights, sum);
  for (; slot < gates.stride; slot += kNarrow * kLanes)
    decay_weights_tile<Arch, kNarrow>(gates, newest, count, slot, weights, sum);
  T sums[kLanes];
  simd::store(sums, simd::reduce_add_each(sum));
  for (Index i = 0; i < count; ++i) token_weights[newest - i] += sums[i];
}

}  // namespace detail

/// Turns softmax weights on the slots as each query saw them into weights on the slots at the
/// chunk's start, in place, and weights on the tokens that entered since. The latter are added to
/// token_weights [count * group, count]:
///   for j from the row's token down to 0:  token_weights[r, j] += weights[r] . s_j
///                                          weights[r] <- weights[r] a_j
template <class Arch = simd::default_arch, class T>
void decay_weights(const EnteringGates<T>& gates, Index group, T* weights, Index weight_stride,
                   T* token_weights, Index token_stride) noexcept {
  assert(is_padded(gates.stride));
  constexpr int kLanes = static_cast<int>(simd::lanes<T, Arch>);
  const Index rows = gates.count * group;
  for (Index row = 0; row < rows; ++row) {
    const Index last = row / group;
    for (Index newest = last; newest >= gates.first; newest -= kLanes)
      detail::decay_weights_block<Arch>(
          gates, newest, std::min<Index>(kLanes, newest + 1 - gates.first),
          weights + row * weight_stride, token_weights + row * token_stride);
  }
}

/// What the whole chunk does to the slots. `total` [stride] is the product of all retentions.
/// `strength` [count, stride] is what is left of each token's write strength at the chunk's end:
/// s_j times the retentions of the tokens after it. Rows before gates.first are not written.
template <class Arch = simd::default_arch, class T>
void chunk_strengths(const EnteringGates<T>& gates, T* total, T* strength) noexcept {
  assert(is_padded(gates.stride));
  using V = simd::vec<T, Arch>;
  for (Index slot = 0; slot < gates.stride; slot += simd::lanes<T, Arch>) {
    V product(T{1});
    for (Index j = gates.count - 1; j >= gates.first; --j) {
      const Index at = j * gates.stride + slot;
      simd::store(strength + at, simd::load<V>(gates.write + at) * product);
      product = product * simd::load<V>(gates.retention + at);
    }
    simd::store(total + slot, product);
  }
}

/// The inverse and the natural logarithm of `count` masses, a multiple of kRowPadding; 0 and
/// -infinity where a mass is not above 0.
template <class Arch = simd::default_arch, class T>
void mass_terms(const T* mass, Index count, T* inverse, T* log) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  const V least(std::numeric_limits<T>::min());
  for (Index m = 0; m < count; m += simd::lanes<T, Arch>) {
    const V x = simd::load<V>(mass + m);
    simd::store(inverse + m, simd::where_below(x, least, V(T{0}), simd::divide(V(T{1}), x)));
    simd::store(log + m, simd::where_below(x, least, V(-kInfinity<T>), log_positive<T>(x)));
  }
}

/// The mass of each slot as each token of the chunk sees it, `seen` [count, stride], from the mass
/// [stride] at the chunk's start, with its mass_terms().
template <class Arch = simd::default_arch, class T>
void decay_mass(const EnteringGates<T>& gates, const T* mass, T* seen, T* inverse,
                T* log) noexcept {
  assert(is_padded(gates.stride));
  for (Index i = 0; i < gates.count; ++i) {
    for (Index m = 0; m < gates.stride; ++m) {
      const Index at = i * gates.stride + m;
      seen[at] =
          i < gates.first ? mass[m] : multiply_add(gates.retention[at], mass[m], gates.write[at]);
    }
    mass = seen + i * gates.stride;
  }
  mass_terms<Arch>(seen, gates.count * gates.stride, inverse, log);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
