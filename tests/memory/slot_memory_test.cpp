// SPDX-License-Identifier: MIT
#include <nha/memory/slot_memory.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <memory_resource>
#include <random>
#include <type_traits>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Index;
using nha::SlotMemory;
using nha::TensorView;

template <class T>
TensorView<const T, nha::Dynamic> row(const std::vector<T>& values) {
  return {values.data(), {static_cast<Index>(values.size())}};
}

template <class T>
void enter(SlotMemory<T>& memory, const std::vector<T>& log_gate, const std::vector<T>& write,
           const std::vector<T>& key, const std::vector<T>& value) {
  memory.enter(row(log_gate), row(write), row(key), row(value));
}

TEST(SlotMemory, IsEmptyAtFirst) {
  SlotMemory<float> memory(3, 5, 2);
  for (Index m = 0; m < 2; ++m) {
    for (Index d = 0; d < 3; ++d) EXPECT_EQ(memory.keys()(m, d), 0);
    for (Index d = 0; d < 5; ++d) EXPECT_EQ(memory.values()(m, d), 0);
    EXPECT_EQ(memory.mass()(m), 0);
  }
}

TEST(SlotMemory, EntersATokenWithItsStrengthInEverySlot) {
  SlotMemory<float> memory(2, 3, 2);
  enter<float>(memory, {0, 0}, {1, 2}, {3, -4}, {5, 6, 7});
  enter<float>(memory, {0, -INFINITY}, {10, 1}, {1, 1}, {1, 0, -1});
  // Slot 0 keeps everything; slot 1 has forgotten the first token.
  EXPECT_EQ(memory.keys()(0, 0), 13);
  EXPECT_EQ(memory.keys()(0, 1), 6);
  EXPECT_EQ(memory.keys()(1, 0), 1);
  EXPECT_EQ(memory.keys()(1, 1), 1);
  EXPECT_EQ(memory.values()(0, 0), 15);
  EXPECT_EQ(memory.values()(0, 1), 6);
  EXPECT_EQ(memory.values()(0, 2), -3);
  EXPECT_EQ(memory.values()(1, 0), 1);
  EXPECT_EQ(memory.values()(1, 1), 0);
  EXPECT_EQ(memory.values()(1, 2), -1);
  EXPECT_EQ(memory.mass()(0), 11);
  EXPECT_EQ(memory.mass()(1), 1);
}

TEST(SlotMemory, IsTheDecayedSumOfItsTokens) {
  constexpr Index kTokens = 20, kKeyDim = 3, kValueDim = 4, kSlots = 5;
  std::mt19937 random(1);
  std::uniform_real_distribution<double> uniform(0.0, 1.0);
  const auto numbers = [&](Index count, double offset) {
    std::vector<double> out(static_cast<std::size_t>(count));
    for (double& x : out) x = uniform(random) + offset;
    return out;
  };
  SlotMemory<double> memory(kKeyDim, kValueDim, kSlots);
  std::vector<std::vector<double>> gates, writes, keys, values;
  for (Index t = 0; t < kTokens; ++t) {
    gates.push_back(numbers(kSlots, -1));
    writes.push_back(numbers(kSlots, 0));
    keys.push_back(numbers(kKeyDim, -0.5));
    values.push_back(numbers(kValueDim, -0.5));
    enter(memory, gates.back(), writes.back(), keys.back(), values.back());
  }
  for (std::size_t m = 0; m < kSlots; ++m) {
    double key[kKeyDim] = {}, value[kValueDim] = {}, mass = 0;
    for (std::size_t t = 0; t < kTokens; ++t) {
      double log_left = 0;
      for (std::size_t later = t + 1; later < kTokens; ++later) log_left += gates[later][m];
      const double weight = writes[t][m] * std::exp(log_left);
      for (std::size_t d = 0; d < kKeyDim; ++d) key[d] += weight * keys[t][d];
      for (std::size_t d = 0; d < kValueDim; ++d) value[d] += weight * values[t][d];
      mass += weight;
    }
    const auto slot = static_cast<Index>(m);
    for (Index d = 0; d < kKeyDim; ++d) EXPECT_NEAR(memory.keys()(slot, d), key[d], 1e-14);
    for (Index d = 0; d < kValueDim; ++d) EXPECT_NEAR(memory.values()(slot, d), value[d], 1e-14);
    EXPECT_NEAR(memory.mass()(slot), mass, 1e-14);
  }
}

TEST(SlotMemory, WritesWhatTheGateForgetsWhereNoStrengthIsGiven) {
  SlotMemory<float> memory(1, 1, 3);
  enter<float>(memory, {0, -INFINITY, -1e-9f}, {}, {1}, {1});
  EXPECT_EQ(memory.mass()(0), 0);
  EXPECT_EQ(memory.mass()(1), 1);
  EXPECT_FLOAT_EQ(memory.mass()(2), 1e-9f);  // 1 - exp(-1e-9) is 0 in float
}

TEST(SlotMemoryView, IsReadThroughAConstView) {
  SlotMemory<float> memory(2, 3, 4);
  enter<float>(memory, {0, 0, 0, 0}, {1, 2, 3, 4}, {5, 6}, {7, 8, 9});
  const nha::SlotMemoryView<const float> read = memory.view();
  static_assert(std::is_same_v<decltype(read.key), const float*>);
  static_assert(std::is_same_v<decltype(read.mass), const float*>);
  static_assert(
      std::is_same_v<decltype(std::as_const(memory).view()), nha::SlotMemoryView<const float>>);
  EXPECT_EQ(read.count, 4);
  EXPECT_EQ(read.key_dim, 2);
  EXPECT_EQ(read.value_dim, 3);
  EXPECT_EQ(read.key_at(3, 1), 24);
  EXPECT_EQ(read.value_at(2, 0), 21);
  EXPECT_EQ(read.mass[1], 2);
  EXPECT_EQ(&read.keys()(3, 1), &read.key_at(3, 1));
  EXPECT_EQ(&read.values()(2, 1), &read.value_at(2, 1));
  EXPECT_EQ(&read.masses()(3), &read.mass[3]);
}

TEST(SlotMemoryView, KeepsMassesOfHalfSlotsInFloat) {
  using View = nha::SlotMemoryView<nha::bfloat16>;
  static_assert(std::is_same_v<decltype(View::mass), float*>);
  static_assert(
      std::is_same_v<decltype(nha::SlotMemoryView<const nha::bfloat16>::mass), const float*>);
  nha::Arena size(nullptr);
  (void)View::take(size, 3, 5, 20);  // rows of 32 slots and of 16 values
  EXPECT_EQ(size.used(), 3u * 32 * 2 + 20u * 16 * 2 + 32u * 4);
}

TEST(SlotMemory, PaddingStaysZero) {
  SlotMemory<float> memory(2, 3, 2);
  enter<float>(memory, {-1, -1}, {}, {1, -1}, {1, 1, 1});
  const auto view = memory.view();
  ASSERT_EQ(view.key_stride(), 16);
  ASSERT_EQ(view.value_stride(), 16);
  for (Index m = 2; m < 16; ++m) {
    EXPECT_EQ(view.key[m], 0);
    EXPECT_EQ(view.key[16 + m], 0);
    EXPECT_EQ(view.mass[m], 0);
  }
  for (Index d = 3; d < 16; ++d) EXPECT_EQ(view.value_at(1, d), 0);
}

TEST(SlotMemory, TakesHalfPrecisionTokens) {
  SlotMemory<float> memory(1, 1, 1);
  const float retention = 1, write = 2;
  const nha::bfloat16 key(1.5f), value(-3.0f);
  memory.view().enter(&retention, &write, &key, &value, 0);
  EXPECT_EQ(memory.keys()(0, 0), 3.0f);
  EXPECT_EQ(memory.values()(0, 0), -6.0f);
}

TEST(SlotMemory, CopiesAndClearsAsAValue) {
  SlotMemory<float> memory(1, 1, 1);
  enter<float>(memory, {0}, {1}, {1}, {1});
  SlotMemory<float> copy = memory;
  enter<float>(copy, {0}, {1}, {1}, {1});
  EXPECT_EQ(memory.mass()(0), 1);
  EXPECT_EQ(copy.mass()(0), 2);
  copy.view().copy_from(memory.view());
  EXPECT_EQ(copy.mass()(0), 1);
  EXPECT_EQ(copy.bytes(), memory.bytes());
  copy.clear();
  EXPECT_EQ(copy.mass()(0), 0);
  EXPECT_EQ(copy.keys()(0, 0), 0);
  EXPECT_EQ(copy.values()(0, 0), 0);
  EXPECT_EQ(memory.mass()(0), 1);
}

TEST(SlotMemory, MayHaveNoSlots) {
  SlotMemory<float> memory(2, 2, 0);
  enter<float>(memory, {}, {}, {1, 2}, {3, 4});
  EXPECT_EQ(memory.keys().extent(0), 0);
}

TEST(SlotMemory, RefusesWrongSizes) {
  NHA_EXPECT_ERROR(SlotMemory<float>(-1, 2, 2), nha::ArgumentError, "key_dim is -1");
  NHA_EXPECT_ERROR(SlotMemory<float>(2, -1, 2), nha::ArgumentError, "value_dim is -1");
  NHA_EXPECT_ERROR(SlotMemory<float>(2, 2, -1), nha::ArgumentError, "slots is -1");
  SlotMemory<float> memory(2, 3, 1);
  NHA_EXPECT_ERROR(enter<float>(memory, {0, 0}, {}, {1, 1}, {1, 1, 1}), nha::ArgumentError,
                   "log_gate has 2 elements; expected 1");
  NHA_EXPECT_ERROR(enter<float>(memory, {0}, {1, 1}, {1, 1}, {1, 1, 1}), nha::ArgumentError,
                   "write has 2 elements; expected 1");
  NHA_EXPECT_ERROR(enter<float>(memory, {0}, {}, {1}, {1, 1, 1}), nha::ArgumentError,
                   "key has 1 elements; expected 2");
  NHA_EXPECT_ERROR(enter<float>(memory, {0}, {}, {1, 1}, {1, 1}), nha::ArgumentError,
                   "value has 2 elements; expected 3");
  const std::vector<float> spread = {1, 0, 1, 0, 1, 0}, gate = {0}, key = {1, 1};
  const TensorView<const float, nha::Dynamic> strided(spread.data(), {3}, {2});
  NHA_EXPECT_ERROR(memory.enter(row(gate), {}, row(key), strided), nha::ArgumentError,
                   "contiguous");
}

TEST(SlotMemory, RefusesTensorsWithoutData) {
  SlotMemory<float> memory(2, 3, 1);
  const std::vector<float> gate = {0}, key = {1, 1}, value = {1, 1, 1};
  const auto none = [](Index size) {
    return TensorView<const float, nha::Dynamic>(static_cast<const float*>(nullptr), {size});
  };
  NHA_EXPECT_ERROR(memory.enter(none(1), {}, row(key), row(value)), nha::ArgumentError,
                   "log_gate has no data");
  NHA_EXPECT_ERROR(memory.enter(row(gate), none(1), row(key), row(value)), nha::ArgumentError,
                   "write has no data");
  NHA_EXPECT_ERROR(memory.enter(row(gate), {}, none(2), row(value)), nha::ArgumentError,
                   "key has no data");
  NHA_EXPECT_ERROR(memory.enter(row(gate), {}, row(key), none(3)), nha::ArgumentError,
                   "value has no data");
  EXPECT_EQ(memory.mass()(0), 0);
}

TEST(SlotMemory, RefusesSizesWhoseProductCannotBe) {
  constexpr Index kMost = nha::kLargestSize;
  NHA_EXPECT_ERROR(SlotMemory<float>(Index{1} << 60, 16, 16), nha::ArgumentError,
                   "key_dim is 1152921504606846976; expected 0 to 16777216");
  NHA_EXPECT_ERROR(SlotMemory<float>(16, kMost + 1, 16), nha::ArgumentError, "value_dim is");
  NHA_EXPECT_ERROR(SlotMemory<float>(16, 16, Index{1} << 62), nha::ArgumentError, "slots is");
  NHA_EXPECT_ERROR(SlotMemory<float>(kMost, kMost, kMost), nha::ArgumentError,
                   "does not fit in memory");
}

TEST(SlotMemory, IsReadWhereItIsConst) {
  SlotMemory<float> memory(1, 1, 1);
  enter<float>(memory, {0}, {2}, {3}, {4});
  const SlotMemory<float>& read = memory;
  EXPECT_EQ(read.keys()(0, 0), 6);
  EXPECT_EQ(read.values()(0, 0), 8);
  EXPECT_EQ(read.mass()(0), 2);
}

TEST(SlotMemory, UsesItsMemoryResource) {
  alignas(64) std::byte block[1024];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  SlotMemory<float> memory(2, 3, 1, &resource);
  EXPECT_EQ(reinterpret_cast<std::byte*>(memory.view().key), block);
}

TEST(SlotMemory, RefusesBadGatesAndStrengthsAndWritesNothing) {
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  SlotMemory<float> memory(1, 1, 2);
  NHA_EXPECT_ERROR(enter<float>(memory, {0, 0.5f}, {1, 1}, {1}, {1}), nha::ArgumentError,
                   "log_gate of slot 1 is 0.5; expected 0 or less");
  NHA_EXPECT_ERROR(enter<float>(memory, {0, kNan}, {1, 1}, {1}, {1}), nha::ArgumentError,
                   "log_gate of slot 1 is nan");
  NHA_EXPECT_ERROR(enter<float>(memory, {0, 0}, {1, INFINITY}, {1}, {1}), nha::ArgumentError,
                   "write of slot 1 is not a finite number");
  EXPECT_EQ(memory.mass()(0), 0);
  EXPECT_EQ(memory.keys()(0, 0), 0);
  EXPECT_EQ(memory.values()(0, 0), 0);
}

}  // namespace
