// SPDX-License-Identifier: MIT
// log of positive numbers: what slots read as means need of their mass.
//
// x = 2^n m with m between sqrt(1/2) and sqrt(2), so log(x) = n ln 2 + log(m). And log(m) =
// 2 atanh(s) with s = (m - 1) / (m + 1), which is at most 0.172: the series ends soon.
#pragma once

#include <nha/config.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <limits>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// log(x) for normal numbers x > 0, within 2 ulp; infinity stays infinity and NaN stays NaN. Other
/// numbers give nothing of use.
template <class T, class V>
NHA_INLINE V log_positive(const V& x) noexcept {
  using C = detail::ExpConstants<T>;
  using Bits = typename C::Bits;
  constexpr bool kFloat = std::is_same_v<T, float>;
  // sqrt(1/2), and 2^23 or 2^52, whose last digit is 1.
  constexpr Bits kRootHalf = static_cast<Bits>(kFloat ? 0x3f3504f3u : 0x3fe6a09e667f3bcdu);
  constexpr Bits kWhole = static_cast<Bits>(kFloat ? 0x4b000000u : 0x4330000000000000u);
  constexpr Bits kOne = C::kBias << C::kFractionBits;
  using B = decltype(simd::bits_of<Bits>(x));
  const B bits = simd::bits_of<Bits>(x);
  const B biased = (bits + B(kOne - kRootHalf)) >> C::kFractionBits;
  const V m = simd::bits_of<T>(B(bits + B(kOne) - (biased << C::kFractionBits)));
  const V n = simd::bits_of<T>(B(biased + B(kWhole))) -
              V(static_cast<T>(kFloat ? 8388608.0 : 4503599627370496.0) + static_cast<T>(C::kBias));

  // The first term left out is below a quarter of the rounding of the result.
  constexpr int kTerms = kFloat ? 4 : 10;
  const V s = simd::divide(m - V(T{1}), m + V(T{1}));
  const V square = s * s;
  V sum(T{1} / static_cast<T>(2 * kTerms + 1));
  NHA_UNROLL
  for (int i = 0; i < kTerms - 1; ++i) {
    sum = simd::fma(sum, square, V(T{1} / static_cast<T>(2 * (kTerms - 1 - i) + 1)));
  }
  const V twice = s + s;
  const V tail = simd::fma(twice * square, sum, n * V(C::kLn2Low));
  const V log = simd::fma(n, V(C::kLn2High), twice + tail);
  return simd::where_below(x, V(kInfinity<T>), log, x);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
