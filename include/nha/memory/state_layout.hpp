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
#include <nha/memory/head_state.hpp>
#include <nha/memory/history.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// One block for each sequence: its history, then for each head the memories. Where the state can
/// be rolled back, the copies of the slots follow (memory/history.hpp).
template <class T, class SlotScalar = accumulate_t<T>>
class StateLayout {
 public:
  struct Sections {
    HeadState<T, SlotScalar> memories;
    SlotMemoryView<SlotScalar> snapshots[kSnapshots];
  };

  /// @throws ArgumentError if a size or option is out of range, or all of it does not fit in
  ///   memory.
  NHA_COLD StateLayout(const AttentionShape& shape, const AttentionOptions& options,
                       Index max_rollback)
      : shape_(shape), options_(options), max_rollback_(max_rollback) {
    validate(shape);
    validate(options, shape.kv_heads);
    check_size("max_rollback", max_rollback, 0);
    // Also without sequences: positions in a row must not wrap around.
    const auto sequences = static_cast<double>(std::max<Index>(shape.batch, 1));
    head_offsets_.reserve(static_cast<std::size_t>(shape.kv_heads));
    Arena arena(nullptr);
    arena.take<SequenceHistory>(1);
    double bytes = 0;
    for (Index head = 0; head < shape.kv_heads; ++head) {
      bytes += head_bytes(head);
      check_bytes("a state", bytes * sequences);
      head_offsets_.push_back(arena.used());
      take(arena, head);
    }
    sequence_bytes_ = arena.used();
  }

  /// The layout, for code that moves the memory away. What is left here has no sequences.
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
    Arena arena(block + head_offsets_[static_cast<std::size_t>(head)]);
    return take(arena, head);
  }
  /// The memories of a head, only to be read.
  ConstHeadState<T, SlotScalar> head(const std::byte* block, Index head) const noexcept {
    // Every pointer in the result is to const numbers.
    return this->head(const_cast<std::byte*>(block), head).memories;
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
    return (capacity + (1 + kSnapshots) * real(shape_.slots)) *
           (2 * real(shape_.key_dim) + real(shape_.value_dim) + 2 * real(shape_.slots)) *
           sizeof(accumulate_t<T>);
  }

  NHA_NOINLINE Sections take(Arena& arena, Index head) const noexcept {
    Sections sections;
    const AttentionShape& s = shape_;
    auto& [slots, window, pending] = sections.memories;
    slots = slots.take(arena, s.key_dim, s.value_dim, s.slots);
    window = window.take(arena, window_capacity(head), s.key_dim, s.value_dim);
    pending = pending.take(arena, pending_capacity(head), s.key_dim, s.slots);
    if (max_rollback_ > 0)
      for (auto& copy : sections.snapshots)
        copy = slots.take(arena, s.key_dim, s.value_dim, s.slots);
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
