// SPDX-License-Identifier: MIT
// Vectors of sums stored in a half type: the part of simd.hpp that rounds, as core/dither.hpp says.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dither.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/simd.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

namespace simd {

/// The dithers of neighbouring columns.
template <class Arch>
using dithers = vec<std::uint32_t, Arch>;

/// The dithers of every `Stride`-th column from `column` on; `row_start` is that of column 0.
template <class Arch, Index Stride = 1>
NHA_INLINE dithers<Arch> dithers_from(std::uint32_t row_start, Index column) noexcept {
  constexpr auto kLanes = static_cast<std::size_t>(lanes<std::uint32_t, Arch>);
  std::uint32_t each[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i)
    each[i] = row_start + dither(0, 0, column + static_cast<Index>(i) * Stride);
  return simd::load<dithers<Arch>>(each);
}

namespace detail {

/// Rounds and stores one number. Not inlined: without vectors, GCC 12 at -O3 makes vectors of the
/// loop around it by itself and then rounds some numbers by the dither of others.
template <class T>
NHA_NOINLINE float narrow_one(T* p, float x, std::uint32_t dither) noexcept {
  return widen(*p = round_dithered(x, dither, T()));
}

/// Rounds and stores numbers one by one.
template <class T, class V, class U>
NHA_INLINE V narrow_each(T* p, const V& x, const U& dither) noexcept {
  if constexpr (Number<V>) return narrow_one(p, x, dither);
  constexpr std::size_t kLanes = sizeof(V) / sizeof(float);
  float wide[kLanes];
  std::uint32_t each[kLanes];
  simd::store(wide, x);
  simd::store(each, dither);
  for (std::size_t i = 0; i < kLanes; ++i)
    wide[i] = widen(p[i] = round_dithered(wide[i], each[i], T()));
  return simd::load<V>(wide);
}

/// The upper halves of 32-bit numbers, stored as 16-bit ones.
template <class U>
NHA_INLINE void store_upper_halves(bfloat16* p, const U& words) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS)
#if defined(__AVX512F__)
  if constexpr (sizeof(U) == 64)
    return _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                               _mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(U) == 32) {
    const __m256i upper = _mm256_srli_epi32(words, 16);
    return _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi32(_mm256_castsi256_si128(upper), _mm256_extracti128_si256(upper, 1)));
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(U) == 16) {
    // Shifted with their signs the words fit 16 bits with sign, which is what SSE2 packs.
    const __m128i upper = _mm_srai_epi32(words, 16);
    return _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(upper, upper));
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(U) == 16)
    return vst1_u16(reinterpret_cast<std::uint16_t*>(p), vshrn_n_u32(words, 16));
#endif
#endif
  constexpr std::size_t kLanes = sizeof(U) / sizeof(std::uint32_t);
  std::uint32_t each[kLanes];
  simd::store(each, words);
  for (std::size_t i = 0; i < kLanes; ++i) p[i].bits = static_cast<std::uint16_t>(each[i] >> 16);
}

template <class V, class U>
NHA_INLINE V narrow_vector(bfloat16* p, const V& x, const U& dither) noexcept {
  if constexpr (Number<V>) return narrow_one(p, x, dither);
  const U rounded = bits_of<std::uint32_t>(x) + (dither >> 16);
  store_upper_halves(p, rounded);
  return bits_of<float>(U(rounded & U(0xffff0000u)));
}

template <class V, class U>
NHA_INLINE V narrow_vector(float16* p, const V& x, const U& dither) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__F16C__)
  constexpr int kTowardsZero = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
  if constexpr (!Number<V>) {
    const V moved = bits_of<float>(U(bits_of<std::uint32_t>(x) + (dither >> 19)));
#if defined(__AVX512F__)
    if constexpr (sizeof(V) == 64) {
      const __m256i stored = _mm512_cvtps_ph(moved, kTowardsZero);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), stored);
      return V(_mm512_cvtph_ps(stored));
    }
#endif
    if constexpr (sizeof(V) == 32) {
      const __m128i stored = _mm256_cvtps_ph(moved, kTowardsZero);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(p), stored);
      return V(_mm256_cvtph_ps(stored));
    }
    if constexpr (sizeof(V) == 16) {
      const __m128i stored = _mm_cvtps_ph(moved, kTowardsZero);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(p), stored);
      return V(_mm_cvtph_ps(stored));
    }
  }
#endif
  return narrow_each(p, x, dither);
}

}  // namespace detail

/// Stores sums in a half type, each rounded by its dither as round_dithered() does, and gives what
/// has been stored. A NaN must be settled(): it would become a number if the dither carried through
/// all of its digits.
template <class T, class V, class U>
NHA_INLINE V store_narrow(T* p, const V& x, const U& dither) noexcept {
  return detail::narrow_vector(p, x, dither);
}

/// NaN with no digits but the first, so that adding a dither leaves it one; other numbers as they
/// are. Arithmetic on settled numbers gives such ones.
template <class V>
NHA_INLINE V settled(const V& x) noexcept {
  const V nan(std::numeric_limits<float>::quiet_NaN());
  if constexpr (Number<V>) return x == x ? x : nan;
#if !defined(NHA_DETAIL_NO_VECTORS)
  else
    return xsimd::select(x == x, x, nan);
#endif
}

/// Whether neighbouring bfloat16 numbers are, two at a time, 32-bit words with the first one low.
inline constexpr bool kPairsOfHalves = std::endian::native == std::endian::little;

/// As many pairs of neighbours as a vector has lanes, by shifts alone: the first of each and the
/// second of each.
template <class U, class V>
NHA_INLINE void load_pairs(const bfloat16* p, V& first, V& second) noexcept {
  const U words = simd::load<U>(reinterpret_cast<const std::uint32_t*>(p));
  first = bits_of<float>(U(words << 16));
  second = bits_of<float>(U(words & U(0xffff0000u)));
}
/// Rounds and stores such pairs and leaves what has been stored.
template <class U, class V>
NHA_INLINE void store_pairs(bfloat16* p, V& first, V& second, const U& first_dither,
                            const U& second_dither) noexcept {
  const U mask(0xffff0000u);
  const U low = (bits_of<std::uint32_t>(first) + (first_dither >> 16)) & mask;
  const U high = (bits_of<std::uint32_t>(second) + (second_dither >> 16)) & mask;
  simd::store(reinterpret_cast<std::uint32_t*>(p), U((low >> 16) | high));
  first = bits_of<float>(low);
  second = bits_of<float>(high);
}
/// Two vectors of neighbours as the first of each pair and the second of each. In intrinsics, since
/// xsimd 8.1's shuffles of wide vectors of floats stay inside 128 bits.
template <class V>
NHA_INLINE void split_pairs(V& low, V& high) noexcept {
  const V a = low, b = high;
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    const __m512i even =
        _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    low = V(_mm512_permutex2var_ps(a, even, b));
    high = V(_mm512_permutex2var_ps(a, _mm512_add_epi32(even, _mm512_set1_epi32(1)), b));
    return;
  }
#endif
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__AVX2__)
  if constexpr (sizeof(V) == 32) {
    const auto in_order = [](__m256 x) NHA_INLINE_LAMBDA {
      return V(_mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(x), 0xd8)));
    };
    low = in_order(_mm256_shuffle_ps(a, b, 0x88));
    high = in_order(_mm256_shuffle_ps(a, b, 0xdd));
    return;
  }
#endif
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__SSE2__)
  if constexpr (sizeof(V) == 16) {
    low = V(_mm_shuffle_ps(a, b, 0x88));
    high = V(_mm_shuffle_ps(a, b, 0xdd));
    return;
  }
#endif
  constexpr std::size_t kLanes = sizeof(V) / sizeof(float);
  float each[2 * kLanes], first[kLanes], second[kLanes];
  simd::store(each, a);
  simd::store(each + kLanes, b);
  for (std::size_t i = 0; i < kLanes; ++i) {
    first[i] = each[2 * i];
    second[i] = each[2 * i + 1];
  }
  low = simd::load<V>(first);
  high = simd::load<V>(second);
}
/// The other way.
template <class V>
NHA_INLINE void join_pairs(V& first, V& second) noexcept {
  const V a = first, b = second;
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__AVX512F__)
  if constexpr (sizeof(V) == 64) {
    const __m512i places =
        _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    first = V(_mm512_permutex2var_ps(a, places, b));
    second = V(_mm512_permutex2var_ps(a, _mm512_add_epi32(places, _mm512_set1_epi32(8)), b));
    return;
  }
#endif
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__AVX2__)
  if constexpr (sizeof(V) == 32) {
    const __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    first = V(_mm256_permute2f128_ps(low, high, 0x20));
    second = V(_mm256_permute2f128_ps(low, high, 0x31));
    return;
  }
#endif
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__SSE2__)
  if constexpr (sizeof(V) == 16) {
    first = V(_mm_unpacklo_ps(a, b));
    second = V(_mm_unpackhi_ps(a, b));
    return;
  }
#endif
  constexpr std::size_t kLanes = sizeof(V) / sizeof(float);
  float each[2 * kLanes], low[kLanes], high[kLanes];
  simd::store(low, a);
  simd::store(high, b);
  for (std::size_t i = 0; i < kLanes; ++i) {
    each[2 * i] = low[i];
    each[2 * i + 1] = high[i];
  }
  first = simd::load<V>(each);
  second = simd::load<V>(each + kLanes);
}

}  // namespace simd

}  // namespace cpu

NHA_ISA_NAMESPACE_END
