// SPDX-License-Identifier: MIT
// log1p of numbers from 0 to 1: what log(sigmoid) needs.
//
// log(1 + x) = 2 atanh(s) with s = x / (2 + x), which is at most 1/3, so that the series
// 2 s (1 + s^2 / 3 + s^4 / 5 + ...) ends soon.
#pragma once

#include <nha/config.hpp>
#include <nha/cpu/simd.hpp>

#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// log(1 + x) for x in [0, 1], within 2 ulp, also near 0. NaN stays NaN.
template <class T, class V>
NHA_INLINE V log1p_unit(const V& x) noexcept {
  // The first term left out is below a quarter of the rounding of the result.
  constexpr int kTerms = std::is_same_v<T, float> ? 6 : 15;
  const V twice = simd::divide(x + x, x + V(T{2}));
  const V square = twice * twice * V(T{0.25});
  V sum(T{1} / static_cast<T>(2 * kTerms + 1));
  NHA_UNROLL
  for (int i = 0; i < kTerms - 1; ++i) {
    sum = simd::fma(sum, square, V(T{1} / static_cast<T>(2 * (kTerms - 1 - i) + 1)));
  }
  return simd::fma(twice * square, sum, twice);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
