// SPDX-License-Identifier: MIT
// SoftmaxState: what is kept of a softmax whose logits arrive in pieces, and how two are merged.
#pragma once

#include <nha/config.hpp>
#include <nha/core/host_device.hpp>
#include <nha/core/numeric.hpp>

#include <cmath>

NHA_NAMESPACE_BEGIN

/// The softmax of the logits seen so far: their maximum and the sum of exp(logit - maximum).
/// Nothing seen: maximum -infinity, sum 0.
template <class T>
struct SoftmaxState {
  T maximum = -kInfinity<T>;
  T sum = T{0};

  /// Natural logarithm of the sum of exp(logit); -infinity where nothing was seen.
  NHA_HOST_DEVICE NHA_INLINE T lse() const noexcept {
    return sum > T{0} ? maximum + std::log(sum) : -kInfinity<T>;
  }
  /// What sums of weighted values are multiplied by at the end; 0 where nothing was seen.
  NHA_HOST_DEVICE NHA_INLINE T normalizer() const noexcept {
    return sum > T{0} ? T{1} / sum : T{0};
  }
};

/// exp(before - after) for maxima, where -infinity to -infinity is no change.
template <class T>
NHA_HOST_DEVICE NHA_INLINE T rescale_factor(T before, T after) noexcept {
  if (before == after) return T{1};
  return before == -kInfinity<T> ? T{0} : std::exp(before - after);
}

NHA_NAMESPACE_END
