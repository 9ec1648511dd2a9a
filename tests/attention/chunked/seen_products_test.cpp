// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/seen_products.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace {

using nha::Index;

constexpr Index kSeenRows = 5, kSeenColumns = 7, kNumbers = 3;

std::vector<double> seen_numbers(Index rows, Index stride, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  std::vector<double> made(static_cast<std::size_t>(rows * stride));
  for (double& x : made) x = normal(random);
  return made;
}
double seen_at(const std::vector<double>& of, Index row, Index stride, Index column) {
  return of[static_cast<std::size_t>(row * stride + column)];
}
bool token_sees(Index row, Index column) {
  return column <= row && column + 3 > row;
}

TEST(SeenProducts, AreTheProductsOverWhatIsSeenAddedToWhatIsThere) {
  const auto weights = seen_numbers(kSeenRows, 9, 1);
  const auto columns = seen_numbers(kSeenColumns, 4, 2), rows = seen_numbers(kSeenRows, 6, 3);
  auto to_rows = seen_numbers(kSeenRows, 5, 4), to_columns = seen_numbers(kSeenColumns, 8, 5);
  const auto rows_before = to_rows, columns_before = to_columns;
  nha::detail::add_seen<double>(kSeenRows, kSeenColumns, {weights.data(), 9}, {columns.data(), 4},
                                kNumbers, {to_rows.data(), 5}, token_sees);
  nha::detail::add_to_seen<double>(kSeenRows, kSeenColumns, {weights.data(), 9}, {rows.data(), 6},
                                   kNumbers, {to_columns.data(), 8}, token_sees);
  for (Index r = 0; r < kSeenRows; ++r)
    for (Index d = 0; d < 5; ++d) {
      double expected = seen_at(rows_before, r, 5, d);
      for (Index c = 0; c < kSeenColumns; ++c)
        if (token_sees(r, c) && d < kNumbers)
          expected += seen_at(weights, r, 9, c) * seen_at(columns, c, 4, d);
      EXPECT_NEAR(seen_at(to_rows, r, 5, d), expected, 1e-15);
    }
  for (Index c = 0; c < kSeenColumns; ++c)
    for (Index d = 0; d < 8; ++d) {
      double expected = seen_at(columns_before, c, 8, d);
      for (Index r = 0; r < kSeenRows; ++r)
        if (token_sees(r, c) && d < kNumbers)
          expected += seen_at(weights, r, 9, c) * seen_at(rows, r, 6, d);
      EXPECT_NEAR(seen_at(to_columns, c, 8, d), expected, 1e-15);
    }
}

TEST(SeenProducts, WhatIsNotSeenMayBeAnythingAndWhatIsSeenCounts) {
  const std::vector<double> weights(kSeenRows * kSeenColumns, 0.0);
  std::vector<double> columns(kSeenColumns * kNumbers, 1.0), rows(kSeenRows * kNumbers, 1.0);
  for (Index d = 0; d < kNumbers; ++d) {
    columns[static_cast<std::size_t>(2 * kNumbers + d)] = INFINITY;
    rows[static_cast<std::size_t>(3 * kNumbers + d)] = NAN;
  }
  std::vector<double> to_rows(kSeenRows * kNumbers), to_columns(kSeenColumns * kNumbers);
  nha::detail::add_seen<double>(kSeenRows, kSeenColumns, {weights.data(), kSeenColumns},
                                {columns.data(), kNumbers}, kNumbers, {to_rows.data(), kNumbers},
                                token_sees);
  nha::detail::add_to_seen<double>(kSeenRows, kSeenColumns, {weights.data(), kSeenColumns},
                                   {rows.data(), kNumbers}, kNumbers, {to_columns.data(), kNumbers},
                                   token_sees);
  for (Index r = 0; r < kSeenRows; ++r)
    EXPECT_EQ(std::isnan(seen_at(to_rows, r, kNumbers, 0)), token_sees(r, 2)) << r;
  for (Index c = 0; c < kSeenColumns; ++c)
    EXPECT_EQ(std::isnan(seen_at(to_columns, c, kNumbers, 0)), token_sees(3, c)) << c;
}

}  // namespace
