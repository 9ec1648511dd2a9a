// SPDX-License-Identifier: MIT
// HeadState: the memories of one key/value head of one sequence.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/memory/pending_tokens.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>

NHA_ISA_NAMESPACE_BEGIN

/// Slots, window and the tokens between them, wherever their numbers lie. Owns nothing.
template <class T, class SlotScalar = accumulate_t<T>>
struct HeadState {
  SlotMemoryView<SlotScalar> slots;
  SlidingWindowView<T> window;
  PendingTokensView<T> pending;
};

/// The same memories, only to be read.
template <class T, class SlotScalar = accumulate_t<T>>
struct ConstHeadState {
  SlotMemoryView<const SlotScalar> slots;
  SlidingWindowView<const T> window;
  PendingTokensView<const T> pending;

  ConstHeadState() = default;
  ConstHeadState(const HeadState<T, SlotScalar>& state) noexcept
      : slots(state.slots), window(state.window), pending(state.pending) {}
};

NHA_ISA_NAMESPACE_END
