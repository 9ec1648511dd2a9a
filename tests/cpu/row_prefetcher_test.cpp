// SPDX-License-Identifier: MIT
#include <nha/core/tensor.hpp>
#include <nha/cpu/row_prefetcher.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace {

using nha::Index;
using nha::Tensor;
using nha::cpu::RowPrefetcher;

using RowList = std::vector<std::pair<const void*, Index>>;

RowList rows_left(RowPrefetcher& prefetcher) {
  RowList rows;
  while (prefetcher.take_row(
      [&](const std::byte* row, Index bytes) { rows.emplace_back(row, bytes); })) {
  }
  return rows;
}

TEST(RowPrefetcher, NamesEveryRowOfEveryTensorOnce) {
  Tensor<float, 4> keys({2, 9, 2, 20});
  Tensor<double, 4> queries({2, 9, 6, 7});
  RowPrefetcher prefetcher;
  prefetcher.add(&keys(1, 4, 1, 0), 2, keys.view().stride(1), 1, keys.view().stride(2), 20);
  prefetcher.add(&queries(1, 5, 2, 0), 2, queries.view().stride(1), 3, queries.view().stride(2), 7);
  const RowList expected{
      {&keys(1, 4, 1, 0), 80},    {&keys(1, 5, 1, 0), 80},    {&queries(1, 5, 2, 0), 56},
      {&queries(1, 5, 3, 0), 56}, {&queries(1, 5, 4, 0), 56}, {&queries(1, 6, 2, 0), 56},
      {&queries(1, 6, 3, 0), 56}, {&queries(1, 6, 4, 0), 56},
  };
  EXPECT_EQ(rows_left(prefetcher), expected);
  EXPECT_TRUE(rows_left(prefetcher).empty());
}

TEST(RowPrefetcher, LeavesOutWhatHasNoRows) {
  Tensor<float, 4> keys({1, 9, 2, 4});
  const float* const none = nullptr;
  const float* const row = &keys(0, 3, 1, 0);
  RowPrefetcher prefetcher;
  prefetcher.add(none, 5, 8, 1, 4, 4);
  prefetcher.add(row, 0, 8, 1, 4, 4);
  prefetcher.add(row, -2, 8, 1, 4, 4);
  prefetcher.add(row, 5, 8, 0, 4, 4);
  prefetcher.add(row, 5, 8, 1, 4, 0);
  EXPECT_TRUE(rows_left(prefetcher).empty());
  prefetcher.add(row, 1, 8, 1, 4, 4);
  prefetcher.add(none, 5, 8, 1, 4, 4);
  prefetcher.add(row, 2, 8, 1, 4, 4);
  const RowList expected{{row, 16}, {row, 16}, {&keys(0, 4, 1, 0), 16}};
  EXPECT_EQ(rows_left(prefetcher), expected);
}

TEST(RowPrefetcher, TakesRowsThatAreAddedAfterAllBeforeHaveBeenTaken) {
  Tensor<float, 4> keys({1, 9, 1, 4});
  RowPrefetcher prefetcher;
  prefetcher.add(&keys(0, 0, 0, 0), 1, 4, 1, 4, 4);
  EXPECT_EQ(rows_left(prefetcher).size(), 1u);
  prefetcher.add(&keys(0, 7, 0, 0), 2, 4, 1, 4, 4);
  const RowList expected{{&keys(0, 7, 0, 0), 16}, {&keys(0, 8, 0, 0), 16}};
  EXPECT_EQ(rows_left(prefetcher), expected);
}

TEST(RowPrefetcher, AsksForAsManyRowsACallAsItIsTold) {
  Tensor<float, 4> keys({1, 5, 1, 40});
  for (const int rows_a_call : {1, 3}) {
    RowPrefetcher prefetcher(rows_a_call);
    prefetcher.add(&keys(0, 0, 0, 0), 5, 40, 1, 40, 40);
    prefetcher();
    EXPECT_EQ(rows_left(prefetcher).size(), static_cast<std::size_t>(5 - rows_a_call));
    prefetcher();  // there is nothing left to ask for
  }
}

}  // namespace
