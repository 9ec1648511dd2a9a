// SPDX-License-Identifier: MIT
#include <nha/core/arena.hpp>
#include <nha/core/buffer.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <limits>

#include "support/expect_error.hpp"

namespace {

TEST(Arena, SectionsAreAlignedAndInOrder) {
  nha::Buffer buffer(1024);
  nha::Arena arena(buffer.data());
  float* first = arena.take<float>(3);
  double* none = arena.take<double>(0);
  double* second = arena.take<double>(9);
  EXPECT_EQ(reinterpret_cast<std::byte*>(first), buffer.data());
  EXPECT_EQ(reinterpret_cast<std::byte*>(none), buffer.data() + 64);
  EXPECT_EQ(reinterpret_cast<std::byte*>(second), buffer.data() + 64);
  EXPECT_EQ(arena.used(), 64u + 128u);
}

TEST(Arena, WithoutABlockItMeasuresTheSame) {
  nha::Arena arena(nullptr);
  EXPECT_EQ(arena.take<float>(3), nullptr);
  EXPECT_EQ(arena.take<double>(9), nullptr);
  EXPECT_EQ(arena.used(), 64u + 128u);
}

TEST(Arena, SizesThatOverflowStayTooLargeForAnyBuffer) {
  constexpr nha::Index huge = std::numeric_limits<nha::Index>::max();
  for (const nha::Index count : {huge, huge / 2, nha::Index{-1}}) {
    nha::Arena arena(nullptr);
    arena.take<float>(16);
    arena.take<double>(count);
    arena.take<double>(count);
    arena.take<float>(16);  // adds nothing that would wrap around
    EXPECT_GT(arena.used(), std::size_t{1} << 63) << count;
    NHA_EXPECT_ERROR(nha::Buffer(arena.used()), nha::ArgumentError, "does not fit in memory");
  }
  nha::Arena bytes(nullptr);
  bytes.take<char>(huge);
  bytes.take<char>(huge);
  EXPECT_GT(bytes.used(), std::size_t{1} << 63);
  bytes.take<char>(huge);
  EXPECT_GT(bytes.used(), std::size_t{1} << 63);
}

}  // namespace
