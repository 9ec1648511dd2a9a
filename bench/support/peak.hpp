// SPDX-License-Identifier: MIT
// The peak: the rate of multiply-adds that a loop on registers alone reaches.
#pragma once

#include <benchmark/benchmark.h>
#include <nha/cpu/simd.hpp>

#include "clock.hpp"

namespace nha_bench {

/// Operations of one call of fma_loop(): two for each lane of each multiply-add.
inline constexpr int kPeakSteps = 100'000;
// Independent sums: enough that two units of latency 5, or four of latency 4, never wait.
inline constexpr int kPeakSums = nha::cpu::simd::registers >= 32 ? 20 : 12;
inline constexpr double kPeakOperations =
    2.0 * kPeakSteps * kPeakSums * nha::cpu::simd::lanes<float, nha::cpu::simd::default_arch>;

/// Multiply-adds on registers, through the same batches as the kernels.
NHA_NOINLINE inline void fma_loop() {
  using V = nha::cpu::simd::vec<float, nha::cpu::simd::default_arch>;
  // Read through volatile, so that nothing is known when compiling. The sums tend to 1.
  volatile float given[] = {0.999f, 0.001f};
  const V factor(given[0]);
  const V term(given[1]);
  V sum[kPeakSums];
  for (int i = 0; i < kPeakSums; ++i) sum[i] = V(given[1] * static_cast<float>(i));
  for (int step = 0; step < kPeakSteps; ++step)
    nha::cpu::simd::unroll<kPeakSums>(
        [&](auto i) NHA_INLINE_LAMBDA { sum[i] = nha::cpu::simd::fma(sum[i], factor, term); });
  float total = 0;
  for (const V& s : sum) total += nha::cpu::simd::reduce_add(s);
  benchmark::DoNotOptimize(total);
}

/// Operations per second of the calling thread now; takes a fraction of a millisecond.
inline double peak_rate() {
  const double start = thread_seconds();
  fma_loop();
  return kPeakOperations / (thread_seconds() - start);
}

}  // namespace nha_bench
