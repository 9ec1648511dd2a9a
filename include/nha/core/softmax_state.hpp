// SPDX-License-Identifier: MIT
// SoftmaxState: what is kept of a softmax whose logits arrive in pieces, and how two are merged.
//
// The kernels, CUDA and several machines share this one definition. Nothing seen is maximum
// -infinity and sum 0. A NaN among the logits, or +infinity, makes the sum NaN, and so every
// result.
#pragma once

#include <nha/config.hpp>
#include <nha/core/host_device.hpp>
#include <nha/core/numeric.hpp>

#include <cmath>

NHA_NAMESPACE_BEGIN

/// exp(before - after) for maxima, where -infinity to -infinity is no change.
template <class T>
NHA_HOST_DEVICE NHA_INLINE T rescale_factor(T before, T after) noexcept {
  if (before == after) return T{1};
  return before == -kInfinity<T> ? T{0} : std::exp(before - after);
}

/// The softmax of the logits seen so far: their maximum and the sum of exp(logit - maximum).
template <class T>
struct SoftmaxState {
  T maximum = -kInfinity<T>;
  T sum = T{0};

  /// Makes ready for logits of which `largest` is the largest. Returns the factor by which all that
  /// was weighted before must be multiplied.
  NHA_HOST_DEVICE NHA_INLINE T update(T largest) noexcept {
    const T after = maximum < largest ? largest : maximum;
    const T kept = rescale_factor(maximum, after);
    sum *= kept;
    maximum = after;
    return kept;
  }

  /// What either side of a merge must be multiplied by.
  struct MergeFactors {
    T ours, theirs;
  };
  /// Adds what another softmax has seen.
  NHA_HOST_DEVICE NHA_INLINE MergeFactors merge(const SoftmaxState& other) noexcept {
    const T ours = update(other.maximum);
    const T theirs = rescale_factor(other.maximum, maximum);
    sum += other.sum * theirs;
    return {ours, theirs};
  }

  /// Natural logarithm of the sum of exp(logit); -infinity where nothing was seen.
  NHA_HOST_DEVICE NHA_INLINE T lse() const noexcept {
    return sum == T{0} ? -kInfinity<T> : maximum + std::log(sum);
  }
  /// What sums of weighted values are multiplied by at the end; 0 where nothing was seen.
  NHA_HOST_DEVICE NHA_INLINE T normalizer() const noexcept {
    return sum == T{0} ? T{0} : T{1} / sum;
  }
};

NHA_NAMESPACE_END
