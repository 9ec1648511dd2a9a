// SPDX-License-Identifier: MIT
// Every macro of the library: namespaces, inlining, and errors without exceptions.
//
// Two namespaces hold everything, both inline, so users write nha::Name and never see them:
//   NHA_NAMESPACE_BEGIN      vocabulary whose layout and code do not depend on compiler flags:
//                            trivially copyable types (views, shapes) and exceptions. These may
//                            pass between differently compiled files.
//   NHA_ISA_NAMESPACE_BEGIN  everything that computes, and everything that owns memory: even a copy
//                            is machine code. Its name holds the instruction set, so files compiled
//                            with different -march flags get functions with different names and the
//                            linker cannot replace one by the other. This covers the library's own
//                            functions: templates of the standard library and of Eigen have one
//                            name for all flags.
// Users may define NHA_DISABLE_SIMD (the same kernels, one number at a time); no other macro
// changes what the library does.
#pragma once

#include <nha/version.hpp>

#if defined(__FAST_MATH__)
#error "nha needs infinities and exact rounding rules: compile without -ffast-math"
#endif

#define NHA_DETAIL_CAT_(a, b) a##b
#define NHA_DETAIL_CAT(a, b) NHA_DETAIL_CAT_(a, b)

#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define NHA_DETAIL_VECTOR avx512bw
#elif defined(__AVX512F__)
#define NHA_DETAIL_VECTOR avx512f
#elif defined(__AVX2__)
#define NHA_DETAIL_VECTOR avx2
#elif defined(__AVX__)
#define NHA_DETAIL_VECTOR avx
#elif defined(__SSE4_2__)
#define NHA_DETAIL_VECTOR sse4_2
#elif defined(__SSE4_1__)
#define NHA_DETAIL_VECTOR sse4_1
#elif defined(__SSSE3__)
#define NHA_DETAIL_VECTOR ssse3
#elif defined(__SSE3__)
#define NHA_DETAIL_VECTOR sse3
#elif defined(__SSE2__)
#define NHA_DETAIL_VECTOR sse2
#elif defined(__ARM_FEATURE_SVE_BITS) && __ARM_FEATURE_SVE_BITS > 0
#define NHA_DETAIL_VECTOR NHA_DETAIL_CAT(sve, __ARM_FEATURE_SVE_BITS)
#elif defined(__ARM_FEATURE_SVE)
#define NHA_DETAIL_VECTOR sve
#elif defined(__ARM_NEON)
#define NHA_DETAIL_VECTOR neon
#else
#define NHA_DETAIL_VECTOR generic
#endif

#if defined(__FMA__)
#define NHA_DETAIL_FMA _fma
#else
#define NHA_DETAIL_FMA
#endif

#if defined(__BMI2__)
#define NHA_DETAIL_BITS _bmi2
#else
#define NHA_DETAIL_BITS
#endif

#if defined(__F16C__)
#define NHA_DETAIL_HALF _f16c
#else
#define NHA_DETAIL_HALF
#endif

#if defined(NHA_DISABLE_SIMD)
#define NHA_DETAIL_SIMD _scalar
#else
#define NHA_DETAIL_SIMD
#endif

#if defined(__cpp_exceptions)
#define NHA_HAS_EXCEPTIONS 1
#define NHA_DETAIL_THROW
#else
#define NHA_HAS_EXCEPTIONS 0
#define NHA_DETAIL_THROW _abort
#endif

// v<major>_<minor>
#define NHA_DETAIL_VERSION \
  NHA_DETAIL_CAT(NHA_DETAIL_CAT(v, NHA_VERSION_MAJOR), NHA_DETAIL_CAT(_, NHA_VERSION_MINOR))
// v<major>_<minor>_<vector>[_fma][_bmi2][_f16c][_scalar][_abort]
#define NHA_DETAIL_ISA                                                                       \
  NHA_DETAIL_CAT(                                                                            \
      NHA_DETAIL_CAT(                                                                        \
          NHA_DETAIL_CAT(NHA_DETAIL_VERSION, NHA_DETAIL_CAT(_, NHA_DETAIL_VECTOR)),          \
          NHA_DETAIL_CAT(NHA_DETAIL_FMA, NHA_DETAIL_CAT(NHA_DETAIL_BITS, NHA_DETAIL_HALF))), \
      NHA_DETAIL_CAT(NHA_DETAIL_SIMD, NHA_DETAIL_THROW))

#define NHA_NAMESPACE_BEGIN \
  namespace nha {           \
  inline namespace NHA_DETAIL_VERSION {
#define NHA_NAMESPACE_END \
  }                       \
  }
#define NHA_ISA_NAMESPACE_BEGIN \
  namespace nha {               \
  inline namespace NHA_DETAIL_ISA {
#define NHA_ISA_NAMESPACE_END \
  }                           \
  }

#define NHA_INLINE inline __attribute__((always_inline))
#define NHA_NOINLINE __attribute__((noinline))
// For what runs seldom: compiled for size, which takes a fraction of the time.
#define NHA_COLD __attribute__((cold, noinline))
// Before a loop with few, known rounds: it becomes straight code.
#define NHA_UNROLL _Pragma("GCC unroll 16")
// After the parameters of a lambda: it is inlined where it is called.
#define NHA_INLINE_LAMBDA __attribute__((always_inline))
