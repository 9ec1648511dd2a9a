// SPDX-License-Identifier: MIT
// The auxiliary loss of the newest published layers: it pulls attention towards the slots.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>

NHA_NAMESPACE_BEGIN

/// Binary cross-entropy between a target and the share of attention that fell on the slots, which
/// is sigmoid(lse_slots - lse_window). The mean is over the queries of all layers that have slots
/// and a window; queries with empty slots count as 0. Added to a model's loss it keeps training
/// from leaving the slots unused.
struct SlotShareLoss {
  /// Factor of this loss in the sum; 0: there is none.
  double coefficient = 0;
  /// The share it pulls towards, 0 to 1. Published: 1.
  double target = 1;
  /// Whether it may also lower the window's logits. Published: no, those count as constants; the
  /// gradient is then not that of the loss as a function of all weights.
  bool through_window = false;

  NHA_INLINE friend bool operator==(const SlotShareLoss&, const SlotShareLoss&) = default;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// @throws ArgumentError naming the option that is out of range.
inline void validate(const SlotShareLoss& options) {
  check_argument(std::isfinite(options.coefficient) && options.coefficient >= 0,
                 "coefficient of the slot share loss is ", options.coefficient,
                 "; expected 0 or more");
  check_argument(options.target >= 0 && options.target <= 1, "target of the slot share loss is ",
                 options.target, "; expected 0 to 1");
}

/// Sum of the losses of `count` queries of one layer, and their derivatives with respect to the
/// results of the operator, each times `scale`. Where the slots have no part at all (share 0: they
/// were empty) there is nothing to pull at: no loss, and derivatives of 0.
///
/// A derivative with respect to lse_slots is one with respect to lse and share both: lse_slots =
/// lse + log(share). In the loss, shares nearer to 0 or 1 than 1e-6 count as that near, so that
/// nothing overflows. Below 1e-6 the pull fades with the share. A share that has underflowed to 0
/// cannot be told from empty slots.
/// @param share the operator's slot_share [count]
/// @param d_lse, d_share derivatives with respect to the operator's lse and slot_share, written
template <std::floating_point T>
double slot_share_loss(const SlotShareLoss& options, const T* share, Index count, double scale,
                       T* d_lse, T* d_share) noexcept {
  constexpr double kNearest = 1e-6;
  double sum = 0;
  for (Index i = 0; i < count; ++i) {
    const auto p = static_cast<double>(share[i]);
    d_lse[i] = d_share[i] = T{0};
    if (p == 0) continue;
    const double slots = std::max(p, kNearest);
    const double window = std::max(1 - p, kNearest);
    sum -= options.target * std::log(slots) + (1 - options.target) * std::log(window);
    // The derivative with respect to lse_slots - lse_window.
    const double pull = scale * (p - options.target);
    if (options.through_window) {
      d_share[i] = static_cast<T>(pull / (slots * window));
    } else {
      d_share[i] = static_cast<T>(pull / slots);
      d_lse[i] = static_cast<T>(pull / slots * p);
    }
  }
  return sum;
}

NHA_ISA_NAMESPACE_END
