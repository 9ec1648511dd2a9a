// SPDX-License-Identifier: MIT
// The forget gate: from the logits of a projection to the logarithm of the retention.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>

#include <cmath>
#include <concepts>

NHA_ISA_NAMESPACE_BEGIN

/// log(sigmoid(x)), to rounding for every x: no overflow at large negative x, no cancellation at
/// large positive x, where it is -e^-x.
template <std::floating_point T>
NHA_INLINE T log_sigmoid(T x) noexcept {
  const T tail = std::log1p(std::exp(-std::abs(x)));
  return x < T{0} ? x - tail : -tail;
}

/// logits[i] = log_sigmoid(logits[i]) / divisor, in place: log gates of `count` slots. The divisor
/// (gate_logit_normalizer in checkpoints) slows the forgetting down: at 8 a logit of 0 keeps 92% a
/// token. The result is never above 0.
template <std::floating_point T>
void log_gates(T* logits, Index count, double divisor) noexcept {
  const T factor = static_cast<T>(1.0 / divisor);
  for (Index i = 0; i < count; ++i) logits[i] = log_sigmoid(logits[i]) * factor;
}

NHA_ISA_NAMESPACE_END
