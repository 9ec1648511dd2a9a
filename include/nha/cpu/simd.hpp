// SPDX-License-Identifier: MIT
// Vectors of numbers for the kernels: xsimd batches, or plain numbers where SIMD is off.
//
// This header and simd_half.hpp, which stores half types, are the only ones that name xsimd, and
// the only places for what differs between instruction sets and between xsimd 8.1 and later
// releases. Kernels take the architecture as a template parameter, Arch, and write vec<T, Arch> and
// the functions below.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>

#include <algorithm>
#include <bit>
#include <cassert>
#include <cmath>
#include <cstddef>
#include <type_traits>
#include <utility>

#if !defined(NHA_DISABLE_SIMD)
#include <xsimd/xsimd.hpp>
#if defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif
#if XSIMD_VERSION_MAJOR < 8 || (XSIMD_VERSION_MAJOR == 8 && XSIMD_VERSION_MINOR < 1)
#error "nha needs xsimd 8.1 or later"
#endif
#if defined(XSIMD_NO_SUPPORTED_ARCHITECTURE)
#define NHA_DETAIL_NO_VECTORS
#endif
#else
#define NHA_DETAIL_NO_VECTORS
#endif

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

namespace simd {

/// A vector of one: the vec of an architecture without vectors.
template <class T>
concept Number = std::is_arithmetic_v<T>;

/// The architecture without vectors: every kernel works on one number at a time.
struct scalar {};

#if defined(NHA_DETAIL_NO_VECTORS)
using default_arch = scalar;
#else
using default_arch = xsimd::default_arch;
#endif

namespace detail {
template <class T, class Arch>
struct vec_of {
#if !defined(NHA_DETAIL_NO_VECTORS)
  using type = xsimd::batch<T, Arch>;
  static constexpr Index lanes = static_cast<Index>(type::size);
#endif
};
template <class T>
struct vec_of<T, scalar> {
  using type = T;
  static constexpr Index lanes = 1;
};
#if !defined(NHA_DETAIL_NO_VECTORS)
// An architecture without vectors of T (double on 32-bit NEON, say) works on single numbers.
template <class T, class Arch>
requires(!std::is_same_v<Arch, scalar> &&
         !xsimd::has_simd_register<T, Arch>::value) struct vec_of<T, Arch> : vec_of<T, scalar> {
};
#endif
}  // namespace detail

/// A vector of T.
template <class T, class Arch>
using vec = typename detail::vec_of<T, Arch>::type;

/// How many numbers it holds.
template <class T, class Arch>
inline constexpr Index lanes = detail::vec_of<T, Arch>::lanes;

/// How many vector registers there are: it decides the tile sizes.
#if defined(__AVX512F__) || defined(__aarch64__)
inline constexpr int registers = 32;
#else
inline constexpr int registers = 16;
#endif

/// Calls f with std::integral_constant 0 .. Count-1: an unrolled loop on every compiler.
template <int Count, class F>
NHA_INLINE void unroll(F&& f) noexcept {
  [&]<int... I>(std::integer_sequence<int, I...>) NHA_INLINE_LAMBDA {
    (f(std::integral_constant<int, I>()), ...);
  }
  (std::make_integer_sequence<int, Count>());
}

// Plain numbers.
template <Number V, class T>
NHA_INLINE V load(const T* p) noexcept {
  return *p;
}
template <Number T>
NHA_INLINE void store(T* p, T value) noexcept {
  *p = value;
}
template <Number T>
NHA_INLINE T fma(T a, T b, T c) noexcept {
  return multiply_add(a, b, c);
}
template <Number T>
NHA_INLINE T max(T a, T b) noexcept {
  return a < b ? b : a;
}
template <Number T>
NHA_INLINE T sqrt(T x) noexcept {
  return std::sqrt(x);
}
template <Number T>
NHA_INLINE T divide(T a, T b) noexcept {
  return a / b;
}
/// `below` where x < bound, else `value`.
template <Number T>
NHA_INLINE T where_below(T x, T bound, T below, T value) noexcept {
  return x < bound ? below : value;
}
/// The bits of x as a whole number, or the other way round.
template <class Bits, Number T>
NHA_INLINE Bits bits_of(T x) noexcept {
  return std::bit_cast<Bits>(x);
}
template <Number T>
NHA_INLINE T reduce_add(T x) noexcept {
  return x;
}
template <Number T>
NHA_INLINE T reduce_max(T x) noexcept {
  return x;
}

#if !defined(NHA_DETAIL_NO_VECTORS)
// Batches. Loads and stores are unaligned: as fast on aligned memory, and no demand on anyone
// else's.
template <class V>
NHA_INLINE V load(const typename V::value_type* p) noexcept {
  return V::load_unaligned(p);
}
template <class T, class A>
NHA_INLINE void store(T* p, const xsimd::batch<T, A>& value) noexcept {
  value.store_unaligned(p);
}
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> fma(const xsimd::batch<T, A>& a, const xsimd::batch<T, A>& b,
                                  const xsimd::batch<T, A>& c) noexcept {
#if defined(__AVX512F__)
  // xsimd 8.1 has no fused instruction for AVX-512: it multiplies, rounds and adds.
  if constexpr (std::is_base_of_v<xsimd::avx512f, A> && std::is_same_v<T, float>)
    return _mm512_fmadd_ps(a, b, c);
  else if constexpr (std::is_base_of_v<xsimd::avx512f, A> && std::is_same_v<T, double>)
    return _mm512_fmadd_pd(a, b, c);
  else
#endif
    return xsimd::fma(a, b, c);
}
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> max(const xsimd::batch<T, A>& a,
                                  const xsimd::batch<T, A>& b) noexcept {
  return xsimd::max(a, b);
}
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> sqrt(const xsimd::batch<T, A>& x) noexcept {
#if defined(__aarch64__)
  // xsimd 8.1 estimates this and quotients of float as 32-bit Arm must.
  if constexpr (std::is_base_of_v<xsimd::neon64, A> && std::is_same_v<T, float>)
    return vsqrtq_f32(x);
  else
#endif
    return xsimd::sqrt(x);
}
/// a / b, correctly rounded.
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> divide(const xsimd::batch<T, A>& a,
                                     const xsimd::batch<T, A>& b) noexcept {
#if defined(__aarch64__)
  if constexpr (std::is_base_of_v<xsimd::neon64, A> && std::is_same_v<T, float>)
    return vdivq_f32(a, b);
  else
#endif
    return a / b;
}
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> where_below(const xsimd::batch<T, A>& x,
                                          const xsimd::batch<T, A>& bound,
                                          const xsimd::batch<T, A>& below,
                                          const xsimd::batch<T, A>& value) noexcept {
  return xsimd::select(x < bound, below, value);
}
template <class Bits, class T, class A>
NHA_INLINE xsimd::batch<Bits, A> bits_of(const xsimd::batch<T, A>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 11
  return xsimd::bitwise_cast<Bits>(x);
#else
  return xsimd::bitwise_cast<xsimd::batch<Bits, A>>(x);
#endif
}
template <class T, class A>
NHA_INLINE T reduce_add(const xsimd::batch<T, A>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
  return xsimd::reduce_add(x);
#else
  return xsimd::hadd(x);
#endif
}
template <class T, class A>
NHA_INLINE T reduce_max(const xsimd::batch<T, A>& x) noexcept {
#if XSIMD_VERSION_MAJOR >= 9
  return xsimd::reduce_max(x);
#else
  // xsimd 8.1 has none. In halves, through memory: a chain of few steps.
  constexpr int kLanes = static_cast<int>(xsimd::batch<T, A>::size);
  T values[kLanes];
  x.store_unaligned(values);
  for (int half = kLanes / 2; half > 0; half /= 2)
    for (int i = 0; i < half; ++i)
      values[i] = values[i] < values[i + half] ? values[i + half] : values[i];
  return values[0];
#endif
}
#endif

#if !defined(NHA_DETAIL_NO_VECTORS) && defined(__AVX512F__)
namespace detail {
// The sums of the lanes of each of eight, or four, 256-bit registers. In intrinsics: xsimd's
// batches of that width have one name here and in files compiled for AVX2, and other machine code
// in each.
NHA_INLINE __m256 reduce_add_each(const __m256 (&rows)[8]) noexcept {
  const __m256 first =
      _mm256_hadd_ps(_mm256_hadd_ps(rows[0], rows[1]), _mm256_hadd_ps(rows[2], rows[3]));
  const __m256 second =
      _mm256_hadd_ps(_mm256_hadd_ps(rows[4], rows[5]), _mm256_hadd_ps(rows[6], rows[7]));
  return _mm256_add_ps(_mm256_blend_ps(first, second, 0b11110000),
                       _mm256_permute2f128_ps(first, second, 0x21));
}
NHA_INLINE __m256d reduce_add_each(const __m256d (&rows)[4]) noexcept {
  const __m256d first = _mm256_hadd_pd(rows[0], rows[1]);
  const __m256d second = _mm256_hadd_pd(rows[2], rows[3]);
  return _mm256_add_pd(_mm256_permute2f128_pd(first, second, 0x21),
                       _mm256_blend_pd(first, second, 0b1100));
}
}  // namespace detail
#endif

/// The sums of the lanes of as many vectors as a vector has lanes.
template <Number T>
NHA_INLINE T reduce_add_each(const T (&rows)[1]) noexcept {
  return rows[0];
}
#if !defined(NHA_DETAIL_NO_VECTORS)
template <class T, class A>
NHA_INLINE xsimd::batch<T, A> reduce_add_each(
    const xsimd::batch<T, A> (&rows)[xsimd::batch<T, A>::size]) noexcept {
#if defined(__AVX512F__)
  // xsimd 8.1 gives these sums in another order; here the upper halves join the lower ones first.
  if constexpr (std::is_base_of_v<xsimd::avx512f, A> && std::is_same_v<T, float>) {
    const auto half_sums = [&](int start) NHA_INLINE_LAMBDA {
      __m256 halves[8];
      for (int i = 0; i < 8; ++i) {
        const __m512d row = _mm512_castps_pd(rows[start + i]);
        halves[i] = _mm256_add_ps(_mm256_castpd_ps(_mm512_castpd512_pd256(row)),
                                  _mm256_castpd_ps(_mm512_extractf64x4_pd(row, 1)));
      }
      return _mm256_castps_pd(detail::reduce_add_each(halves));
    };
    const __m512d low = _mm512_castpd256_pd512(half_sums(0));
    return _mm512_castpd_ps(_mm512_insertf64x4(low, half_sums(8), 1));
  } else if constexpr (std::is_base_of_v<xsimd::avx512f, A>) {
    const auto half_sums = [&](int start) NHA_INLINE_LAMBDA {
      __m256d halves[4];
      for (int i = 0; i < 4; ++i)
        halves[i] = _mm256_add_pd(_mm512_castpd512_pd256(rows[start + i]),
                                  _mm512_extractf64x4_pd(rows[start + i], 1));
      return detail::reduce_add_each(halves);
    };
    return _mm512_insertf64x4(_mm512_castpd256_pd512(half_sums(0)), half_sums(4), 1);
  } else {
    return xsimd::haddp(rows);
  }
#else
  return xsimd::haddp(rows);
#endif
}
#endif

namespace detail {

/// A vector of floats from as many half-width numbers, one by one.
template <class V, class T>
NHA_INLINE V widen_each(const T* p) noexcept {
  constexpr std::size_t kLanes = sizeof(V) / sizeof(float);
  float wide[kLanes];
  for (std::size_t i = 0; i < kLanes; ++i) wide[i] = widen(p[i]);
  return simd::load<V>(wide);
}

/// The same in one instruction or two, where the instruction set has them.
template <class V>
NHA_INLINE V widen_vector(const bfloat16* p) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS)
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64)
    return V(_mm512_castsi512_ps(_mm512_slli_epi32(
        _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))), 16)));
#endif
#if defined(__AVX2__)
  if constexpr (sizeof(V) == 32)
    return V(_mm256_castsi256_ps(_mm256_slli_epi32(
        _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))), 16)));
#endif
#if defined(__SSE2__)
  if constexpr (sizeof(V) == 16)
    return V(_mm_castsi128_ps(_mm_unpacklo_epi16(
        _mm_setzero_si128(), _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)))));
#elif defined(__aarch64__)
  if constexpr (sizeof(V) == 16)
    return V(vreinterpretq_f32_u32(
        vshll_n_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)), 16)));
#endif
#endif
  return widen_each<V>(p);
}
template <class V>
NHA_INLINE V widen_vector(const float16* p) noexcept {
#if !defined(NHA_DETAIL_NO_VECTORS)
#if defined(__AVX512F__)
  if constexpr (sizeof(V) == 64)
    return V(_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))));
#endif
#if defined(__F16C__)
  if constexpr (sizeof(V) == 32)
    return V(_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
  if constexpr (sizeof(V) == 16)
    return V(_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
#elif defined(__aarch64__)
  if constexpr (sizeof(V) == 16)
    return V(
        vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(reinterpret_cast<const std::uint16_t*>(p)))));
#endif
#endif
  return widen_each<V>(p);
}

}  // namespace detail

/// A vector of stored numbers, widened if they are of a half type.
template <class V, class T>
NHA_INLINE V load_wide(const T* p) noexcept {
  if constexpr (std::is_same_v<T, accumulate_t<T>>)
    return simd::load<V>(p);
  else
    return detail::widen_vector<V>(p);
}

/// out[i] = f(in[i]) for `count` numbers, a multiple of kRowPadding; f takes vectors. The rows may
/// be the same.
template <class Arch, class T, class F>
NHA_INLINE void transform(const T* in, T* out, Index count, F&& f) noexcept {
  assert(is_padded(count));
  static_assert(kRowPadding % lanes<T, Arch> == 0, "vectors wider than the padding of rows");
  for (Index i = 0; i < count; i += lanes<T, Arch>)
    simd::store(out + i, f(simd::load<vec<T, Arch>>(in + i)));
}

/// out[i] += factor * x[i] for `count` numbers, a multiple of kRowPadding.
template <class Arch, class T>
NHA_INLINE void add_scaled(T factor, const T* x, T* out, Index count) noexcept {
  assert(is_padded(count));
  using V = vec<T, Arch>;
  for (Index i = 0; i < count; i += lanes<T, Arch>)
    simd::store(out + i, simd::fma(V(factor), simd::load<V>(x + i), simd::load<V>(out + i)));
}

}  // namespace simd

}  // namespace cpu

NHA_ISA_NAMESPACE_END
