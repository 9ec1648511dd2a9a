// SPDX-License-Identifier: MIT
// The tokens between the two memories: seen, but not yet entered into the slots.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// What the newest tokens of one head will write to the slots once slot_delay tokens have followed.
/// Slot keys are [capacity, padded(Dk)], retention and write strengths [capacity, padded(M)].
/// Values are in the sliding window. Row position % capacity holds a token. Owns nothing. T is
/// const where the tokens are only read.
///
/// Retention is kept rather than its logarithm, so that a token replayed after a rollback enters
/// with the very bits it had.
template <class T>
struct PendingTokensView {
  using Acc = accumulate_t<std::remove_const_t<T>>;
  using Gate = std::conditional_t<std::is_const_v<T>, const Acc, Acc>;

  T* key = nullptr;
  Gate* retention = nullptr;
  Gate* write = nullptr;
  Index capacity = 0;
  Index key_dim = 0;
  Index slots = 0;

  NHA_INLINE Index key_stride() const noexcept { return padded(key_dim); }
  NHA_INLINE Index gate_stride() const noexcept { return padded(slots); }

  /// The same tokens, only to be read.
  NHA_INLINE operator PendingTokensView<const T>() const noexcept requires(!std::is_const_v<T>) {
    return {key, retention, write, capacity, key_dim, slots};
  }

  /// Lays the rows out in the next sections of an arena.
  static PendingTokensView take(Arena& arena, Index capacity, Index key_dim, Index slots) {
    PendingTokensView view;
    view.capacity = capacity;
    view.key_dim = key_dim;
    view.slots = slots;
    view.key = arena.take<T>(capacity * padded(key_dim));
    view.retention = arena.take<Acc>(capacity * padded(slots));
    view.write = arena.take<Acc>(capacity * padded(slots));
    return view;
  }

  NHA_INLINE T* key_row(std::int64_t position) const noexcept {
    return key + row(position) * key_stride();
  }
  NHA_INLINE Gate* retention_row(std::int64_t position) const noexcept {
    return retention + row(position) * gate_stride();
  }
  NHA_INLINE Gate* write_row(std::int64_t position) const noexcept {
    return write + row(position) * gate_stride();
  }

  /// Stores a token: slot key [Dk], retention and write strengths [M].
  NHA_INLINE void push(std::int64_t position, const T* token_key, const Acc* token_retention,
                       const Acc* token_write) const noexcept {
    if (capacity == 0) return;
    std::copy_n(token_key, key_dim, key_row(position));
    std::copy_n(token_retention, slots, retention_row(position));
    std::copy_n(token_write, slots, write_row(position));
  }

 private:
  NHA_INLINE Index row(std::int64_t position) const noexcept {
    return static_cast<Index>(position % capacity);
  }
};

NHA_ISA_NAMESPACE_END
