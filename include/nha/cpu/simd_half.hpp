// SPDX-License-Identifier: MIT
// Vectors of sums stored in a half type: the part of simd.hpp that rounds, as core/dither.hpp says.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dither.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/simd.hpp>

#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace simd {

/// The dithers of neighbouring columns.
template <class Arch>
using dithers = vec<std::uint32_t, Arch>;

/// The dithers of as many columns as a vector has lanes, from `first`, that of the first, on.
template <class Arch>
NHA_INLINE dithers<Arch> dithers_from(std::uint32_t first) noexcept {
  constexpr auto kLanes = static_cast<std::uint32_t>(lanes<std::uint32_t, Arch>);
  std::uint32_t each[kLanes];
  for (std::uint32_t i = 0; i < kLanes; ++i) each[i] = first + i * kDitherColumn;
  return simd::load<dithers<Arch>>(each);
}

namespace detail {

/// Rounds and stores numbers one by one.
template <class T, class V, class U>
NHA_INLINE V narrow_each(T* p, const V& x, const U& dither) noexcept {
  constexpr std::size_t kLanes = sizeof(V) / sizeof(float);
  float wide[kLanes];
  std::uint32_t each[kLanes];
  simd::store(wide, x);
  simd::store(each, dither);
  for (std::size_t i = 0; i < kLanes; ++i)
    wide[i] = widen(p[i] = round_dithered(wide[i], each[i], T()));
  return simd::load<V>(wide);
}

#if !defined(NHA_DETAIL_NO_VECTORS)
/// The upper halves of 32-bit numbers, stored as 16-bit ones.
template <class U>
NHA_INLINE void store_upper_halves(std::uint16_t* p, const U& words) noexcept {
#if defined(__AVX512F__)
  if constexpr (sizeof(U) == 64) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                        _mm512_cvtepi32_epi16(_mm512_srli_epi32(words, 16)));
    return;
  }
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(U) == 32) {
    const __m256i low = _mm256_srli_epi32(words, 16);
    _mm_storeu_si128(
        reinterpret_cast<__m128i*>(p),
        _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256(low, 1)));
    return;
  }
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(U) == 16) {
    // Shifted with their signs the words fit 16 bits with sign, which SSE2 packs.
    const __m128i low = _mm_srai_epi32(words, 16);
    _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi32(low, low));
    return;
  }
#elif defined(__aarch64__)
  if constexpr (sizeof(U) == 16) {
    vst1_u16(p, vshrn_n_u32(words, 16));
    return;
  }
#endif
  constexpr std::size_t kLanes = sizeof(U) / sizeof(std::uint32_t);
  std::uint32_t each[kLanes];
  simd::store(each, words);
  for (std::size_t i = 0; i < kLanes; ++i) p[i] = static_cast<std::uint16_t>(each[i] >> 16);
}
#endif

template <class V, class U>
NHA_INLINE V narrow_vector(bfloat16* p, const V& x, const U& dither) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS)
  if constexpr (!Number<V>) {
    // Nothing is added to a NaN: the sum might be a number.
    const U numbers = bits_of<std::uint32_t>(xsimd::bitwise_cast(x == x));
    const U rounded = bits_of<std::uint32_t>(x) + ((dither >> 16) & numbers);
    store_upper_halves(&p->bits, rounded);
    return bits_of<float>(rounded & U(0xffff0000u));
  }
#endif
  return narrow_each(p, x, dither);
}

template <class V, class U>
NHA_INLINE V narrow_vector(float16* p, const V& x, const U& dither) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__F16C__)
  if constexpr (!Number<V>) {
    // 2^e for x between 2^e and 2^(e+1), of x's sign; as for the least normal number below it,
    // where the stored numbers are as far apart, and finite for what is not.
    using I = vec<std::int32_t, typename V::arch_type>;
    const U word = bits_of<std::uint32_t>(x);
    const V power =
        xsimd::min(simd::max(bits_of<float>(word & U(0x7f800000u)), V(0x1p-14f)), V(0x1p15f));
    const V signed_power = bits_of<float>(bits_of<std::uint32_t>(power) | (word & U(0x80000000u)));
    const V fraction = xsimd::to_float(I(bits_of<std::int32_t>(dither >> 19)));
    const V moved = simd::fma(signed_power, fraction * V(0x1p-23f), x);
    constexpr int kTowardsZero = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
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
/// has been stored. A NaN must be as arithmetic makes it, quiet.
template <class T, class V, class U>
NHA_INLINE V store_narrow(T* p, const V& x, const U& dither) noexcept {
  return detail::narrow_vector(p, x, dither);
}

}  // namespace simd

NHA_ISA_NAMESPACE_END
