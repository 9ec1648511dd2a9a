// SPDX-License-Identifier: MIT
// The backward of the softmax of a row, with weights p and their cotangents d_p:
//   d_logit_n = p_n (d_p_n - sum_k p_k d_p_k + d_lse).
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <cassert>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// Sum of a[i] * b[i] for `count` numbers, a multiple of kRowPadding.
template <class Arch = simd::default_arch, class T>
T dot_row(const T* a, const T* b, Index count) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  V even(T{0}), odd(T{0});
  Index i = 0;
  for (; i + 2 * kLanes <= count; i += 2 * kLanes) {
    even = simd::fma(simd::load<V>(a + i), simd::load<V>(b + i), even);
    odd = simd::fma(simd::load<V>(a + i + kLanes), simd::load<V>(b + i + kLanes), odd);
  }
  for (; i < count; i += kLanes) even = simd::fma(simd::load<V>(a + i), simd::load<V>(b + i), even);
  return simd::reduce_add(even + odd);
}

/// row[i] *= factor for `count` numbers, a multiple of kRowPadding.
template <class Arch = simd::default_arch, class T>
void scale_row(T* row, Index count, T factor) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  for (Index i = 0; i < count; i += simd::lanes<T, Arch>)
    simd::store(row + i, simd::load<V>(row + i) * V(factor));
}

/// Replaces `count` logits, a multiple of kRowPadding, by the weights exp(logit - lse); 0 where
/// nothing was seen, lse being -infinity.
template <class Arch = simd::default_arch, class T>
void weigh_row(T* row, Index count, T lse) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  const V shift(lse == -kInfinity<T> ? T{0} : lse);
  for (Index i = 0; i < count; i += simd::lanes<T, Arch>)
    simd::store(row + i, exp_nonpositive<T>(simd::load<V>(row + i) - shift));
}

/// Replaces `count` numbers d_p, a multiple of kRowPadding, by d_logit = p (d_p + shift). The shift
/// is d_lse minus the sum of p d_p over all of the softmax.
template <class Arch = simd::default_arch, class T>
void softmax_backward_row(const T* p, T* d, Index count, T shift) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  for (Index i = 0; i < count; i += simd::lanes<T, Arch>)
    simd::store(d + i, simd::load<V>(p + i) * (simd::load<V>(d + i) + V(shift)));
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
