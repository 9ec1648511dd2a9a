// SPDX-License-Identifier: MIT
// Four rows of four numbers as four columns, in registers where floats come in fours.
//
// The registers are four floats wide for every instruction set. xsimd's batches of that width have
// one name in files of unlike -march, and other machine code in each; the type here has a name for
// each.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/simd.hpp>

#include <type_traits>

#if !defined(NHA_DETAIL_NO_VECTORS) && (defined(__SSE2__) || defined(__aarch64__))
#define NHA_DETAIL_FOUR_FLOATS
#endif

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

namespace simd {

#if defined(NHA_DETAIL_FOUR_FLOATS)
namespace detail {

/// A register of four floats.
struct FourFloats {
#if defined(__SSE2__)
  using Register = __m128;
#else
  using Register = float32x4_t;
#endif
  using value_type = float;
  Register value;

  NHA_INLINE explicit FourFloats(Register r) noexcept : value(r) {}
  NHA_INLINE static FourFloats load_unaligned(const float* p) noexcept {
#if defined(__SSE2__)
    return FourFloats(_mm_loadu_ps(p));
#else
    return FourFloats(vld1q_f32(p));
#endif
  }
  NHA_INLINE void store_unaligned(float* p) const noexcept {
#if defined(__SSE2__)
    _mm_storeu_ps(p, value);
#else
    vst1q_f32(p, value);
#endif
  }
};

/// a0 b0 a1 b1.
NHA_INLINE FourFloats zip_low(const FourFloats& a, const FourFloats& b) noexcept {
#if defined(__SSE2__)
  return FourFloats(_mm_unpacklo_ps(a.value, b.value));
#else
  return FourFloats(vzip1q_f32(a.value, b.value));
#endif
}
/// a2 b2 a3 b3.
NHA_INLINE FourFloats zip_high(const FourFloats& a, const FourFloats& b) noexcept {
#if defined(__SSE2__)
  return FourFloats(_mm_unpackhi_ps(a.value, b.value));
#else
  return FourFloats(vzip2q_f32(a.value, b.value));
#endif
}

}  // namespace detail
#endif

/// Four rows of four numbers as four columns: out[i * stride + r] = widen(rows[r][i]).
template <class T>
NHA_INLINE void transpose_four(const T* const (&rows)[4], accumulate_t<T>* out,
                               Index stride) noexcept {
#if defined(NHA_DETAIL_FOUR_FLOATS)
  if constexpr (std::is_same_v<accumulate_t<T>, float>) {
    using V = detail::FourFloats;
    const V row0 = simd::load_wide<V>(rows[0]), row1 = simd::load_wide<V>(rows[1]);
    const V row2 = simd::load_wide<V>(rows[2]), row3 = simd::load_wide<V>(rows[3]);
    const V even_low = detail::zip_low(row0, row2), odd_low = detail::zip_low(row1, row3);
    const V even_high = detail::zip_high(row0, row2), odd_high = detail::zip_high(row1, row3);
    detail::zip_low(even_low, odd_low).store_unaligned(out);
    detail::zip_high(even_low, odd_low).store_unaligned(out + stride);
    detail::zip_low(even_high, odd_high).store_unaligned(out + 2 * stride);
    detail::zip_high(even_high, odd_high).store_unaligned(out + 3 * stride);
    return;
  }
#endif
  for (int r = 0; r < 4; ++r)
    for (int i = 0; i < 4; ++i) out[i * stride + r] = widen(rows[r][i]);
}

}  // namespace simd

}  // namespace cpu

NHA_ISA_NAMESPACE_END
