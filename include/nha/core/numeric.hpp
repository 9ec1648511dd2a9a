// SPDX-License-Identifier: MIT
// Small scalar operations: those of device code too, and one that rounds as the SIMD kernels do.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/host_device.hpp>

#include <cmath>
#include <limits>

NHA_NAMESPACE_BEGIN

template <class T>
inline constexpr T kInfinity = std::numeric_limits<T>::infinity();

/// A stored number in the type its sums are kept in.
template <class T>
NHA_HOST_DEVICE NHA_INLINE constexpr accumulate_t<T> widen(T value) noexcept {
  return static_cast<accumulate_t<T>>(value);
}

/// The share of a slot that a token with this log gate leaves in place: exp(log_gate).
template <class T>
NHA_HOST_DEVICE NHA_INLINE T retention(T log_gate) noexcept {
  return std::exp(log_gate);
}

/// How strongly a token is written where no write strength is given: 1 - exp(log_gate). Computed so
/// that it keeps its digits when the gate is near 0.
template <class T>
NHA_HOST_DEVICE NHA_INLINE T default_write(T log_gate) noexcept {
  return -std::expm1(log_gate);
}

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// a * b + c, rounded once where the instruction set has a fused instruction and twice elsewhere.
/// The vector kernels of the same instruction set compute exactly that.
template <class T>
NHA_INLINE T multiply_add(T a, T b, T c) noexcept {
#if defined(__FMA__) || defined(__AVX512F__) || defined(__ARM_FEATURE_FMA) || \
    defined(__FP_FAST_FMAF)
  return std::fma(a, b, c);
#else
  return a * b + c;
#endif
}

NHA_ISA_NAMESPACE_END
