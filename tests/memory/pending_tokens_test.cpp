// SPDX-License-Identifier: MIT
#include <nha/core/buffer.hpp>
#include <nha/memory/pending_tokens.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace {

using nha::Arena;
using nha::Buffer;
using nha::Index;

/// Owns the rows of a view.
template <class T>
struct Rows {
  using View = nha::PendingTokensView<T>;

  explicit Rows(Index capacity) {
    Arena size(nullptr);
    View::take(size, capacity, 2, 3);
    buffer = Buffer(size.used());
    Arena cursor(buffer.data());
    view = View::take(cursor, capacity, 2, 3);
    end = cursor.used();
  }

  Buffer buffer;
  View view;
  std::size_t end = 0;
};

template <class View>
void push_token(const View& view, std::int64_t position) {
  using T = std::remove_pointer_t<decltype(view.key)>;
  using Acc = typename View::Acc;
  const auto number = static_cast<Acc>(position % 100);
  const T key[] = {static_cast<T>(number), static_cast<T>(-number)};
  const Acc retention[] = {number, number + 1, number + 2};
  const Acc write[] = {-number, -number - 1, -number - 2};
  view.push(position, key, retention, write);
}

template <class View>
void expect_token(const View& view, std::int64_t position) {
  using Acc = typename View::Acc;
  const auto number = static_cast<Acc>(position % 100);
  EXPECT_EQ(static_cast<Acc>(view.key_row(position)[0]), number);
  EXPECT_EQ(static_cast<Acc>(view.key_row(position)[1]), -number);
  for (Index m = 0; m < 3; ++m) {
    EXPECT_EQ(view.retention_row(position)[m], number + static_cast<Acc>(m));
    EXPECT_EQ(view.write_row(position)[m], -number - static_cast<Acc>(m));
  }
  EXPECT_EQ(static_cast<Acc>(view.key_row(position)[2]), 0);  // padding
  EXPECT_EQ(view.retention_row(position)[3], 0);
  EXPECT_EQ(view.write_row(position)[15], 0);
}

template <class View>
void expect_newest_are_kept(const View& view) {
  for (std::int64_t p = 0; p < 20; ++p) {
    push_token(view, p);
    for (std::int64_t q = std::max<std::int64_t>(0, p - view.capacity + 1); q <= p; ++q)
      expect_token(view, q);
  }
}

TEST(PendingTokens, KeepsTheNewestTokensByPosition) {
  for (Index capacity : {1, 2, 7, 30}) expect_newest_are_kept(Rows<float>(capacity).view);
  expect_newest_are_kept(Rows<double>(5).view);
  expect_newest_are_kept(Rows<nha::bfloat16>(5).view);
  expect_newest_are_kept(Rows<nha::float16>(5).view);
}

TEST(PendingTokens, PositionsMayBeBeyondThirtyTwoBits) {
  const Rows<float> rows(7);
  const std::int64_t far = (std::int64_t{1} << 60) + 3;
  for (std::int64_t p = far; p < far + 20; ++p) push_token(rows.view, p);
  for (std::int64_t p = far + 13; p < far + 20; ++p) expect_token(rows.view, p);
}

TEST(PendingTokens, KeepsNothingWithoutCapacity) {
  const Rows<float> rows(0);
  EXPECT_EQ(rows.end, 0u);
  push_token(rows.view, 0);
  push_token(rows.view, 1);
}

TEST(PendingTokens, AreReadThroughAConstView) {
  const Rows<nha::bfloat16> rows(3);
  push_token(rows.view, 4);
  const nha::PendingTokensView<const nha::bfloat16> read = rows.view;
  static_assert(std::is_same_v<decltype(read.key_row(0)), const nha::bfloat16*>);
  static_assert(std::is_same_v<decltype(read.retention_row(0)), const float*>);
  static_assert(std::is_same_v<decltype(read.write_row(0)), const float*>);
  EXPECT_EQ(read.capacity, 3);
  expect_token(read, 4);
}

TEST(PendingTokens, SectionsDoNotOverlap) {
  const Rows<nha::bfloat16> rows(3);
  const auto& view = rows.view;
  const auto* key = reinterpret_cast<const std::byte*>(view.key);
  const auto* retention = reinterpret_cast<const std::byte*>(view.retention);
  const auto* write = reinterpret_cast<const std::byte*>(view.write);
  EXPECT_GE(retention - key, 3 * 16 * 2);
  EXPECT_GE(write - retention, 3 * 16 * 4);
  EXPECT_GE(rows.buffer.data() + rows.end - write, 3 * 16 * 4);
}

}  // namespace
