// SPDX-License-Identifier: MIT
#include <nha/core/overlap.hpp>

#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Dynamic;
using nha::Index;
using nha::TensorView;
using nha::detail::CallMemory;
using nha::detail::Overlap;
using View2 = TensorView<float, Dynamic, Dynamic>;
using View3 = TensorView<float, Dynamic, Dynamic, Dynamic>;
using View4 = TensorView<float, Dynamic, Dynamic, Dynamic, Dynamic>;

nha::detail::ViewRange overlap_range_of(const View4& view) {
  nha::detail::ViewRange range;
  EXPECT_TRUE(nha::detail::range_of(view, range));
  return range;
}

/// The first byte of every element, one entry for each position.
std::multiset<const std::byte*> addresses(const View4& view) {
  std::multiset<const std::byte*> all;
  for (Index a = 0; a < view.extent(0); ++a)
    for (Index b = 0; b < view.extent(1); ++b)
      for (Index c = 0; c < view.extent(2); ++c)
        for (Index d = 0; d < view.extent(3); ++d)
          all.insert(reinterpret_cast<const std::byte*>(&view(a, b, c, d)));
  return all;
}

TEST(Overlap, IsWhatComparingAllElementsFinds) {
  std::vector<float> memory(4096);
  std::mt19937 random(3);
  const auto number = [&](Index least, Index most) {
    return std::uniform_int_distribution<Index>(least, most)(random);
  };
  const auto view = [&] {
    View4::Sizes extents, strides;
    for (std::size_t axis = 0; axis < 4; ++axis) {
      extents[axis] = number(1, 4);
      strides[axis] = number(-21, 21);
      if (number(0, 2) == 0) strides[axis] *= 4;
    }
    return View4(memory.data() + 2048 + number(-40, 40), extents, strides);
  };
  std::array<int, 2> self{}, pair{};
  int nested_ones = 0;
  for (int round = 0; round < 4000; ++round) {
    const View4 a = view(), b = view();
    const auto of_a = addresses(a), of_b = addresses(b);
    const bool shares_itself = std::set(of_a.begin(), of_a.end()).size() < of_a.size();
    ASSERT_EQ(nha::detail::self_overlap(overlap_range_of(a)).overlap,
              shares_itself ? Overlap::some : Overlap::none)
        << nha::detail::shape_text(a.extents()) << nha::detail::shape_text(a.strides());
    bool share = false;
    for (const std::byte* address : of_b) share = share || of_a.contains(address);
    ASSERT_EQ(nha::detail::overlap(overlap_range_of(a), overlap_range_of(b)),
              share ? Overlap::some : Overlap::none)
        << nha::detail::shape_text(a.extents()) << nha::detail::shape_text(a.strides())
        << nha::detail::shape_text(b.extents()) << nha::detail::shape_text(b.strides())
        << b.data() - a.data();
    if (nha::detail::nested(overlap_range_of(a))) {
      ASSERT_FALSE(shares_itself);
      ++nested_ones;
    }
    ++self[shares_itself];
    ++pair[share];
  }
  EXPECT_GT(nested_ones, 40);
  for (const auto& counts : {self, pair})
    for (const int count : counts) EXPECT_GT(count, 400);  // each answer was tried
}

TEST(Overlap, DistinctElementsNeedNoNestedStrides) {
  std::vector<float> memory(64);
  nha::detail::check_distinct("x", View2(memory.data(), {3, 2}, {2, 3}));
  NHA_EXPECT_ERROR(nha::detail::check_distinct("x", View2(memory.data(), {4, 3}, {2, 3})),
                   nha::ArgumentError, "x has stride 3 along axis 1: some of its elements share");
  nha::detail::check_distinct("x", View2(memory.data() + 9, {3, 2}, {-2, -3}));
  nha::detail::check_distinct("x", View2(nullptr, {3, 2}, {0, 0}));
  nha::detail::check_distinct("x", View2(memory.data(), {0, 2}, {0, 0}));
  nha::detail::check_distinct("x", View2(memory.data(), {1, 4}, {0, 1}));
}

TEST(Overlap, SlicesOfOneBufferLieApart) {
  // [tokens, heads, o | lse | share] in one buffer: neighbours, none shared.
  std::vector<float> memory(5 * 3 * 10);
  const View3 packed(memory.data(), {5, 3, 10});
  CallMemory call;
  call.writes("o", packed.slice<2>(0, 8));
  call.writes("lse", packed.slice<2>(8, 1));
  call.writes("slot_share", packed.slice<2>(9, 1));
  NHA_EXPECT_ERROR(call.reads("v", packed.slice<2>(7, 2)), nha::ArgumentError,
                   "o shares memory with v; expected memory of its own");
  NHA_EXPECT_ERROR(call.writes("q", packed.slice<0>(4, 1).slice<2>(9, 1)), nha::ArgumentError,
                   "q shares memory with slot_share");
}

TEST(Overlap, WhatIsOnlyReadMayBeOneTensor) {
  std::vector<float> memory(24);
  const View2 rows(memory.data(), {6, 4});
  CallMemory call;
  call.reads("q_window", rows);
  call.reads("q_slot", rows);
  call.reads("repeated", View2(memory.data(), {6, 4}, {0, 1}));
  NHA_EXPECT_ERROR(call.writes("o", rows), nha::ArgumentError, "o shares memory with q_window");
}

TEST(Overlap, ElementsOfUnlikeTypesThatTouchInOneByteOverlap) {
  alignas(8) std::byte memory[32] = {};
  const TensorView<double, Dynamic> wide(reinterpret_cast<double*>(memory), {2});
  const auto narrow = [&](Index at) {
    return TensorView<short, Dynamic>(reinterpret_cast<short*>(memory) + at, {1});
  };
  CallMemory call;
  call.writes("wide", wide);
  call.reads("after", narrow(8));
  NHA_EXPECT_ERROR(call.reads("last", narrow(7)), nha::ArgumentError, "wide shares memory with");
}

TEST(Overlap, LargeTensorsCostNothing) {
  // Sizes of a long prefill, permuted and sliced: nothing is read, and few steps are tried.
  float* memory = reinterpret_cast<float*>(std::uintptr_t{1} << 40);
  const View4 packed(memory, {64, 1 << 20, 32, 385});
  const auto begin = std::chrono::steady_clock::now();
  for (int round = 0; round < 100; ++round) {
    CallMemory call;
    call.reads("q", packed.slice<3>(0, 128));
    call.reads("k", packed.slice<3>(128, 128));
    call.writes("o", packed.slice<3>(256, 128));
    call.writes("lse", packed.slice<3>(384, 1));
    call.writes("permuted", View4(memory + packed.size(), {32, 64, 1 << 20, 128},
                                  {128, Index{128 * 32} << 20, 128 * 32, 1}));
  }
  EXPECT_LT(std::chrono::steady_clock::now() - begin, std::chrono::seconds(1));
}

TEST(Overlap, StridesThatCannotBeSearchedAreRefusedTruthfully) {
  float* memory = reinterpret_cast<float*>(std::uintptr_t{1} << 40);
  const View3 tangled(memory, {4000, 4001, 4003}, {16012003, 16008001, 16004000});
  NHA_EXPECT_ERROR(nha::detail::check_distinct("x", tangled), nha::ArgumentError,
                   "x has extents [4000, 4001, 4003] and strides [16012003, 16008001, 16004000]: "
                   "too many to tell");
  constexpr Index far = Index{1} << 59;
  nha::detail::check_distinct("x", View2(memory, {2, 2}, {far, 1}));
  NHA_EXPECT_ERROR(nha::detail::check_distinct("x", View2(memory, {2, 2}, {1, far})),
                   nha::ArgumentError, "too many to tell");
}

}  // namespace
