// SPDX-License-Identifier: MIT
// The tokens between the two memories: seen, but not yet entered into the slots.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/extent.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

/// What the newest tokens of one head will write to the slots once slot_delay tokens have followed:
/// slot keys [capacity, padded(Dk)], retention exp(log_gate) and write strengths [capacity,
/// padded(M)]; their values are in the sliding window. Row position % capacity holds a token; owns
/// nothing. Retention is kept rather than its logarithm, so that a token replayed after a rollback
/// enters with the very bits it had.
template <class T, Index KeyDim = Dynamic, Index Slots = Dynamic>
struct PendingTokensView {
  using Acc = accumulate_t<T>;

  T* key = nullptr;
  Acc* retention = nullptr;
  Acc* write = nullptr;
  Index capacity = 0;
  [[no_unique_address]] Extent<KeyDim> key_dim;
  [[no_unique_address]] Extent<Slots> slots;

  NHA_INLINE Index key_stride() const noexcept { return padded(key_dim); }
  NHA_INLINE Index gate_stride() const noexcept { return padded(slots); }

  /// Lays the rows out in the next sections of a block.
  static PendingTokensView take(Arena& cursor, Index capacity, Index key_dim, Index slots) {
    PendingTokensView view;
    view.capacity = capacity;
    view.key_dim = Extent<KeyDim>(key_dim);
    view.slots = Extent<Slots>(slots);
    view.key = cursor.take<T>(capacity * padded(key_dim));
    view.retention = cursor.take<Acc>(capacity * padded(slots));
    view.write = cursor.take<Acc>(capacity * padded(slots));
    return view;
  }

  NHA_INLINE T* key_row(std::int64_t position) const noexcept {
    return key + row(position) * key_stride();
  }
  NHA_INLINE Acc* retention_row(std::int64_t position) const noexcept {
    return retention + row(position) * gate_stride();
  }
  NHA_INLINE Acc* write_row(std::int64_t position) const noexcept {
    return write + row(position) * gate_stride();
  }

  /// Stores a token: slot key [Dk], retention and write strengths [M].
  NHA_INLINE void push(std::int64_t position, const T* token_key, const Acc* token_retention,
                       const Acc* token_write) const noexcept {
    if (capacity == 0) return;
    std::copy_n(token_key, Index{key_dim}, key_row(position));
    std::copy_n(token_retention, Index{slots}, retention_row(position));
    std::copy_n(token_write, Index{slots}, write_row(position));
  }

 private:
  NHA_INLINE Index row(std::int64_t position) const noexcept {
    return static_cast<Index>(position % capacity);
  }
};

NHA_ISA_NAMESPACE_END
