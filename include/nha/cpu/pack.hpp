// SPDX-License-Identifier: MIT
// Copies from the caller's tensors and the state into the rows and panels that the kernels read.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/transpose.hpp>

#include <algorithm>
#include <cassert>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// out[i] = factor * widen(in[i]) for `count` numbers, and 0 up to padded(count).
template <class T>
NHA_INLINE void pack_scaled_row(const T* in, Index count, accumulate_t<T> factor,
                                accumulate_t<T>* out) noexcept {
  using V = simd::vec<accumulate_t<T>, simd::default_arch>;
  constexpr Index kLanes = simd::lanes<accumulate_t<T>, simd::default_arch>;
  Index i = 0;
  for (; i + kLanes <= count; i += kLanes)
    simd::store(out + i, V(simd::load_wide<V>(in + i) * V(factor)));
  for (; i < count; ++i) out[i] = factor * widen(in[i]);
  for (; i < padded(count); ++i) out[i] = 0;
}

/// out[i] = widen(in[i]), and 0 up to padded(count).
template <class T>
NHA_INLINE void pack_row(const T* in, Index count, accumulate_t<T>* out) noexcept {
  pack_scaled_row(in, count, accumulate_t<T>{1}, out);
}

/// Whether `count` numbers, a multiple of kRowPadding, are all finite.
template <class T>
NHA_INLINE bool all_finite(const T* row, Index count) noexcept {
  using V = simd::vec<T, simd::default_arch>;
  constexpr Index kLanes = simd::lanes<T, simd::default_arch>;
  assert(is_padded(count));
  V zero(T{0}), other(T{0});  // 0 times what is not finite is NaN, and stays in the sum
  Index i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    zero = simd::fma(simd::load<V>(row + i), V(T{0}), zero);
    other = simd::fma(simd::load<V>(row + i + kLanes), V(T{0}), other);
  }
  for (; i < count; i += kLanes) zero = simd::fma(simd::load<V>(row + i), V(T{0}), zero);
  return simd::reduce_add(zero + other) == T{0};
}

/// Puts one key into column `column` of panels [count / 16][key_dim][16], where a score product
/// finds the keys of 16 tokens side by side.
template <class T>
NHA_INLINE void pack_key_column(const T* key, Index key_dim, Index column,
                                accumulate_t<T>* panels) noexcept {
  accumulate_t<T>* out =
      panels + column / kRowPadding * key_dim * kRowPadding + column % kRowPadding;
  for (Index d = 0; d < key_dim; ++d) out[d * kRowPadding] = widen(key[d]);
}

/// Puts `count` keys into the columns from `column` on; key_at(i) is the i-th. Whole fours of them
/// are transposed in registers.
template <class T, class KeyAt>
void pack_key_columns(Index count, KeyAt&& key_at, Index key_dim, Index column,
                      accumulate_t<T>* panels) noexcept {
  Index i = 0;
  while (i < count) {
    const Index at = column + i;
    if (at % 4 != 0 || i + 4 > count) {
      pack_key_column<T>(key_at(i++), key_dim, at, panels);
      continue;
    }
    const T* const keys[4] = {key_at(i), key_at(i + 1), key_at(i + 2), key_at(i + 3)};
    accumulate_t<T>* out = panels + at / kRowPadding * key_dim * kRowPadding + at % kRowPadding;
    Index d = 0;
    for (; d + 4 <= key_dim; d += 4) {
      const T* const rows[4] = {keys[0] + d, keys[1] + d, keys[2] + d, keys[3] + d};
      simd::transpose_four(rows, out + d * kRowPadding, kRowPadding);
    }
    for (; d < key_dim; ++d)
      for (int k = 0; k < 4; ++k) out[d * kRowPadding + k] = widen(keys[k][d]);
    i += 4;
  }
}

/// Turns `rows` rows of `columns` numbers: out[j * out_stride + i] = in[i * in_stride + j], and 0
/// from out[j * out_stride + rows] up to padded(rows).
template <class T>
void transpose(const T* in, Index rows, Index columns, Index in_stride, T* out,
               Index out_stride) noexcept {
  for (Index j = 0; j < columns; ++j)
    std::fill(out + j * out_stride + rows, out + j * out_stride + padded(rows), T{0});
  Index i = 0;
  for (; i + 4 <= rows; i += 4) {
    const T* at = in + i * in_stride;
    Index j = 0;
    for (; j + 4 <= columns; j += 4) {
      const T* const four[4] = {at + j, at + in_stride + j, at + 2 * in_stride + j,
                                at + 3 * in_stride + j};
      simd::transpose_four(four, out + j * out_stride + i, out_stride);
    }
    for (; j < columns; ++j)
      for (int k = 0; k < 4; ++k) out[j * out_stride + i + k] = at[k * in_stride + j];
  }
  for (; i < rows; ++i)
    for (Index j = 0; j < columns; ++j) out[j * out_stride + i] = in[i * in_stride + j];
}

/// Retention exp(log_gate) and write strengths of one token, `slots` of them; a null `given` takes
/// 1 - exp(log_gate). Padding up to padded(slots) retains all and writes nothing. Every path of the
/// operator computes gates here, so that a token has the same bits however it arrived.
template <class Arch = simd::default_arch, class T>
void pack_gates(const T* log_gate, const T* given, Index slots, T* retention, T* write) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  const auto convert = [&](const T* from, Index m) NHA_INLINE_LAMBDA {
    V keep, add;
    exp_and_complement<T>(simd::load<V>(from), keep, add);
    simd::store(retention + m, keep);
    simd::store(write + m, add);
  };
  Index m = 0;
  for (; m + kLanes <= slots; m += kLanes) convert(log_gate + m, m);
  if (m < slots) {
    T rest[kLanes] = {};
    std::copy(log_gate + m, log_gate + slots, rest);
    convert(rest, m);
    m += kLanes;
  }
  for (; m < padded(slots); m += kLanes) {
    simd::store(retention + m, V(T{1}));
    simd::store(write + m, V(T{0}));
  }
  if (given != nullptr) std::copy_n(given, slots, write);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
