// SPDX-License-Identifier: MIT
// StateLayout: where everything lies in the memory of an AttentionState.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/pending_tokens.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The memories of one key/value head of one sequence, as kernels see them. Owns nothing.
template <class T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic,
          class SlotScalar = accumulate_t<T>>
struct HeadState {
  SlotMemoryView<SlotScalar, KeyDim, ValueDim, Slots> slots;
  SlidingWindowView<T, KeyDim, ValueDim> window;
  PendingTokensView<T, KeyDim, Slots> pending;
};

namespace detail {

/// One block for each sequence: a header, then for each head the memories and, where the state can
/// be rolled back, two copies of the slots.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar = accumulate_t<T>>
class StateLayout {
 public:
  using SlotView = SlotMemoryView<SlotScalar, KeyDim, ValueDim, Slots>;
  /// What a sequence has besides the memories of its heads.
  struct Sequence {
    std::int64_t tokens_seen;
    std::int64_t oldest_reachable;  // position up to which rollback() can go back
    std::int64_t history_begin;     // position of the first snapshot
    std::int64_t has_initial_slots;
  };
  struct Sections {
    HeadState<T, KeyDim, ValueDim, Slots, SlotScalar> state;
    SlotView snapshots[2];
  };

  /// @throws ArgumentError if a size or option is out of range or differs from a static extent, or
  ///   all of it does not fit in memory.
  StateLayout(const AttentionShape& shape, const AttentionOptions& options, Index max_rollback)
      : shape_(shape), options_(options), max_rollback_(max_rollback) {
    validate(shape);
    validate(options, shape.kv_heads);
    check_size("key_dim", shape.key_dim, 1, KeyDim);
    check_size("value_dim", shape.value_dim, 1, ValueDim);
    check_size("slots", shape.slots, 0, Slots);
    check_size("max_rollback", max_rollback, 0);
    // Also without sequences: positions in a row must not wrap around.
    const auto sequences = static_cast<double>(std::max<Index>(shape.batch, 1));
    head_offsets_.reserve(static_cast<std::size_t>(shape.kv_heads));
    Arena cursor(nullptr);
    cursor.take<Sequence>(1);
    double bytes = 0;
    for (Index head = 0; head < shape.kv_heads; ++head) {
      bytes += head_bytes(head);
      check_bytes("a state", bytes * sequences);
      head_offsets_.push_back(cursor.used());
      take(cursor, head);
    }
    sequence_bytes_ = cursor.used();
  }

  /// The layout for who moves the memory away; what is left here has no sequences.
  StateLayout release() noexcept {
    StateLayout released = std::move(*this);
    shape_.batch = 0;
    return released;
  }

  const AttentionShape& shape() const noexcept { return shape_; }
  const AttentionOptions& options() const noexcept { return options_; }
  Index max_rollback() const noexcept { return max_rollback_; }
  std::size_t sequence_bytes() const noexcept { return sequence_bytes_; }
  std::size_t bytes() const noexcept {
    return sequence_bytes_ * static_cast<std::size_t>(shape_.batch);
  }

  /// Whether all but the batch is alike.
  bool same_layer(const StateLayout& other) const {
    AttentionShape shape = other.shape_;
    shape.batch = shape_.batch;
    return shape_ == shape && options_ == other.options_ && max_rollback_ == other.max_rollback_;
  }

  /// What a head has in the block of a sequence.
  Sections head(std::byte* block, Index head) const noexcept {
    Arena cursor(block + head_offsets_[static_cast<std::size_t>(head)]);
    return take(cursor, head);
  }

 private:
  // Tokens that must be found again: a rollback restores the slots of up to 2 max_rollback - 1
  // tokens ago and replays what entered them since.
  Index pending_capacity(Index head) const noexcept {
    return shape_.slots == 0 ? 0 : head_options(options_, head).slot_delay + 2 * max_rollback_;
  }
  Index window_capacity(Index head) const noexcept {
    return std::max(head_options(options_, head).window + max_rollback_, pending_capacity(head));
  }
  // At least what take() will need, in floating point.
  double head_bytes(Index head) const noexcept {
    const auto real = [](Index count) { return static_cast<double>(padded(count)); };
    const auto capacity = static_cast<double>(head_options(options_, head).window) +
                          2 * static_cast<double>(max_rollback_);
    return (capacity + 3 * real(shape_.slots)) *
           (2 * real(shape_.key_dim) + real(shape_.value_dim) + 2 * real(shape_.slots)) *
           sizeof(accumulate_t<T>);
  }

  Sections take(Arena& cursor, Index head) const noexcept {
    Sections sections;
    const AttentionShape& s = shape_;
    HeadState<T, KeyDim, ValueDim, Slots, SlotScalar>& state = sections.state;
    state.slots = SlotView::take(cursor, s.key_dim, s.value_dim, s.slots);
    state.window =
        decltype(state.window)::take(cursor, window_capacity(head), s.key_dim, s.value_dim);
    state.pending =
        decltype(state.pending)::take(cursor, pending_capacity(head), s.key_dim, s.slots);
    if (max_rollback_ > 0)
      for (SlotView& copy : sections.snapshots)
        copy = SlotView::take(cursor, s.key_dim, s.value_dim, s.slots);
    return sections;
  }

  AttentionShape shape_;
  AttentionOptions options_;
  Index max_rollback_;
  std::vector<std::size_t> head_offsets_;  // where each head begins in a sequence's block
  std::size_t sequence_bytes_ = 0;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
