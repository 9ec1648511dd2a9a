// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/row_prefetcher.hpp>
#include <nha/core/tensor.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

namespace {

using nha::Index;
using nha::Tensor;
using nha::detail::RowPrefetcher;

/// What RowPrefetcher asks of a call: tokens 3 to 7 of the second row, at positions 100 to 104.
struct CallOfFiveTokens {
  struct {
    Index row = 1;
  } span;
  Index head = 1;
  std::int64_t start = 100;
  std::int64_t end = 105;
  Index token_of(std::int64_t position) const { return 3 + static_cast<Index>(position - start); }
};

std::vector<std::pair<const void*, Index>> rows_left(RowPrefetcher& fetcher) {
  std::vector<std::pair<const void*, Index>> rows;
  while (
      fetcher.take_row([&](const std::byte* row, Index bytes) { rows.emplace_back(row, bytes); })) {
  }
  return rows;
}

TEST(RowPrefetcher, NamesEveryRowOfEveryTensorOnce) {
  Tensor<float, 4> keys({2, 9, 2, 20});
  Tensor<double, 4> queries({2, 9, 6, 7});
  RowPrefetcher fetcher;
  const CallOfFiveTokens call;
  fetcher.add(call, keys.view(), 101, 103, 1);
  fetcher.add(call, queries.view(), 102, 103, 3);
  const std::vector<std::pair<const void*, Index>> expected{
      {&keys(1, 4, 1, 0), 80},    {&keys(1, 5, 1, 0), 80},    {&queries(1, 5, 3, 0), 56},
      {&queries(1, 5, 4, 0), 56}, {&queries(1, 5, 5, 0), 56},
  };
  EXPECT_EQ(rows_left(fetcher), expected);
  EXPECT_TRUE(rows_left(fetcher).empty());
}

TEST(RowPrefetcher, LeavesOutTokensOfOtherCallsAndTensorsThatAreNotThere) {
  Tensor<float, 4> keys({2, 9, 2, 4});
  RowPrefetcher fetcher;
  const CallOfFiveTokens call;
  fetcher.add(call, keys.view(), 98, 102, 1);
  fetcher.add(call, keys.view(), 104, 110, 1);
  fetcher.add(call, keys.view(), 90, 100, 1);
  fetcher.add(call, decltype(keys.view())(), 100, 105, 1);
  const std::vector<std::pair<const void*, Index>> expected{
      {&keys(1, 3, 1, 0), 16}, {&keys(1, 4, 1, 0), 16}, {&keys(1, 7, 1, 0), 16}};
  EXPECT_EQ(rows_left(fetcher), expected);
}

TEST(RowPrefetcher, AsksForAsManyRowsACallAsItIsTold) {
  Tensor<float, 4> keys({2, 9, 2, 40});
  for (const int rows_a_call : {1, 3}) {
    RowPrefetcher fetcher(rows_a_call);
    fetcher.add(CallOfFiveTokens{}, keys.view(), 100, 105, 1);
    fetcher();
    EXPECT_EQ(rows_left(fetcher).size(), static_cast<std::size_t>(5 - rows_a_call));
    fetcher();  // there is nothing left to ask for
  }
}

}  // namespace
