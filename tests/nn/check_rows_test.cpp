// SPDX-License-Identifier: MIT
#include <nha/nn/check_rows.hpp>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace {

using nha::ArgumentError;
using ConstRows = nha::TensorView<const float, nha::Dynamic, nha::Dynamic>;

const float kData[30] = {};

void check(const ConstRows& view) {
  nha::detail::check_rows("x of a test", view);
}

TEST(CheckRows, RowsInOrderPass) {
  check(ConstRows(kData, {3, 4}));
  check(ConstRows(kData, {3, 4}, {10, 1}));
  check(ConstRows(kData, {1, 4}, {0, 1}));
  check(ConstRows(kData, {3, 1}, {1, 7}));
}

TEST(CheckRows, ViewsWithoutElementsNeedNoData) {
  check(ConstRows());
  check(ConstRows(nullptr, {3, 0}));
  check(ConstRows(nullptr, {0, 4}, {0, 0}));
}

TEST(CheckRows, OthersAreRefusedByName) {
  NHA_EXPECT_ERROR(check(ConstRows(nullptr, {3, 4})), ArgumentError, "x of a test has no data");
  NHA_EXPECT_ERROR(check(ConstRows(kData, {3, 4}, {8, 2})), ArgumentError,
                   "x of a test has stride 2 along its last axis; expected 1");
  for (nha::Index stride : {0, 3, -4})
    NHA_EXPECT_ERROR(check(ConstRows(kData + 12, {3, 4}, {stride, 1})), ArgumentError,
                     "between its rows; expected their length, 4, or more");
}

TEST(CheckRows, MatricesAndVectorsOfAnotherShapeAreRefusedByName) {
  using nha::detail::check_matrix, nha::detail::check_vector;
  using Vector = nha::TensorView<const float, nha::Dynamic>;
  check_matrix("x of a test", ConstRows(kData, {3, 4}, {10, 1}), 3, 4);
  NHA_EXPECT_ERROR(check_matrix("x of a test", ConstRows(kData, {3, 4}), 4, 3), ArgumentError,
                   "x of a test is [3, 4]; expected [4, 3]");
  NHA_EXPECT_ERROR(check_matrix("x of a test", ConstRows(kData, {3, 4}, {0, 1}), 3, 4),
                   ArgumentError, "x of a test has stride 0 between its rows");
  check_vector("w of a test", Vector(kData, {4}), 4);
  NHA_EXPECT_ERROR(check_vector("w of a test", Vector(kData, {4}), 5), ArgumentError,
                   "w of a test has 4 entries; expected 5");
  NHA_EXPECT_ERROR(check_vector("w of a test", Vector(kData, {4}, {2}), 4), ArgumentError,
                   "w of a test has stride 2 along its last axis");
}

}  // namespace
