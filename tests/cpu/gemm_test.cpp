// SPDX-License-Identifier: MIT
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/row_prefetcher.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

template <class Arch>
class Gemm : public ::testing::Test {
 protected:
  /// Small whole numbers: every sum is exact, so results must be equal.
  template <class T>
  static std::vector<T> whole_numbers(Index count, int seed) {
    std::vector<T> values(static_cast<std::size_t>(count));
    for (std::size_t i = 0; i < values.size(); ++i)
      values[i] =
          static_cast<T>(static_cast<int>((i * 7 + static_cast<std::size_t>(seed)) % 11) - 5);
    return values;
  }

  /// What the sum of element (i, j), which is `at`, starts from.
  template <class T>
  static T start_of(nha::cpu::StartAtZero, T, Index, Index) {
    return T{0};
  }
  template <class T>
  static T start_of(nha::cpu::Accumulate, T at, Index, Index) {
    return at;
  }
  template <class T>
  static T start_of(const nha::cpu::ScaleRows<T>& s, T, Index i, Index j) {
    return s.factor[i] * s.from[i * s.stride + j];
  }
  template <class T>
  static T start_of(const nha::cpu::ScaleColumns<T>& s, T, Index i, Index j) {
    return s.factor[j] * s.from[i * s.stride + j];
  }

  template <class T, class Start>
  static void check(Index rows, Index columns, Index depth, const Start& start, bool transposed_a,
                    bool panels_b) {
    const Index c_stride = columns + 16;
    const auto a = whole_numbers<T>(rows * depth, 1);
    const auto b = whole_numbers<T>(depth * columns, 2);
    auto c = whole_numbers<T>(rows * c_stride, 3);
    const auto before = c;
    const nha::cpu::RightOperand<T> right =
        panels_b ? nha::cpu::RightOperand<T>{b.data(), depth * 16, 16}
                 : nha::cpu::row_major(b.data(), columns);
    if (transposed_a)
      nha::cpu::gemm<Arch>(rows, columns, depth, nha::cpu::Transposed<T>{a.data(), rows}, right,
                           c.data(), c_stride, start);
    else
      nha::cpu::gemm<Arch>(rows, columns, depth, nha::cpu::Rows<T>{a.data(), depth}, right,
                           c.data(), c_stride, start);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < c_stride; ++j) {
        const auto at = static_cast<std::size_t>(i * c_stride + j);
        T expected = before[at];
        if (j < columns) {
          expected = start_of(start, before[at], i, j);
          for (Index k = 0; k < depth; ++k)
            expected += a[static_cast<std::size_t>(transposed_a ? k * rows + i : i * depth + k)] *
                        b[static_cast<std::size_t>(panels_b ? j / 16 * depth * 16 + k * 16 + j % 16
                                                            : k * columns + j)];
        }
        ASSERT_EQ(c[at], expected)
            << rows << "x" << columns << "x" << depth << " at " << i << ", " << j;
      }
  }
};
TYPED_TEST_SUITE(Gemm, nha_test::Architectures);

TYPED_TEST(Gemm, IsThePlainProductAtEverySize) {
  for (Index rows : {0, 1, 2, 5, 6, 7, 8, 9, 13, 16, 17})
    for (Index columns : {16, 32, 48, 80})
      for (Index depth : {0, 1, 3, 64}) {
        this->template check<float>(rows, columns, depth, nha::cpu::StartAtZero(), false, false);
        this->template check<double>(rows, columns, depth, nha::cpu::Accumulate(), false, false);
      }
}

TYPED_TEST(Gemm, TakesEitherOrientationAndPackedPanels) {
  for (bool transposed : {false, true})
    for (bool panels : {false, true}) {
      this->template check<float>(16, 48, 20, nha::cpu::StartAtZero(), transposed, panels);
      this->template check<double>(7, 64, 9, nha::cpu::Accumulate(), transposed, panels);
    }
}

TYPED_TEST(Gemm, ScalesWhatItStartsFrom) {
  const auto row_factors = this->template whole_numbers<float>(16, 5);
  const auto column_factors = this->template whole_numbers<float>(48, 6);
  const auto from = this->template whole_numbers<float>(16 * 64, 7);
  this->template check<float>(
      16, 48, 8, nha::cpu::ScaleRows<float>{row_factors.data(), from.data(), 64}, false, false);
  this->template check<float>(16, 48, 8,
                              nha::cpu::ScaleColumns<float>{column_factors.data(), from.data(), 64},
                              false, false);
}

TYPED_TEST(Gemm, ScalesWhatLiesInTheResultItself) {
  const auto factors = this->template whole_numbers<double>(48, 5);
  const auto a = this->template whole_numbers<double>(7 * 5, 1);
  const auto b = this->template whole_numbers<double>(5 * 48, 2);
  for (const bool by_row : {true, false}) {
    auto c = this->template whole_numbers<double>(7 * 48, 3);
    const auto before = c;
    const nha::cpu::Start<double> start =
        by_row ? nha::cpu::Start<double>(nha::cpu::ScaleRows<double>{factors.data(), c.data(), 48})
               : nha::cpu::ScaleColumns<double>{factors.data(), c.data(), 48};
    nha::cpu::gemm<TypeParam>(7, 48, 5, nha::cpu::Rows<double>{a.data(), 5},
                              nha::cpu::row_major(b.data(), Index{48}), c.data(), 48, start);
    for (std::size_t i = 0; i < 7; ++i)
      for (std::size_t j = 0; j < 48; ++j) {
        double expected = factors[by_row ? i : j] * before[i * 48 + j];
        for (std::size_t k = 0; k < 5; ++k) expected += a[i * 5 + k] * b[k * 48 + j];
        ASSERT_EQ(c[i * 48 + j], expected) << i << ", " << j;
      }
  }
}

TYPED_TEST(Gemm, PrefetchesRowsAfterEachTile) {
  const auto tiles = [](Index rows) {
    const auto a = TestFixture::template whole_numbers<float>(rows * 8, 1);
    const auto b = TestFixture::template whole_numbers<float>(8 * 16, 2);
    std::vector<float> c(static_cast<std::size_t>(rows * 16));
    // One row a tile, of more rows than there are tiles: those that are left tell how many.
    constexpr Index kMany = 1000;
    nha::cpu::RowPrefetcher prefetcher;
    prefetcher.add(b.data(), kMany, 0, 1, 0, 16);
    nha::cpu::gemm<TypeParam>(rows, 16, 8, nha::cpu::Rows<float>{a.data(), 8},
                              nha::cpu::row_major(b.data(), Index{16}), c.data(), 16,
                              nha::cpu::StartAtZero(), &prefetcher);
    Index left = 0;
    while (prefetcher.take_row([](const std::byte*, Index) {})) ++left;
    return kMany - left;
  };
  EXPECT_EQ(tiles(0), 0);
  EXPECT_GE(tiles(1), 1);
  EXPECT_EQ(tiles(240), 240 / (tiles(8) == tiles(1) ? 8 : 6) * tiles(1));
}

}  // namespace
