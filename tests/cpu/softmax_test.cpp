// SPDX-License-Identifier: MIT
#include <nha/cpu/softmax.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;
using nha::SoftmaxState;

template <class Arch>
class Softmax : public ::testing::Test {};
TYPED_TEST_SUITE(Softmax, nha_test::Architectures);

std::vector<float> random_row(std::size_t size) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 4);
  std::vector<float> row(size);
  for (float& x : row) x = normal(random);
  return row;
}

TYPED_TEST(Softmax, OnePieceGivesWeightsRelativeToTheMaximum) {
  for (std::size_t size : {16u, 32u, 144u}) {
    const auto logits = random_row(size);
    auto row = logits;
    SoftmaxState<float> state;
    EXPECT_EQ(
        nha::cpu::online_softmax_update<TypeParam>(state, row.data(), static_cast<Index>(size)),
        0.0f);
    double sum = 0;
    for (float x : logits) sum += std::exp(static_cast<double>(x) - state.maximum);
    EXPECT_EQ(state.maximum, *std::max_element(logits.begin(), logits.end()));
    EXPECT_NEAR(state.sum, sum, 1e-6 * sum);
    for (std::size_t i = 0; i < size; ++i)
      EXPECT_NEAR(row[i], std::exp(logits[i] - state.maximum), 4e-7f * row[i] + 1e-37f);
  }
}

TYPED_TEST(Softmax, PiecesAddUp) {
  const auto logits = random_row(96);
  auto row = logits;
  SoftmaxState<float> whole, pieces;
  auto copy = logits;
  nha::cpu::online_softmax_update<TypeParam>(whole, copy.data(), 96);
  float kept = 1;
  for (Index first : {0, 32, 48}) {
    const Index count = first == 0 ? 32 : first == 32 ? 16 : 48;
    const float factor =
        nha::cpu::online_softmax_update<TypeParam>(pieces, row.data() + first, count);
    if (first > 0) kept *= factor;
  }
  EXPECT_EQ(pieces.maximum, whole.maximum);
  EXPECT_NEAR(pieces.sum, whole.sum, 1e-5f * whole.sum);
  EXPECT_NEAR(row[0] * kept, copy[0], 1e-6f);
}

TYPED_TEST(Softmax, AllMaskedRowsStayEmpty) {
  std::vector<float> row(32, -INFINITY);
  SoftmaxState<float> state;
  EXPECT_EQ(nha::cpu::online_softmax_update<TypeParam>(state, row.data(), 32), 1.0f);
  for (float x : row) EXPECT_EQ(x, 0.0f);
  EXPECT_EQ(state.lse(), -INFINITY);
  EXPECT_EQ(state.normalizer(), 0.0f);
}

TYPED_TEST(Softmax, SumsARow) {
  std::vector<double> row(48);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<double>(i);
  EXPECT_EQ((nha::cpu::sum_row<TypeParam>(row.data(), 48)), 48 * 47 / 2.0);
  EXPECT_EQ((nha::cpu::sum_row<TypeParam>(row.data(), 0)), 0.0);
}

TYPED_TEST(Softmax, RowsTogetherAreTheRowsAlone) {
  constexpr Index kRows = 5, kStride = 64, kCount = 48;
  std::vector<float> rows(kRows * kStride);
  std::mt19937 random(3);
  std::normal_distribution<float> normal(0, 5);
  for (float& x : rows) x = normal(random);
  std::fill_n(rows.begin() + 2 * kStride, kCount, -INFINITY);  // a row with nothing in it
  std::vector<float> alone = rows;
  nha::SoftmaxState<float> together[kRows], one[kRows];
  together[1] = one[1] = {3.0f, 2.0f};  // a row that has seen something
  float factor[kRows];
  nha::cpu::online_softmax_update<TypeParam>(kRows, together, rows.data(), kStride, kCount, factor);
  for (Index r = 0; r < kRows; ++r) {
    EXPECT_EQ(factor[r], nha::cpu::online_softmax_update<TypeParam>(
                             one[r], alone.data() + r * kStride, kCount));
    EXPECT_EQ(together[r].sum, one[r].sum);
    EXPECT_EQ(together[r].maximum, one[r].maximum);
  }
  EXPECT_EQ(rows, alone);
}

#ifndef NDEBUG
TEST(SoftmaxTails, RowsWithATailAreRefusedInDebugBuilds) {
  std::vector<float> row(32);
  nha::SoftmaxState<float> state;
  EXPECT_DEATH(nha::cpu::online_softmax_update(state, row.data(), 17), "is_padded");
  EXPECT_DEATH((void)nha::cpu::sum_row(row.data(), 8), "is_padded");
}
#endif

}  // namespace
