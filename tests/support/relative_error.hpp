// SPDX-License-Identifier: MIT
// How far two results differ: what nearly every test is judged by.
#pragma once

#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/tensor.hpp>

#include <algorithm>
#include <cmath>

namespace nha_test {

using nha::Index;

/// The error of one element counts a sixteenth: that of the worst of many, of which rounding makes
/// some as large as a few times their usual error, is then within the tolerance for all.
inline constexpr double kOfOneElement = 16;

/// Numbers that are smaller throughout count as 0: products of so small ones vanish in one order of
/// multiplying and not in another, and kernels take subnormal numbers as 0.
inline constexpr double kVanishing = 1e-250;

/// How far `a` is from `b`, relative to `b`. The larger of
/// - ||a - b|| / ||b||, and
/// - a sixteenth of the largest error of one element, relative to that element of b or to the root
///   mean square of b, whichever is larger: so that one wrong element shows among any number.
///
/// The largest difference where b is 0 throughout, or as good as 0. Infinity where there is a NaN, or an infinity
/// that is not the same on both sides; equal infinities are equal.
template <class A, class B>
double relative_error(const A* a, const B* b, Index count) {
  const auto at = [](const auto* values, Index i) {
    return static_cast<double>(nha::widen(values[i]));
  };
  double scale = 0, largest = 0;  // the scale keeps squares from overflowing and vanishing
  Index finite = 0;
  for (Index i = 0; i < count; ++i) {
    const double x = at(a, i), y = at(b, i);
    if (!std::isfinite(x) || !std::isfinite(y)) {
      if (x == y) continue;
      return INFINITY;
    }
    ++finite;
    scale = std::max(scale, std::abs(y));
    largest = std::max(largest, std::abs(x - y));
  }
  if (largest == 0 || scale < kVanishing) return largest;
  double difference = 0, norm = 0;
  for (Index i = 0; i < count; ++i) {
    const double x = at(a, i), y = at(b, i);
    if (!std::isfinite(y)) continue;
    const double d = x / scale - y / scale;
    difference += d * d;
    norm += (y / scale) * (y / scale);
  }
  const double rms = std::sqrt(norm / static_cast<double>(finite));
  double worst = 0;
  for (Index i = 0; i < count; ++i) {
    const double x = at(a, i), y = at(b, i);
    if (!std::isfinite(y)) continue;
    worst = std::max(worst, std::abs(x / scale - y / scale) / std::max(std::abs(y / scale), rms));
  }
  return std::max(std::sqrt(difference / norm), worst / kOfOneElement);
}
/// Infinity if the shapes differ.
template <class A, class B, int Rank>
double relative_error(const nha::Tensor<A, Rank>& a, const nha::Tensor<B, Rank>& b) {
  return a.extents() == b.extents() ? relative_error(a.data(), b.data(), a.size()) : INFINITY;
}

}  // namespace nha_test
