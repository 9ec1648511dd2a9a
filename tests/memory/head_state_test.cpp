// SPDX-License-Identifier: MIT
#include <nha/memory/head_state.hpp>
#include <nha/memory/state.hpp>

#include <gtest/gtest.h>

#include <type_traits>
#include <utility>

namespace {

using nha::ConstHeadState;
using nha::HeadState;

template <class T, class SlotScalar = nha::accumulate_t<T>>
constexpr bool kMayBeReadButNotWritten =
    std::is_convertible_v<HeadState<T, SlotScalar>, ConstHeadState<T, SlotScalar>> &&
    !std::is_constructible_v<HeadState<T, SlotScalar>, ConstHeadState<T, SlotScalar>> &&
    // As an argument of a kernel, by value.
    std::is_trivially_copyable_v<HeadState<T, SlotScalar>> &&
    std::is_trivially_copyable_v<ConstHeadState<T, SlotScalar>>;
static_assert(kMayBeReadButNotWritten<float>);
static_assert(kMayBeReadButNotWritten<double>);
static_assert(kMayBeReadButNotWritten<nha::bfloat16>);
static_assert(kMayBeReadButNotWritten<float, nha::float16>);

TEST(HeadState, ReadsAsConstFromTheSameNumbers) {
  nha::AttentionState<nha::bfloat16> state({.key_dim = 3, .value_dim = 5, .slots = 2},
                                           {.window = 4, .slot_delay = 2}, 1);
  const HeadState<nha::bfloat16> head = nha::detail::StateAccess::head(state, 0, 0);
  const ConstHeadState<nha::bfloat16> read = head;
  static_assert(std::is_same_v<decltype(read.slots.key), const float*>);
  static_assert(std::is_same_v<decltype(read.window.key), const nha::bfloat16*>);
  static_assert(std::is_same_v<decltype(read.pending.key), const nha::bfloat16*>);
  static_assert(std::is_same_v<decltype(read.pending.write), const float*>);
  EXPECT_EQ(read.slots.key, head.slots.key);
  EXPECT_EQ(read.slots.value, head.slots.value);
  EXPECT_EQ(read.slots.mass, head.slots.mass);
  EXPECT_EQ(read.slots.count, 2);
  EXPECT_EQ(read.slots.key_dim, 3);
  EXPECT_EQ(read.slots.value_dim, 5);
  EXPECT_EQ(read.window.key, head.window.key);
  EXPECT_EQ(read.window.value, head.window.value);
  EXPECT_EQ(read.window.capacity, head.window.capacity);
  EXPECT_EQ(read.window.key_dim, 3);
  EXPECT_EQ(read.window.value_dim, 5);
  EXPECT_EQ(read.pending.key, head.pending.key);
  EXPECT_EQ(read.pending.retention, head.pending.retention);
  EXPECT_EQ(read.pending.write, head.pending.write);
  EXPECT_EQ(read.pending.capacity, head.pending.capacity);
  EXPECT_EQ(read.pending.key_dim, 3);
  EXPECT_EQ(read.pending.slots, 2);
}

TEST(HeadState, OfAConstStateIsConst) {
  using State = nha::AttentionState<float>;
  using Access = nha::detail::StateAccess;
  static_assert(
      std::is_same_v<decltype(Access::head(std::declval<State&>(), 0, 0)), HeadState<float>>);
  static_assert(std::is_same_v<decltype(Access::head(std::declval<const State&>(), 0, 0)),
                               ConstHeadState<float>>);
  State state({.batch = 2, .kv_heads = 2, .key_dim = 3, .value_dim = 5, .slots = 2});
  const auto head = Access::head(state, 1, 1);
  const auto read = Access::head(std::as_const(state), 1, 1);
  EXPECT_EQ(read.slots.key, head.slots.key);
  EXPECT_EQ(read.window.value, head.window.value);
  EXPECT_EQ(read.pending.write, head.pending.write);
}

TEST(HeadState, HoldsNothingAtFirst) {
  const HeadState<float> head;
  const ConstHeadState<float> read;
  EXPECT_EQ(head.slots.key, nullptr);
  EXPECT_EQ(head.window.capacity, 0);
  EXPECT_EQ(read.pending.write, nullptr);
  EXPECT_EQ(read.slots.count, 0);
}

}  // namespace
