// SPDX-License-Identifier: MIT
#include <nha/core/arena.hpp>
#include <nha/core/buffer.hpp>

#include <gtest/gtest.h>

#include <cstddef>

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

}  // namespace
