// SPDX-License-Identifier: MIT
// The instruction sets that kernels are tested on in one program: the compiler's best, every lesser
// one of the same family, and none.
#pragma once

#include <nha/cpu/simd.hpp>

#include <gtest/gtest.h>

namespace nha_test {

#if defined(NHA_DETAIL_NO_VECTORS)
using Architectures = ::testing::Types<nha::cpu::simd::scalar>;
#elif defined(__AVX512BW__) && defined(__AVX512VL__)
using Architectures = ::testing::Types<nha::cpu::simd::default_arch, xsimd::fma3<xsimd::avx2>,
                                       xsimd::sse2, nha::cpu::simd::scalar>;
#elif defined(__AVX2__) && defined(__FMA__)
using Architectures =
    ::testing::Types<nha::cpu::simd::default_arch, xsimd::sse2, nha::cpu::simd::scalar>;
#else
using Architectures = ::testing::Types<nha::cpu::simd::default_arch, nha::cpu::simd::scalar>;
#endif

}  // namespace nha_test
