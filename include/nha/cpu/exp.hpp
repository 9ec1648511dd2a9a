// SPDX-License-Identifier: MIT
// exp and expm1 of numbers that are 0 or less: all the softmax and the gates need.
//
// x = n ln 2 + r with |r| <= ln 2 / 2, so exp(x) = 2^n (1 + t) and exp(x) - 1 = 2^n t + (2^n - 1),
// where t = exp(r) - 1 is one polynomial. Both cost little more than one of them.
#pragma once

#include <nha/config.hpp>
#include <nha/cpu/simd.hpp>

#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

namespace detail {

/// Constants of the reduction and the polynomial: t = r + r^2 (c[0] + c[1] r + ...), minimax on
/// |r| <= ln 2 / 2 for the relative error, 1.3e-8 in float and 2e-17 in double.
template <class T>
struct ExpConstants;

template <>
struct ExpConstants<float> {
  using Bits = std::uint32_t;
  static constexpr int kFractionBits = 23;
  static constexpr Bits kBias = 127;
  static constexpr float kLog2e = 1.44269504f;
  // ln 2 in two parts; n times the first is exact.
  static constexpr float kLn2High = 0.693359375f;
  static constexpr float kLn2Low = -2.12194440e-4f;
  // Adding 1.5 * 2^23 leaves the nearest whole number in the low bits.
  static constexpr float kRounder = 12582912.0f;
  // Below this exp(x) is not a normal number and is taken as 0.
  static constexpr float kLeast = -87.3365402f;
  static constexpr float kPolynomial[] = {0.4999999815f, 0.1666654342f, 0.04166720073f,
                                          0.008366547119f, 0.001388251521f};
};

template <>
struct ExpConstants<double> {
  using Bits = std::uint64_t;
  static constexpr int kFractionBits = 52;
  static constexpr Bits kBias = 1023;
  static constexpr double kLog2e = 1.4426950408889634074;
  static constexpr double kLn2High = 0.693145751953125;
  static constexpr double kLn2Low = 1.42860682030941723212e-6;
  static constexpr double kRounder = 6755399441055744.0;
  static constexpr double kLeast = -708.396418532264106;
  static constexpr double kPolynomial[] = {
      0.50000000000000000085,   0.16666666666666676547,   0.041666666666666508132,
      0.0083333333333216543387, 0.0013888888888962616281, 0.00019841269886073012692,
      2.4801587172206216784e-5, 2.7557244254638500161e-6, 2.7557402797393250847e-7,
      2.5109024307166103145e-8, 2.0875321791412024948e-9};
};

/// 2^n and t of the reduction above.
template <class T, class V>
NHA_INLINE void reduce_exp(const V& x, V& power, V& t) noexcept {
  using C = ExpConstants<T>;
  const V shifted = simd::fma(x, V(C::kLog2e), V(C::kRounder));
  const V n = shifted - V(C::kRounder);
  const V r = simd::fma(n, V(-C::kLn2Low), simd::fma(n, V(-C::kLn2High), x));
  constexpr int kTerms = static_cast<int>(sizeof C::kPolynomial / sizeof(T));
  V sum(C::kPolynomial[kTerms - 1]);
  NHA_UNROLL
  for (int i = 0; i < kTerms - 1; ++i) sum = simd::fma(sum, r, V(C::kPolynomial[kTerms - 2 - i]));
  t = simd::fma(sum, r * r, r);
  const auto bits = simd::bits_of<typename C::Bits>(shifted);
  power = simd::bits_of<T>((bits + decltype(bits)(C::kBias)) << C::kFractionBits);
}

}  // namespace detail

/// exp(x) for x <= 0, within 2 ulp; -infinity gives 0, as does all below the least normal result
/// (x < -87.34 in float, -708.4 in double). NaN stays NaN.
template <class T, class V>
NHA_INLINE V exp_nonpositive(const V& x) noexcept {
  V power, t;
  detail::reduce_exp<T>(x, power, t);
  return simd::where_below(x, V(detail::ExpConstants<T>::kLeast), V(T{0}),
                           simd::fma(power, t, power));
}

/// exp(x) and 1 - exp(x) for x <= 0, each within 2 ulp, the second also near 0.
template <class T, class V>
NHA_INLINE void exp_and_complement(const V& x, V& exp, V& complement) noexcept {
  V power, t;
  detail::reduce_exp<T>(x, power, t);
  const V least(detail::ExpConstants<T>::kLeast);
  exp = simd::where_below(x, least, V(T{0}), simd::fma(power, t, power));
  complement = simd::where_below(x, least, V(T{1}), V(T{0}) - simd::fma(power, t, power - V(T{1})));
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
