// SPDX-License-Identifier: MIT
// How far back a sequence can be taken: which copies of the slots are kept, and when.
//
// Going back restores a copy and lets the tokens since enter the slots again, one at a time. Copies
// are kept every `max_rollback` tokens, the newest two. Tokens that came in a step enter again with
// the same bits. Tokens that came in a prefill do not: they were summed in another order. So one
// more copy is kept, at the end of the newest prefill, for the steps that follow it.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Copies of the slots that a head keeps where its sequence can be taken back.
inline constexpr int kSnapshots = 3;

/// Where a sequence stands, and where the copies of its slots were made. Positions count tokens.
/// Zeros are a sequence without tokens, all of whose copies are of empty slots.
struct SequenceHistory {
  std::int64_t tokens_seen = 0;
  std::int64_t oldest_reachable = 0;  // rollback() can go back to here
  std::int64_t begin = 0;             // position of the first copy
  std::int64_t prefill_end = -1;      // position of the copy of the newest prefill; -1: none
  std::int64_t has_initial_slots = 0;

  /// A copy of the slots: which of the kSnapshots it is, and how many tokens had been seen.
  struct Snapshot {
    int index;
    std::int64_t position;
  };

  /// The regular copy at or before `position`. It is the first one where the history begins later.
  Snapshot regular(std::int64_t position, Index max_rollback) const noexcept {
    const std::int64_t at = std::max(position - position % max_rollback, begin);
    return {static_cast<int>((at / max_rollback) % 2), at};
  }
  /// The newest copy at or before `position`.
  Snapshot newest(std::int64_t position, Index max_rollback) const noexcept {
    const Snapshot found = regular(position, max_rollback);
    if (prefill_end >= found.position && prefill_end <= position) return of_prefill();
    return found;
  }
  /// The copy at the end of the newest prefill.
  Snapshot of_prefill() const noexcept { return {kSnapshots - 1, prefill_end}; }

  /// Moves on by `tokens` tokens.
  void advance(std::int64_t tokens, Index max_rollback) noexcept {
    tokens_seen += tokens;
    oldest_reachable = std::max(oldest_reachable, tokens_seen - max_rollback);
  }
  /// Goes back to `position`. What lay after it has never been.
  void go_back(std::int64_t position) noexcept {
    tokens_seen = position;
    if (prefill_end > position) prefill_end = -1;
  }
};

/// Whether a regular copy is due when `position` tokens have been seen.
inline bool snapshot_is_due(std::int64_t position, Index max_rollback) noexcept {
  return max_rollback > 0 && position % max_rollback == 0;
}

/// The next position after `position` at which a regular copy is due on the way to `end`; `end` if
/// there is none. Only the last two before the end are ever needed.
inline std::int64_t next_snapshot(std::int64_t position, std::int64_t end,
                                  Index max_rollback) noexcept {
  if (max_rollback == 0) return end;
  const std::int64_t first_needed = (end / max_rollback - 1) * max_rollback;
  const std::int64_t next = (position / max_rollback + 1) * max_rollback;
  return std::min(std::max(next, first_needed), end);
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
