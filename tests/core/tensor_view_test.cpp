// SPDX-License-Identifier: MIT
#include <nha/core/tensor_view.hpp>

#include <gtest/gtest.h>

#include <array>
#include <limits>
#include <numeric>
#include <span>
#include <type_traits>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::Dynamic;
using nha::Index;
using nha::TensorView;

/// 0, 1, 2, ...: an element's value is its place in memory.
std::vector<float> counted(std::size_t size) {
  std::vector<float> values(size);
  std::iota(values.begin(), values.end(), 0.0f);
  return values;
}

static_assert(std::is_trivially_copyable_v<TensorView<float, Dynamic>>);
static_assert(std::is_trivially_copyable_v<TensorView<const double, 4, Dynamic, 2, 64>>);
static_assert(TensorView<float, Dynamic, 3, 64>::rank == 3);
static_assert(TensorView<float, Dynamic, 3, 64>::static_extent(0) == Dynamic);
static_assert(TensorView<float, Dynamic, 3, 64>::static_extent(2) == 64);

// What converts by itself, what must be asked for, and what does not exist.
using Any = TensorView<float, Dynamic, Dynamic>;
using AnyConst = TensorView<const float, Dynamic, Dynamic>;
using Fixed = TensorView<float, Dynamic, 4>;
static_assert(std::is_convertible_v<Any, AnyConst>);
static_assert(std::is_convertible_v<Fixed, Any>);
static_assert(std::is_convertible_v<Fixed, AnyConst>);
static_assert(!std::is_convertible_v<Any, Fixed> && std::is_constructible_v<Fixed, Any>);
static_assert(!std::is_constructible_v<Any, AnyConst>);
static_assert(!std::is_constructible_v<TensorView<float, Dynamic>, Any>);
static_assert(!std::is_constructible_v<TensorView<const double, Dynamic, Dynamic>, Any>);

TEST(TensorView, DefaultHoldsNothing) {
  const TensorView<float, Dynamic, 4> view;
  EXPECT_EQ(view.data(), nullptr);
  EXPECT_EQ(view.extent(0), 0);
  EXPECT_EQ(view.extent(1), 4);
  EXPECT_TRUE(view.empty());
}

TEST(TensorView, PointerIsRowMajor) {
  auto memory = counted(24);
  const TensorView<float, Dynamic, Dynamic, Dynamic> view(memory.data(), {2, 3, 4});
  EXPECT_EQ(view.data(), memory.data());
  EXPECT_EQ(view.size(), 24);
  EXPECT_EQ(view.strides(), (std::array<Index, 3>{12, 4, 1}));
  EXPECT_EQ(view(1, 2, 3), 23.0f);
  EXPECT_EQ(view(1, 0, 2), 14.0f);
  EXPECT_TRUE(view.has_contiguous_rows());
  view(0, 1, 1) = -1.0f;
  EXPECT_EQ(memory[5], -1.0f);
}

TEST(TensorView, EveryRankReadsItsPlace) {
  auto memory = counted(120);
  const TensorView<float, Dynamic> one(memory.data(), {120});
  const TensorView<float, 10, Dynamic> two(memory.data(), {10, 12});
  const TensorView<float, Dynamic, 4, 5, Dynamic> four(memory.data(), {2, 4, 5, 3});
  EXPECT_EQ(one(119), 119.0f);
  EXPECT_EQ(one[7], 7.0f);
  EXPECT_EQ(two(9, 11), 119.0f);
  EXPECT_EQ(four(1, 2, 3, 1), 60.0f + 30.0f + 9.0f + 1.0f);
  EXPECT_EQ(four[1][2][3][1], four(1, 2, 3, 1));
}

TEST(TensorView, IndexingDropsTheFirstAxisAndKeepsStaticExtents) {
  auto memory = counted(24);
  const TensorView<float, Dynamic, 3, 4> view(memory.data(), {2, 3, 4});
  const auto row = view[1];
  static_assert(std::is_same_v<decltype(row), const TensorView<float, 3, 4>>);
  EXPECT_EQ(row.data(), memory.data() + 12);
  EXPECT_EQ(row.strides(), (std::array<Index, 2>{4, 1}));
  EXPECT_EQ(row[2][3], 23.0f);
}

TEST(TensorView, SpanMustHoldTheExtents) {
  auto memory = counted(12);
  const std::span<float> span(memory);
  const TensorView<float, Dynamic, Dynamic> view(span, {3, 4});
  EXPECT_EQ(view(2, 3), 11.0f);
  const TensorView<const float, Dynamic, Dynamic> part(std::span<const float>(memory), {2, 4});
  EXPECT_EQ(part(1, 3), 7.0f);
  NHA_EXPECT_ERROR((TensorView<float, Dynamic, Dynamic>(span, {3, 5})), nha::ArgumentError,
                   "span holds 12 elements; the extents need 15");
}

TEST(TensorView, PackedQkvIsSlicedWithoutACopy) {
  // [tokens, heads, q | k | v] as a fused projection writes it.
  constexpr Index tokens = 3, heads = 2, dim = 4;
  auto memory = counted(static_cast<std::size_t>(tokens * heads * 3 * dim));
  const TensorView<float, Dynamic, Dynamic, Dynamic> packed(memory.data(),
                                                            {tokens, heads, 3 * dim});
  const auto k = packed.slice<2>(dim, dim);
  EXPECT_EQ(k.extents(), (std::array<Index, 3>{tokens, heads, dim}));
  EXPECT_EQ(k.strides(), packed.strides());
  EXPECT_EQ(k.data(), memory.data() + dim);
  for (Index t = 0; t < tokens; ++t)
    for (Index h = 0; h < heads; ++h)
      for (Index d = 0; d < dim; ++d)
        EXPECT_EQ(k(t, h, d), static_cast<float>((t * heads + h) * 3 * dim + dim + d));
  EXPECT_TRUE(k.has_contiguous_rows());
}

TEST(TensorView, SliceKeepsStridesAndTheOtherStaticExtents) {
  auto memory = counted(40);
  const TensorView<float, 5, 8> view(memory.data(), {5, 8});
  const auto rows = view.slice<0>(1, 3);
  static_assert(std::is_same_v<decltype(rows), const TensorView<float, Dynamic, 8>>);
  EXPECT_EQ(rows.extents(), (std::array<Index, 2>{3, 8}));
  EXPECT_EQ(rows(0, 0), 8.0f);
  EXPECT_EQ(rows(2, 7), 31.0f);
  EXPECT_EQ(view.slice<0>(5, 0).size(), 0);  // past the last element, but nothing of it
  EXPECT_EQ(view.slice<1>(0, 8).extents(), view.extents());
}

TEST(TensorView, SliceOutsideFails) {
  auto memory = counted(12);
  const TensorView<float, Dynamic, Dynamic> view(memory.data(), {3, 4});
  NHA_EXPECT_ERROR(view.slice<0>(1, 3), nha::ArgumentError,
                   "slice of 3 from 1 does not lie inside axis 0 of extent 3");
  NHA_EXPECT_ERROR(view.slice<1>(-1, 2), nha::ArgumentError,
                   "slice of 2 from -1 does not lie inside axis 1 of extent 4");
  NHA_EXPECT_ERROR(view.slice<1>(0, -2), nha::ArgumentError, "slice of -2 from 0");
  constexpr Index largest = std::numeric_limits<Index>::max();
  NHA_EXPECT_ERROR(view.slice<1>(largest, 1), nha::ArgumentError, "does not lie inside axis 1");
  NHA_EXPECT_ERROR(view.slice<1>(1, largest), nha::ArgumentError, "does not lie inside axis 1");
}

TEST(TensorView, NegativeStrideWalksBackwards) {
  auto memory = counted(6);
  const TensorView<float, Dynamic, Dynamic> reversed(memory.data() + 4, {3, 2}, {-2, 1});
  EXPECT_EQ(reversed(0, 1), 5.0f);
  EXPECT_EQ(reversed(2, 0), 0.0f);
  EXPECT_EQ(reversed.slice<0>(1, 2)(0, 0), 2.0f);
}

TEST(TensorView, ZeroStrideRepeats) {
  auto memory = counted(4);
  const TensorView<const float, Dynamic, Dynamic> repeated(memory.data(), {1000, 4}, {0, 1});
  EXPECT_EQ(repeated(999, 3), 3.0f);
  EXPECT_EQ(repeated[7].data(), memory.data());
}

TEST(TensorView, RowsAreContiguousOnlyWithStrideOne) {
  auto memory = counted(16);
  EXPECT_FALSE(
      (TensorView<float, Dynamic, Dynamic>(memory.data(), {4, 4}, {1, 4}).has_contiguous_rows()));
  EXPECT_TRUE(
      (TensorView<float, Dynamic, Dynamic>(memory.data(), {4, 1}, {1, 4}).has_contiguous_rows()));
}

TEST(TensorView, InsertAxisMakesSingleTokens) {
  auto memory = counted(24);
  const TensorView<float, Dynamic, 3, 4> batch(memory.data(), {2, 3, 4});
  const auto tokens = batch.insert_axis<1>();
  static_assert(std::is_same_v<decltype(tokens), const TensorView<float, Dynamic, 1, 3, 4>>);
  EXPECT_EQ(tokens.extents(), (std::array<Index, 4>{2, 1, 3, 4}));
  EXPECT_EQ(tokens(1, 0, 2, 3), 23.0f);

  const TensorView<float, Dynamic> row(memory.data(), {24});
  const auto column = row.insert_axis<1>();
  static_assert(std::is_same_v<decltype(column), const TensorView<float, Dynamic, 1>>);
  EXPECT_EQ(column(23, 0), 23.0f);
  EXPECT_EQ(row.insert_axis<0>()(0, 5), 5.0f);
}

TEST(TensorView, SplitMakesTwoAxesOfOne) {
  auto memory = counted(24);
  const TensorView<float, 2, Dynamic> packed(memory.data(), {2, 12});
  // Three heads of two channels out of the last half of each row.
  const auto heads = packed.slice<1>(6, 6).split<1>(3);
  static_assert(std::is_same_v<decltype(heads), const TensorView<float, 2, Dynamic, Dynamic>>);
  EXPECT_EQ(heads.extents(), (std::array<Index, 3>{2, 3, 2}));
  EXPECT_EQ(heads(1, 2, 1), 23.0f);
  EXPECT_EQ(heads(0, 1, 0), 8.0f);
  const auto pairs = packed.split<0>(2);
  EXPECT_EQ(pairs.extents(), (std::array<Index, 3>{2, 1, 12}));
  EXPECT_EQ(pairs(1, 0, 3), 15.0f);
  NHA_EXPECT_ERROR((void)packed.split<1>(5), nha::ArgumentError,
                   "axis 1 of extent 12 cannot be split into 5 equal parts");
  NHA_EXPECT_ERROR((void)packed.split<1>(0), nha::ArgumentError, "cannot be split into 0");
}

TEST(TensorView, StaticExtentsMustBeMet) {
  auto memory = counted(24);
  const TensorView<float, Dynamic, Dynamic> view(memory.data(), {6, 4});
  const TensorView<const float, Dynamic, 4> fixed(view);
  EXPECT_EQ(fixed(5, 3), 23.0f);
  using Eight = TensorView<float, Dynamic, 8>;
  NHA_EXPECT_ERROR(Eight{view}, nha::ArgumentError,
                   "extent of axis 1 is 4; the view's type says 8");
  NHA_EXPECT_ERROR(Eight(memory.data(), {3, 7}), nha::ArgumentError,
                   "extent of axis 1 is 7; the view's type says 8");
}

TEST(TensorView, NegativeExtentFails) {
  auto memory = counted(4);
  NHA_EXPECT_ERROR((TensorView<float, Dynamic, Dynamic>(memory.data(), {2, -2})),
                   nha::ArgumentError, "extent of axis 1 is -2; expected 0 or more");
}

constexpr Index kHuge = Index{1} << 32;
constexpr Index kLargestIndex = std::numeric_limits<Index>::max();
using One = TensorView<float, Dynamic>;
using Two = TensorView<float, Dynamic, Dynamic>;
using Three = TensorView<float, Dynamic, Dynamic, Dynamic>;

TEST(TensorView, ExtentsWhoseProductOverflowsFail) {
  auto memory = counted(1);
  const std::span<float> span(memory);
  NHA_EXPECT_ERROR(Two(span, {kHuge, kHuge}), nha::ArgumentError,
                   "extents [4294967296, 4294967296] has too many elements");
  NHA_EXPECT_ERROR(Two(memory.data(), {kHuge, kHuge}), nha::ArgumentError, "product overflows");
  // Repeated elements take no memory, and still have a number.
  NHA_EXPECT_ERROR(Two(memory.data(), {kHuge, kHuge}, {0, 0}), nha::ArgumentError,
                   "product overflows");
  EXPECT_EQ(Two(memory.data(), {kHuge, kHuge / 4}, {0, 0}).size(), Index{1} << 62);
}

TEST(TensorView, AnExtentOfZeroHidesNoOverflow) {
  for (const Three::Sizes& extents :
       {Three::Sizes{0, kHuge, kHuge}, {kHuge, 0, kHuge}, {kHuge, kHuge, 0}}) {
    NHA_EXPECT_ERROR(Three(nullptr, extents), nha::ArgumentError, "product overflows");
    NHA_EXPECT_ERROR(Three(nullptr, extents, {0, 0, 0}), nha::ArgumentError, "product overflows");
  }
  EXPECT_EQ(Three(nullptr, {kHuge, 0, kHuge / 16}).size(), 0);
}

TEST(TensorView, StridesThatReachTooFarFail) {
  auto memory = counted(1);
  const char* message = "reaches too far";
  NHA_EXPECT_ERROR(Two(memory.data(), {2, 3}, {1, kLargestIndex}), nha::ArgumentError, message);
  NHA_EXPECT_ERROR(Two(memory.data(), {2, 3}, {1, kHuge * (kHuge / 8)}), nha::ArgumentError,
                   "extents [2, 3] and strides [1, 2305843009213693952]");
  NHA_EXPECT_ERROR(One(memory.data(), {2}, {std::numeric_limits<Index>::min()}), nha::ArgumentError,
                   message);
  // Each axis fits, the two together do not; nor do elements on both sides of the first.
  constexpr Index quarter = kLargestIndex / 8;
  NHA_EXPECT_ERROR(Two(memory.data(), {2, 3}, {quarter, quarter}), nha::ArgumentError, message);
  NHA_EXPECT_ERROR(Two(memory.data(), {2, 3}, {quarter, -quarter}), nha::ArgumentError, message);
  EXPECT_EQ(Two(memory.data(), {2, 2}, {quarter, 1}).stride(0), quarter);
  // Row-major extents that can be counted, but whose bytes cannot.
  NHA_EXPECT_ERROR(Two(memory.data(), {kHuge, kHuge / 4}), nha::ArgumentError, message);
  // Where there is one position or none, the stride leads nowhere.
  EXPECT_EQ(Two(memory.data(), {1, 1}, {kLargestIndex, -kLargestIndex})(0, 0), 0.0f);
  EXPECT_TRUE(Two(memory.data(), {0, 1}, {kLargestIndex, 1}).empty());
}

TEST(TensorView, PartsOfAViewThatReachesFarDoNotOverflow) {
  auto memory = counted(1);
  const One far(memory.data(), {2}, {kLargestIndex / 8});
  const auto none = far.slice<0>(2, 0);
  EXPECT_TRUE(none.empty());
  const auto whole = far.split<0>(1);
  EXPECT_EQ(whole.extents(), (Two::Sizes{1, 2}));
  EXPECT_EQ(whole(0, 0), 0.0f);
  EXPECT_EQ(whole.stride(1), kLargestIndex / 8);
  EXPECT_EQ(far.split<0>(2).stride(0), kLargestIndex / 8);
  EXPECT_EQ(far.insert_axis<0>().size(), 2);
  const Two empty(nullptr, {kHuge, 0});
  NHA_EXPECT_ERROR((void)empty.split<1>(kHuge), nha::ArgumentError, "product overflows");
  EXPECT_EQ(empty.split<1>(8).extents(), (Three::Sizes{kHuge, 8, 0}));
}

TEST(TensorView, UncheckedTakesWhatItIsGiven) {
  auto memory = counted(24);
  using Rows = TensorView<float, Dynamic, 4>;
  constexpr Index extents[] = {6, 4}, strides[] = {4, 1};
  const Rows rows = Rows::unchecked(memory.data(), extents, strides);
  static_assert(noexcept(Rows::unchecked(memory.data(), extents, strides)));
  EXPECT_EQ(rows.extents(), (Rows::Sizes{6, 4}));
  EXPECT_EQ(rows.strides(), (Rows::Sizes{4, 1}));
  EXPECT_EQ(rows(5, 3), 23.0f);
  EXPECT_EQ(Rows::unchecked(memory.data(), {2, 4}, {8, 1})(1, 0), 8.0f);
  EXPECT_EQ(Rows::unchecked(nullptr, {-1, 4}, {4, 1}).extent(0), -1);  // nothing is looked at
}

TEST(TensorView, WorksInConstantExpressions) {
  static constexpr std::array<float, 6> memory{0, 1, 2, 3, 4, 5};
  constexpr TensorView<const float, 2, 3> view(memory.data(), {2, 3});
  static_assert(view(1, 2) == 5.0f);
  static_assert(view.slice<1>(1, 2)(1, 0) == 4.0f);
  EXPECT_EQ(view[1][1], 4.0f);
}

}  // namespace
