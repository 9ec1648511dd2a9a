// SPDX-License-Identifier: MIT
// FlushSubnormals: the kernels' floating-point mode.
#pragma once

#include <nha/config.hpp>

#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

/// While it lives, this thread takes subnormal numbers (below 1.2e-38 in float) as 0 and makes
/// none; afterwards the mode is what it was.
///
/// Slots that forget fast decay through that range, where processors take a hundred cycles for each
/// operation. Without this mode a prefill with fast gates is ten times slower. What is lost is
/// smaller than any rounding error of the numbers it is added to.
class FlushSubnormals {
 public:
#if defined(__SSE__)
  FlushSubnormals() noexcept : mode_(__builtin_ia32_stmxcsr()) {
    constexpr unsigned kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040;
    __builtin_ia32_ldmxcsr(mode_ | kFlushToZero | kDenormalsAreZero);
  }
  ~FlushSubnormals() {
    __builtin_ia32_ldmxcsr(mode_);
  }

 private:
  unsigned mode_;
#elif defined(__aarch64__)
  FlushSubnormals() noexcept {
    constexpr std::uint64_t kFlushToZero = std::uint64_t{1} << 24;
    asm volatile("mrs %0, fpcr" : "=r"(mode_));
    asm volatile("msr fpcr, %0" : : "r"(mode_ | kFlushToZero));
  }
  ~FlushSubnormals() {
    asm volatile("msr fpcr, %0" : : "r"(mode_));
  }

 private:
  std::uint64_t mode_;
#else
  // Another processor: it computes with subnormals.
  FlushSubnormals() noexcept {}
  ~FlushSubnormals() {}
#endif

 public:
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
};

NHA_ISA_NAMESPACE_END
