// SPDX-License-Identifier: MIT
// The forget gate: from the logits of a projection to the logarithm of the retention, and its
// backward.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/log1p.hpp>
#include <nha/cpu/simd.hpp>

#include <concepts>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class T, class V>
NHA_INLINE V log_sigmoid_of(const V& x) noexcept {
  const V tail =
      cpu::log1p_unit<T>(cpu::exp_nonpositive<T>(V(T{0}) - cpu::simd::max(x, V(T{0}) - x)));
  return cpu::simd::where_below(x, V(T{0}), x, V(T{0})) - tail;
}

/// sigmoid(-x) = 1 - sigmoid(x), the slope of log_sigmoid: e^-|x| / (1 + e^-|x|) where x >= 0 and
/// 1 / (1 + e^-|x|) elsewhere, so that it keeps its digits as long as it is a normal number.
template <class T, class V>
NHA_INLINE V log_sigmoid_slope(const V& x) noexcept {
  const V decay = cpu::exp_nonpositive<T>(V(T{0}) - cpu::simd::max(x, V(T{0}) - x));
  return cpu::simd::divide(cpu::simd::where_below(x, V(T{0}), V(T{1}), decay), V(T{1}) + decay);
}

}  // namespace detail

/// log(sigmoid(x)), within a few roundings for every x. Large negative x do not overflow. Large
/// positive x do not cancel: the result is -e^-x, or 0 where that is not a normal number.
template <std::floating_point T>
NHA_INLINE T log_sigmoid(T x) noexcept {
  return detail::log_sigmoid_of<T>(x);
}

/// logits[i] = log_sigmoid(logits[i]) / divisor, in place: the log gates of `count` slots.
///
/// The divisor, gate_logit_normalizer in checkpoints, slows the forgetting down: at 8, a logit of 0
/// retains 92% of a slot per token. It must be above 0. The result is never above 0. Logits may
/// have any alignment. Allocates nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void log_gates(T* logits, Index count, double divisor) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  const T factor = static_cast<T>(1.0 / divisor);
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    cpu::simd::store(logits + i,
                     detail::log_sigmoid_of<T>(cpu::simd::load<V>(logits + i)) * V(factor));
  for (; i < count; ++i) logits[i] = log_sigmoid(logits[i]) * factor;
}

/// Backward of log_gates(): d_logits[i] = d_log_gates[i] * sigmoid(-logits[i]) / divisor for
/// `count` slots. The logits are the input of log_gates(), before it was overwritten. d_logits may
/// be d_log_gates or logits. All may have any alignment. Allocates nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void log_gates_backward(const T* logits, const T* d_log_gates, T* d_logits, Index count,
                        double divisor) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  const T factor = static_cast<T>(1.0 / divisor);
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    cpu::simd::store(d_logits + i, detail::log_sigmoid_slope<T>(cpu::simd::load<V>(logits + i)) *
                                       cpu::simd::load<V>(d_log_gates + i) * V(factor));
  for (; i < count; ++i)
    d_logits[i] = detail::log_sigmoid_slope<T>(logits[i]) * d_log_gates[i] * factor;
}

NHA_ISA_NAMESPACE_END
