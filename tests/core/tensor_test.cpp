// SPDX-License-Identifier: MIT
#include <nha/core/dtype.hpp>
#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <memory_resource>
#include <new>
#include <utility>

#include "support/expect_error.hpp"

namespace {

using nha::Index;
using nha::Tensor;

TEST(Tensor, StartsZeroAlignedAndRowMajor) {
  const Tensor<float, 3> tensor({2, 3, 5});
  EXPECT_EQ(tensor.size(), 30);
  EXPECT_EQ(tensor.extent(2), 5);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(tensor.data()) % nha::kAlignment, 0u);
  EXPECT_TRUE(std::all_of(tensor.values().begin(), tensor.values().end(),
                          [](float value) { return value == 0.0f; }));
  EXPECT_EQ(&tensor(1, 2, 3), tensor.data() + 28);
}

TEST(Tensor, ViewsSeeItsMemory) {
  Tensor<nha::bfloat16, 2> tensor({2, 4});
  const nha::TensorView<nha::bfloat16, nha::Dynamic, nha::Dynamic> view = tensor;
  view(1, 3) = nha::bfloat16(2.0f);
  EXPECT_EQ(tensor.values()[7], nha::bfloat16(2.0f));
  const nha::TensorView<const nha::bfloat16, nha::Dynamic, nha::Dynamic> read =
      std::as_const(tensor);
  EXPECT_EQ(read.data(), tensor.data());
}

TEST(Tensor, CopiesAreDeepAndMovesKeepTheMemory) {
  Tensor<double, 1> tensor({3});
  tensor(1) = 7;
  Tensor<double, 1> copy = tensor;
  copy(1) = 8;
  EXPECT_EQ(tensor(1), 7);
  const double* memory = tensor.data();
  const Tensor<double, 1> moved = std::move(tensor);
  EXPECT_EQ(moved.data(), memory);
  EXPECT_EQ(moved(1), 7);
}

TEST(Tensor, MovedFromHasNoElementsAndNoExtents) {
  Tensor<float, 2> a({2, 3});
  const Tensor<float, 2> b = std::move(a);
  EXPECT_EQ(a.extent(0), 0);  // NOLINT: what a moved-from tensor is
  EXPECT_EQ(a.extent(1), 0);
  EXPECT_EQ(a.size(), 0);
  EXPECT_TRUE(a.view().empty());
  Tensor<float, 2> c({4, 5}), d({1, 1});
  d = std::move(c);
  EXPECT_EQ(d.extent(1), 5);
  EXPECT_EQ(c.extent(0), 0);  // NOLINT
  EXPECT_EQ(c.size(), 0);
  Tensor<float, 2>& self = d;
  d = std::move(self);
  EXPECT_EQ(d.extent(0), 4);
  EXPECT_EQ(d.size(), 20);
}

TEST(Tensor, CopiesIntoAGivenResource) {
  alignas(64) std::byte block[1024];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  Tensor<float, 1> tensor({16});
  tensor(15) = 4;
  const Tensor<float, 1> copy(tensor, &resource);
  EXPECT_EQ(reinterpret_cast<const std::byte*>(copy.data()), block);
  EXPECT_EQ(copy(15), 4);
}

TEST(Tensor, AssignmentThatCannotAllocateChangesNothing) {
#if NHA_HAS_EXCEPTIONS
  alignas(64) std::byte block[64];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  Tensor<float, 1> tensor({16}, &resource);
  const Tensor<float, 1> larger({17});
  EXPECT_THROW(tensor = larger, std::bad_alloc);
  EXPECT_EQ(tensor.extent(0), 16);
  EXPECT_EQ(tensor.size(), 16);
#endif
}

TEST(Tensor, AssignmentTakesTheOtherShape) {
  Tensor<float, 2> a({2, 2});
  Tensor<float, 2> b({1, 5});
  b(0, 4) = 3;
  a = b;
  EXPECT_EQ(a.extents(), b.extents());
  EXPECT_EQ(a(0, 4), 3.0f);
  EXPECT_NE(a.data(), b.data());
}

TEST(Tensor, NothingIsAShapeToo) {
  const Tensor<float, 2> none;
  EXPECT_EQ(none.size(), 0);
  const Tensor<float, 3> no_rows({4, 0, 8});
  EXPECT_EQ(no_rows.size(), 0);
  EXPECT_EQ(no_rows.extent(2), 8);
}

TEST(Tensor, MemoryResourceIsUsed) {
  alignas(64) std::byte block[1024];
  std::pmr::monotonic_buffer_resource resource(block, sizeof block,
                                               std::pmr::null_memory_resource());
  const Tensor<float, 1> tensor({16}, &resource);
  EXPECT_GE(reinterpret_cast<const std::byte*>(tensor.data()), block);
  EXPECT_LT(reinterpret_cast<const std::byte*>(tensor.data()), block + sizeof block);
}

TEST(Tensor, ImpossibleSizesFailBeforeAllocating) {
  using Small = Tensor<float, 2>;
  NHA_EXPECT_ERROR(Small({3, -1}), nha::ArgumentError,
                   "extent of a tensor is -1; expected 0 or more");
  constexpr Index huge = std::numeric_limits<Index>::max() / 8;
  NHA_EXPECT_ERROR(Small({huge, 4}), nha::ArgumentError, "does not fit in memory");
  NHA_EXPECT_ERROR(Small({huge * 4, 1}), nha::ArgumentError, "does not fit in memory");
  // More than any machine has, though it can be counted.
  NHA_EXPECT_ERROR(Small({Index{1} << 30, Index{1} << 30}), nha::ArgumentError,
                   "does not fit in memory");
}

TEST(Tensor, AnExtentOfZeroHidesNoOverflow) {
  using Cube = Tensor<float, 3>;
  constexpr Index huge = Index{1} << 62;
  NHA_EXPECT_ERROR(Cube({0, huge, huge}), nha::ArgumentError, "does not fit in memory");
  NHA_EXPECT_ERROR(Cube({huge, 0, huge}), nha::ArgumentError, "does not fit in memory");
  NHA_EXPECT_ERROR(Cube({huge, huge, 0}), nha::ArgumentError, "does not fit in memory");
  EXPECT_EQ(Cube({0, 1 << 20, 1 << 20}).view().size(), 0);
}

}  // namespace
