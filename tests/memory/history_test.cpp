// SPDX-License-Identifier: MIT
#include <nha/memory/history.hpp>

#include <gtest/gtest.h>

#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <type_traits>

namespace {

using nha::Index;
using nha::detail::kSnapshots;
using nha::detail::next_snapshot;
using nha::detail::SequenceHistory;
using nha::detail::snapshot_is_due;

void expect_snapshot(const SequenceHistory::Snapshot& found, int index, std::int64_t position) {
  EXPECT_EQ(found.index, index);
  EXPECT_EQ(found.position, position);
}

TEST(SequenceHistory, RegularCopiesTakeTurns) {
  const SequenceHistory history;
  expect_snapshot(history.regular(0, 4), 0, 0);
  expect_snapshot(history.regular(3, 4), 0, 0);
  expect_snapshot(history.regular(4, 4), 1, 4);
  expect_snapshot(history.regular(7, 4), 1, 4);
  expect_snapshot(history.regular(11, 4), 0, 8);
  expect_snapshot(history.regular(5, 1), 1, 5);
}

TEST(SequenceHistory, FirstCopyIsWhereTheHistoryBegins) {
  const SequenceHistory history{.tokens_seen = 9, .begin = 5};
  expect_snapshot(history.regular(5, 4), 1, 5);
  expect_snapshot(history.regular(7, 4), 1, 5);
  expect_snapshot(history.regular(8, 4), 0, 8);
}

TEST(SequenceHistory, NewestCopyMayBeThatOfThePrefill) {
  SequenceHistory history{.tokens_seen = 20};
  expect_snapshot(history.newest(7, 4), 1, 4);
  history.prefill_end = 6;
  expect_snapshot(history.newest(5, 4), 1, 4);  // before the end of the prefill
  expect_snapshot(history.newest(6, 4), kSnapshots - 1, 6);
  expect_snapshot(history.newest(7, 4), kSnapshots - 1, 6);
  expect_snapshot(history.newest(8, 4), 0, 8);  // a newer one
  expect_snapshot(history.of_prefill(), kSnapshots - 1, 6);
}

TEST(SequenceHistory, GoingBackForgetsThePrefillThatEndedLater) {
  SequenceHistory history{.tokens_seen = 10, .prefill_end = 6};
  history.go_back(6);
  EXPECT_EQ(history.tokens_seen, 6);
  EXPECT_EQ(history.prefill_end, 6);
  history.go_back(5);
  EXPECT_EQ(history.tokens_seen, 5);
  EXPECT_EQ(history.prefill_end, -1);
  expect_snapshot(history.newest(5, 4), 1, 4);
}

TEST(SequenceHistory, ReachesBackFromTheFurthestPosition) {
  SequenceHistory history;
  history.advance(3, 4);
  EXPECT_EQ(history.tokens_seen, 3);
  EXPECT_EQ(history.oldest_reachable, 0);
  history.advance(7, 4);
  EXPECT_EQ(history.oldest_reachable, 6);
  history.go_back(7);
  history.advance(1, 4);
  EXPECT_EQ(history.tokens_seen, 8);
  EXPECT_EQ(history.oldest_reachable, 6);
}

// A state begins, and is reset, as a block of zeros; so are its copies of the slots.
TEST(SequenceHistory, ZerosAreASequenceWithoutTokens) {
  static_assert(std::is_trivially_copyable_v<SequenceHistory>);
  const auto zeros =
      std::bit_cast<SequenceHistory>(std::array<std::byte, sizeof(SequenceHistory)>{});
  EXPECT_EQ(zeros.tokens_seen, 0);
  EXPECT_EQ(zeros.oldest_reachable, 0);
  for (std::int64_t position = 0; position < 4; ++position)
    EXPECT_EQ(zeros.newest(position, 4).position, 0);
  expect_snapshot(zeros.newest(4, 4), 1, 4);
}

TEST(Snapshots, AreDueAtMultiples) {
  EXPECT_TRUE(snapshot_is_due(0, 4));
  EXPECT_FALSE(snapshot_is_due(3, 4));
  EXPECT_TRUE(snapshot_is_due(8, 4));
  EXPECT_TRUE(snapshot_is_due(5, 1));
  EXPECT_FALSE(snapshot_is_due(0, 0));
  EXPECT_FALSE(snapshot_is_due(8, 0));
}

TEST(Snapshots, NextIsWithinTheCallAndNeverOneTooOldToBeNeeded) {
  EXPECT_EQ(next_snapshot(3, 100, 0), 100);
  EXPECT_EQ(next_snapshot(3, 7, 4), 4);
  EXPECT_EQ(next_snapshot(4, 7, 4), 7);
  EXPECT_EQ(next_snapshot(4, 8, 4), 8);
  EXPECT_EQ(next_snapshot(3, 30, 8), 16);
  EXPECT_EQ(next_snapshot(16, 30, 8), 24);
  EXPECT_EQ(next_snapshot(24, 30, 8), 30);
  EXPECT_EQ(next_snapshot(3, 5, 8), 5);
}

/// A head whose slots are no more than the position they are as of.
struct PositionsOnly {
  explicit PositionsOnly(Index rollback, std::int64_t begin) : max_rollback(rollback) {
    history = {.tokens_seen = begin, .oldest_reachable = begin, .begin = begin};
    keep(begin);
  }
  void keep(std::int64_t position) {
    copies[history.regular(position, max_rollback).index] = position;
  }
  void step() {
    const std::int64_t position = history.tokens_seen + 1;
    if (snapshot_is_due(position, max_rollback)) keep(position);
    history.advance(1, max_rollback);
  }
  void prefill(std::int64_t tokens) {
    const std::int64_t end = history.tokens_seen + tokens;
    for (std::int64_t at = history.tokens_seen; at < end;) {
      const std::int64_t next = next_snapshot(at, end, max_rollback);
      ASSERT_GT(next, at);
      ASSERT_LE(next, end);
      at = next;
      if (snapshot_is_due(at, max_rollback)) keep(at);
    }
    history.advance(tokens, max_rollback);
    history.prefill_end = end;
    copies[history.of_prefill().index] = end;
  }
  void expect_reachable_positions_have_copies() const {
    for (auto target = history.oldest_reachable; target <= history.tokens_seen; ++target) {
      const auto found = history.newest(target, max_rollback);
      ASSERT_GE(found.index, 0);
      ASSERT_LT(found.index, kSnapshots);
      EXPECT_EQ(copies[found.index], found.position) << "of position " << target;
      EXPECT_LE(found.position, target);
      // What entered since must still be found: StateLayout keeps that many tokens.
      EXPECT_LT(history.tokens_seen - found.position, 2 * max_rollback);
    }
  }

  Index max_rollback;
  SequenceHistory history;
  std::int64_t copies[kSnapshots] = {-1, -1, -1};
};

TEST(Snapshots, ReachEveryPositionThatMayBeGoneBackTo) {
  std::mt19937 random(5);
  const auto below = [&](std::int64_t end) { return static_cast<std::int64_t>(random()) % end; };
  for (int round = 0; round < 300; ++round) {
    const auto max_rollback = static_cast<Index>(1 + below(9));
    PositionsOnly head(max_rollback, round % 3 == 0 ? below(20) : 0);
    SCOPED_TRACE("round " + std::to_string(round));
    for (int action = 0; action < 40; ++action) {
      const auto& history = head.history;
      switch (below(4)) {
        case 0:
          head.prefill(1 + below(30));
          break;
        case 1: {
          const std::int64_t reach = history.tokens_seen - history.oldest_reachable;
          if (const std::int64_t back = below(reach + 1); back > 0)
            head.history.go_back(history.tokens_seen - back);
          break;
        }
        default:
          for (std::int64_t steps = below(6); steps > 0; --steps) head.step();
      }
      head.expect_reachable_positions_have_copies();
      if (HasFailure()) return;
    }
  }
}

}  // namespace
