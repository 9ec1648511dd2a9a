// SPDX-License-Identifier: MIT
#include <nha/cpu/gemm.hpp>

#include <gtest/gtest.h>

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
          expected = start.template operator()<T>(&before[at], i, j);
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

TYPED_TEST(Gemm, CallsWhatIsDoneAsideAfterEachTile) {
  const auto calls = [](Index rows) {
    const auto a = TestFixture::template whole_numbers<float>(rows * 8, 1);
    const auto b = TestFixture::template whole_numbers<float>(8 * 16, 2);
    std::vector<float> c(static_cast<std::size_t>(rows * 16));
    int count = 0;
    nha::cpu::gemm<TypeParam>(rows, 16, 8, nha::cpu::Rows<float>{a.data(), 8},
                              nha::cpu::row_major(b.data(), Index{16}), c.data(), 16,
                              nha::cpu::StartAtZero(), [&] { ++count; });
    return count;
  };
  EXPECT_EQ(calls(0), 0);
  EXPECT_GE(calls(1), 1);
  EXPECT_EQ(calls(240), 240 / (calls(8) == calls(1) ? 8 : 6) * calls(1));
}

}  // namespace
