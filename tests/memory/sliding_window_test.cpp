// SPDX-License-Identifier: MIT
#include <nha/memory/sliding_window.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Index;
using nha::SlidingWindow;
using nha::TensorView;

/// Token t has key (t, -t) and value (10 t, 10 t + 1, 10 t + 2).
template <class T, class Window>
void push_token(Window& window, int t) {
  const auto number = [](int x) { return static_cast<T>(static_cast<float>(x)); };
  const T key[] = {number(t), number(-t)};
  const T value[] = {number(10 * t), number(10 * t + 1), number(10 * t + 2)};
  window.push({key, {2}}, {value, {3}});
}

template <class T, class Window>
void expect_newest(Window& window, int seen) {
  const int size = std::min(static_cast<int>(window.window()), seen);
  ASSERT_EQ(window.size(), size);
  ASSERT_EQ(window.tokens_seen(), seen);
  for (int i = 0; i < size; ++i) {
    const auto t = static_cast<float>(seen - size + i);
    EXPECT_EQ(static_cast<float>(window.key(i)(0)), t);
    EXPECT_EQ(static_cast<float>(window.key(i)(1)), -t);
    for (int d = 0; d < 3; ++d)
      EXPECT_EQ(static_cast<float>(window.value(i)(d)), 10 * t + static_cast<float>(d));
  }
}

TEST(SlidingWindow, HoldsTheNewestTokensOldestFirst) {
  for (Index size : {0, 1, 2, 7, 100}) {
    SlidingWindow<float> window(size, 2, 3);
    expect_newest<float>(window, 0);
    const std::size_t bytes = window.bytes();
    for (int t = 0; t < 25; ++t) {
      push_token<float>(window, t);
      expect_newest<float>(window, t + 1);
    }
    EXPECT_EQ(window.bytes(), bytes);
  }
}

TEST(SlidingWindow, StoresEveryScalarType) {
  SlidingWindow<double> f64(4, 2, 3);
  SlidingWindow<nha::bfloat16> bf16(4, 2, 3);
  SlidingWindow<nha::float16> f16(4, 2, 3);
  for (int t = 0; t < 9; ++t) {
    push_token<double>(f64, t);
    push_token<nha::bfloat16>(bf16, t);
    push_token<nha::float16>(f16, t);
  }
  expect_newest<double>(f64, 9);
  expect_newest<nha::bfloat16>(bf16, 9);
  expect_newest<nha::float16>(f16, 9);
}

TEST(SlidingWindow, CopiesAndClearsAsAValue) {
  SlidingWindow<float> window(3, 2, 3);
  for (int t = 0; t < 5; ++t) push_token<float>(window, t);
  SlidingWindow<float> copy = window;
  push_token<float>(copy, 5);
  expect_newest<float>(window, 5);
  expect_newest<float>(copy, 6);
  copy.clear();
  expect_newest<float>(copy, 0);
  push_token<float>(copy, 0);
  expect_newest<float>(copy, 1);
}

TEST(SlidingWindowView, FindsTokensByPosition) {
  SlidingWindow<float> window(3, 2, 3);
  const auto view = window.view();
  const std::int64_t far = std::int64_t{1} << 40;
  for (std::int64_t p = far; p < far + 5; ++p) {
    const auto number = static_cast<float>(p - far);
    const float key[] = {number, number}, value[] = {number, number, number};
    view.push(p, key, value);
  }
  for (std::int64_t p = far + 2; p < far + 5; ++p) {
    EXPECT_EQ(view.key_row(p)[1], static_cast<float>(p - far));
    EXPECT_EQ(view.value_row(p)[2], static_cast<float>(p - far));
    EXPECT_EQ(view.key_row(p)[2], 0);  // padding
    EXPECT_EQ(view.value_row(p)[3], 0);
  }
}

TEST(SlidingWindowView, IsReadThroughAConstView) {
  SlidingWindow<float> window(3, 2, 3);
  push_token<float>(window, 5);
  const nha::SlidingWindowView<const float> read = window.view();
  static_assert(std::is_same_v<decltype(read.key_row(0)), const float*>);
  static_assert(
      std::is_same_v<decltype(std::as_const(window).view()), nha::SlidingWindowView<const float>>);
  EXPECT_EQ(read.capacity, 3);
  EXPECT_EQ(read.key_row(0)[1], -5);
  EXPECT_EQ(read.value_row(0)[2], 52);
}

// The oldest token of each run, by its key, and how many follow; that values match is checked.
template <class View>
std::vector<std::pair<float, Index>> runs_of(const View& view, std::int64_t oldest, Index count) {
  std::vector<std::pair<float, Index>> runs;
  Index next = 0;
  view.for_runs(oldest, count, [&](Index first, const float* key, const float* value, Index rows) {
    EXPECT_EQ(first, next);
    next += rows;
    runs.emplace_back(key[0], rows);
    for (Index i = 0; i < rows; ++i) {
      EXPECT_EQ(key[i * view.key_stride()], key[0] + static_cast<float>(i));
      EXPECT_EQ(value[i * view.value_stride()], 10 * key[i * view.key_stride()]);
    }
  });
  EXPECT_EQ(next, count);
  return runs;
}

TEST(SlidingWindowView, RunsOfNeighboursCoverTheTokensInOrder) {
  SlidingWindow<float> window(4, 2, 3);
  for (int t = 0; t < 6; ++t) push_token<float>(window, t);  // rows hold 4, 5, 2, 3
  using Runs = std::vector<std::pair<float, Index>>;
  EXPECT_EQ(runs_of(window.view(), 2, 4), (Runs{{2, 2}, {4, 2}}));
  EXPECT_EQ(runs_of(window.view(), 3, 3), (Runs{{3, 1}, {4, 2}}));
  EXPECT_EQ(runs_of(window.view(), 2, 2), (Runs{{2, 2}}));
  EXPECT_EQ(runs_of(window.view(), 4, 2), (Runs{{4, 2}}));
  EXPECT_EQ(runs_of(window.view(), 4, 0), Runs{});
  EXPECT_EQ(runs_of(SlidingWindow<float>(0, 2, 3).view(), 0, 0), Runs{});
}

TEST(SlidingWindowView, LeavesOutWhatIsNotGiven) {
  SlidingWindow<float> window(2, 2, 3);
  push_token<float>(window, 4);
  const float key[] = {7, 8}, value[] = {7, 8, 9};
  window.view().push(0, nullptr, value);
  EXPECT_EQ(window.key(0)(0), 4);
  EXPECT_EQ(window.value(0)(2), 9);
  window.view().push(0, key, nullptr);
  EXPECT_EQ(window.key(0)(0), 7);
  EXPECT_EQ(window.value(0)(2), 9);
}

TEST(SlidingWindow, RefusesWrongSizes) {
  NHA_EXPECT_ERROR(SlidingWindow<float>(-1, 2, 3), nha::ArgumentError, "window is -1");
  NHA_EXPECT_ERROR(SlidingWindow<float>(4, -2, 3), nha::ArgumentError, "key_dim is -2");
  NHA_EXPECT_ERROR(SlidingWindow<float>(4, 2, -3), nha::ArgumentError, "value_dim is -3");
  SlidingWindow<float> window(4, 2, 3);
  const std::vector<float> numbers(8);
  using View = TensorView<const float, nha::Dynamic>;
  const View two(numbers.data(), {2}), three(numbers.data(), {3}), spread(numbers.data(), {3}, {2});
  NHA_EXPECT_ERROR(window.push(three, three), nha::ArgumentError, "key has 3 elements; expected 2");
  NHA_EXPECT_ERROR(window.push(two, two), nha::ArgumentError, "value has 2 elements; expected 3");
  NHA_EXPECT_ERROR(window.push(two, spread), nha::ArgumentError, "contiguous");
  EXPECT_EQ(window.tokens_seen(), 0);
}

TEST(SlidingWindow, RefusesTokensWithoutData) {
  SlidingWindow<float> window(4, 2, 3);
  const std::vector<float> numbers(3);
  using View = TensorView<const float, nha::Dynamic>;
  const View two(numbers.data(), {2}), three(numbers.data(), {3});
  const View no_two(static_cast<const float*>(nullptr), {2});
  const View no_three(static_cast<const float*>(nullptr), {3});
  NHA_EXPECT_ERROR(window.push(no_two, three), nha::ArgumentError, "key has no data");
  NHA_EXPECT_ERROR(window.push(two, no_three), nha::ArgumentError, "value has no data");
  EXPECT_EQ(window.tokens_seen(), 0);
  SlidingWindow<float> without_keys(4, 0, 3);
  without_keys.push({}, three);
  EXPECT_EQ(without_keys.tokens_seen(), 1);
}

TEST(SlidingWindow, RefusesSizesWhoseProductCannotBe) {
  constexpr Index kMost = nha::kLargestSize;
  NHA_EXPECT_ERROR(SlidingWindow<float>(Index{1} << 60, 16, 16), nha::ArgumentError,
                   "window is 1152921504606846976; expected 0 to 16777216");
  NHA_EXPECT_ERROR(SlidingWindow<float>(4, kMost + 1, 16), nha::ArgumentError,
                   "key_dim is 16777217");
  NHA_EXPECT_ERROR(SlidingWindow<float>(kMost, kMost, kMost), nha::ArgumentError,
                   "does not fit in memory");
}

TEST(SlidingWindow, IsReadWhereItIsConst) {
  SlidingWindow<float> window(4, 2, 3);
  push_token<float>(window, 5);
  const SlidingWindow<float>& read = window;
  EXPECT_EQ(read.key(0)(0), 5);
  EXPECT_EQ(read.value(0)(2), 52);
}

TEST(SlidingWindow, UsesItsMemoryResource) {
  alignas(64) std::byte block[1024];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  SlidingWindow<float> window(4, 2, 3, &resource);
  EXPECT_EQ(reinterpret_cast<std::byte*>(window.view().key), block);
}

}  // namespace
