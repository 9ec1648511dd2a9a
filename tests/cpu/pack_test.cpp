// SPDX-License-Identifier: MIT
#include <nha/cpu/pack.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <utility>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

TEST(Pack, RowsAreWidenedAndPaddedWithZeros) {
  const nha::bfloat16 row[3] = {nha::bfloat16(1.5f), nha::bfloat16(-2.0f), nha::bfloat16(3.0f)};
  float out[16];
  std::fill_n(out, 16, 9.0f);
  nha::cpu::pack_row(row, 3, out);
  EXPECT_EQ(out[0], 1.5f);
  EXPECT_EQ(out[2], 3.0f);
  for (int i = 3; i < 16; ++i) EXPECT_EQ(out[i], 0.0f);
  nha::cpu::pack_scaled_row(row, 3, 2.0f, out);
  EXPECT_EQ(out[1], -4.0f);
}

TEST(Pack, KeysLieSideBySideInPanels) {
  std::vector<float> panels(2 * 3 * 16);
  for (Index token = 0; token < 20; ++token) {
    const float key[3] = {static_cast<float>(token), 100.0f + static_cast<float>(token), 7.0f};
    nha::cpu::pack_key_column(key, 3, token, panels.data());
  }
  EXPECT_EQ(panels[5], 5.0f);              // token 5, first number
  EXPECT_EQ(panels[16 + 5], 105.0f);       // second
  EXPECT_EQ(panels[48 + 16 + 3], 119.0f);  // token 19: second panel, column 3
}

template <class T>
void check_columns(Index key_dim, Index column, Index count) {
  using Acc = nha::accumulate_t<T>;
  std::vector<T> keys(static_cast<std::size_t>(count * key_dim));
  for (std::size_t i = 0; i < keys.size(); ++i) keys[i] = T(static_cast<float>(i % 251));
  std::vector<Acc> panels(static_cast<std::size_t>(nha::padded(column + count) * key_dim), Acc{-1});
  std::vector<Acc> expected = panels;
  for (Index i = 0; i < count; ++i)
    nha::cpu::pack_key_column(&keys[static_cast<std::size_t>(i * key_dim)], key_dim, column + i,
                              expected.data());
  nha::cpu::pack_key_columns<T>(
      count, [&](Index i) { return &keys[static_cast<std::size_t>(i * key_dim)]; }, key_dim, column,
      panels.data());
  EXPECT_EQ(panels, expected) << key_dim << ' ' << column << ' ' << count;
}

TEST(Pack, ManyKeysAreWhatTheyAreOneByOne) {
  for (const Index key_dim : {1, 3, 4, 18, 64})
    for (const Index column : {0, 1, 3, 4, 14, 16, 29})
      for (const Index count : {1, 2, 4, 7, 16, 35}) {
        check_columns<float>(key_dim, column, count);
        check_columns<double>(key_dim, column, count);
        check_columns<nha::bfloat16>(key_dim, column, count);
        check_columns<nha::float16>(key_dim, column, count);
      }
}

template <class T>
void check_transpose(Index rows, Index columns) {
  const Index in_stride = columns + 3, out_stride = nha::padded(rows) + 16;
  std::vector<T> in(static_cast<std::size_t>(rows * in_stride));
  for (std::size_t i = 0; i < in.size(); ++i) in[i] = static_cast<T>(i + 1);
  std::vector<T> out(static_cast<std::size_t>((columns + 1) * out_stride), T{-1});
  std::vector<T> expected = out;
  for (Index j = 0; j < columns; ++j)
    for (Index i = 0; i < nha::padded(rows); ++i)
      expected[static_cast<std::size_t>(j * out_stride + i)] =
          i < rows ? in[static_cast<std::size_t>(i * in_stride + j)] : T{0};
  nha::cpu::transpose(in.data(), rows, columns, in_stride, out.data(), out_stride);
  EXPECT_EQ(out, expected) << rows << " x " << columns;
}

TEST(Pack, TransposeTurnsRowsAndPadsThemWithZeros) {
  for (const Index rows : {0, 1, 3, 4, 15, 16, 22})
    for (const Index columns : {0, 1, 4, 6, 33}) {
      check_transpose<float>(rows, columns);
      check_transpose<double>(rows, columns);
    }
}

template <class T>
void check_all_finite() {
  using Limits = std::numeric_limits<T>;
  EXPECT_TRUE(nha::cpu::all_finite(static_cast<const T*>(nullptr), 0));
  for (const Index count : {16, 32, 48, 112}) {
    // One more number than is asked for.
    std::vector<T> row(static_cast<std::size_t>(count) + 1, Limits::max());
    row[3] = Limits::lowest();
    row[5] = Limits::denorm_min();
    row[6] = T{-0.0};
    row.back() = Limits::quiet_NaN();
    EXPECT_TRUE(nha::cpu::all_finite(row.data(), count)) << count;
    for (const T bad : {Limits::quiet_NaN(), Limits::infinity(), -Limits::infinity()})
      for (std::size_t i = 0; i + 1 < row.size(); ++i) {
        const T good = std::exchange(row[i], bad);
        EXPECT_FALSE(nha::cpu::all_finite(row.data(), count)) << bad << " at " << i;
        row[i] = good;
      }
  }
}

TEST(Pack, AllFiniteFindsEveryNumberThatIsNot) {
  check_all_finite<float>();
  check_all_finite<double>();
}

template <class Arch>
class PackGates : public ::testing::Test {};
TYPED_TEST_SUITE(PackGates, nha_test::Architectures);

TYPED_TEST(PackGates, KeepDigitsForSlowGatesAndSurviveFastOnes) {
  const float gates[6] = {0.0f,   -1e-6f,  -0.3f,
                          -40.0f, -200.0f, -std::numeric_limits<float>::infinity()};
  float retention[16], write[16];
  nha::cpu::pack_gates<TypeParam>(gates, static_cast<const float*>(nullptr), 6, retention, write);
  for (int m = 0; m < 6; ++m) {
    const double g = gates[m];
    EXPECT_NEAR(retention[m], std::exp(g), 2e-7 * std::exp(g) + 1e-37) << g;
    EXPECT_NEAR(write[m], -std::expm1(g), 2e-7 * -std::expm1(g)) << g;
  }
  for (int m = 6; m < 16; ++m) {
    EXPECT_EQ(retention[m], 1.0f);
    EXPECT_EQ(write[m], 0.0f);
  }
}

TYPED_TEST(PackGates, TakeGivenWriteStrengths) {
  const float gates[2] = {-1.0f, -2.0f};
  const float given[2] = {0.25f, 3.0f};
  float retention[16], write[16];
  nha::cpu::pack_gates<TypeParam>(gates, given, 2, retention, write);
  EXPECT_EQ(write[0], 0.25f);
  EXPECT_EQ(write[1], 3.0f);
  EXPECT_EQ(write[2], 0.0f);
}

}  // namespace
