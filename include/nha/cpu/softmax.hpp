// SPDX-License-Identifier: MIT
// Softmax of a row that arrives in pieces: the running maximum and sum, and how a piece is added.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <cmath>

NHA_ISA_NAMESPACE_BEGIN

/// The softmax of the logits seen so far: their maximum and the sum of exp(logit - maximum).
/// Nothing seen: maximum -infinity, sum 0.
template <class T>
struct SoftmaxState {
  T maximum = -kInfinity<T>;
  T sum = T{0};

  /// Natural logarithm of the sum of exp(logit); -infinity where nothing was seen.
  T lse() const noexcept { return sum > T{0} ? maximum + std::log(sum) : -kInfinity<T>; }
  /// What sums of weighted values are multiplied by at the end; 0 where nothing was seen.
  T normalizer() const noexcept { return sum > T{0} ? T{1} / sum : T{0}; }
};

/// exp(before - after) for maxima, where -infinity to -infinity is no change.
template <class T>
NHA_INLINE T rescale_factor(T before, T after) noexcept {
  return before == after ? T{1} : std::exp(before - after);
}

/// Adds a piece of a row to the running softmax: replaces its logits by the weights exp(logit -
/// maximum) and returns the factor by which everything weighted before must be multiplied, because
/// the maximum has grown. count is a multiple of kRowPadding; a logit of -infinity gets weight 0.
template <class Arch = simd::default_arch, class T>
T absorb(SoftmaxState<T>& state, T* row, Index count) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  if (count == 0) return T{1};
  V largest = simd::load<V>(row);
  for (Index i = kLanes; i < count; i += kLanes)
    largest = simd::max(largest, simd::load<V>(row + i));
  const T maximum = std::max(state.maximum, simd::reduce_max(largest));
  const T factor = rescale_factor(state.maximum, maximum);
  const V shift(maximum == -kInfinity<T> ? T{0} : maximum);
  V sum(T{0});
  for (Index i = 0; i < count; i += kLanes) {
    const V weight = exp_nonpositive<T>(simd::load<V>(row + i) - shift);
    simd::store(row + i, weight);
    sum = sum + weight;
  }
  state.maximum = maximum;
  state.sum = state.sum * factor + simd::reduce_add(sum);
  return factor;
}

/// Sum of `count` numbers, a multiple of kRowPadding.
template <class Arch = simd::default_arch, class T>
T sum_row(const T* row, Index count) noexcept {
  using V = simd::vec<T, Arch>;
  V sum(T{0});
  for (Index i = 0; i < count; i += simd::lanes<T, Arch>) sum = sum + simd::load<V>(row + i);
  return simd::reduce_add(sum);
}

NHA_ISA_NAMESPACE_END
