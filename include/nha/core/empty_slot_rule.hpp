// SPDX-License-Identifier: MIT
// EmptySlotRule: which slots take part in the softmax, and as what.
#pragma once

#include <nha/config.hpp>

#include <cstdint>

NHA_NAMESPACE_BEGIN

/// How slots that hold nothing, or little, take part in the softmax.
enum class EmptySlots : std::uint8_t {
  /// As they are: an unwritten slot has key 0 and value 0, so logit 0. It draws weight away from
  /// the window, as an attention sink does. Published checkpoints were trained so.
  participate,
  /// No slot takes part until the first token has entered the slots. With a window that holds every
  /// token this is causal softmax attention.
  masked,
  /// Slots count as weighted means. Key and value are divided by the slot's mass, which is the
  /// decayed sum of its write strengths, and log(mass) is added to its logit. Slots of mass 0 or
  /// less take no part. For models trained so, where something must be looked up much later:
  /// examples/recall/README.md has the evidence.
  mass_corrected,
};

/// What EmptySlots says, as the algorithms ask it.
struct EmptySlotRule {
  EmptySlots rule = EmptySlots::participate;

  /// Whether slots take part at all, given whether any token has entered them.
  NHA_INLINE constexpr bool slots_take_part(bool written) const noexcept {
    return written || rule == EmptySlots::participate;
  }
  /// Whether slots are read as means of what was written to them.
  NHA_INLINE constexpr bool reads_means() const noexcept {
    return rule == EmptySlots::mass_corrected;
  }
  /// What a slot's key and value are divided by when they are read; its logarithm is added to the
  /// logit. A slot with a divisor of 0 or less takes no part.
  template <class T>
  NHA_INLINE constexpr T divisor(T mass) const noexcept {
    return reads_means() ? mass : T{1};
  }
};

NHA_NAMESPACE_END
