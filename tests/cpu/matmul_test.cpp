// SPDX-License-Identifier: MIT
#include <nha/cpu/matmul.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;
using nha::cpu::MatmulOutput;

/// A matrix with gaps between its rows, at an address that is not a multiple of a vector.
template <class T>
struct GappedMatrix {
  GappedMatrix(Index rows, Index columns, Index gap, int seed)
      : stride(columns + gap), numbers(static_cast<std::size_t>(rows * stride + 1)) {
    // Small whole numbers: every sum is exact, so results must be equal.
    for (std::size_t i = 0; i < numbers.size(); ++i)
      numbers[i] =
          static_cast<T>(static_cast<int>((i * 7 + static_cast<std::size_t>(seed)) % 11) - 5);
  }
  T* data() { return numbers.data() + 1; }
  const T* data() const { return numbers.data() + 1; }
  T operator()(Index row, Index column) const { return data()[row * stride + column]; }

  Index stride;
  std::vector<T> numbers;
};

template <class Arch>
class Matmul : public ::testing::Test {
 protected:
  /// Compares a product with plain loops, and that nothing is written between the rows of C.
  template <class T>
  static void check(Index rows, Index columns, Index depth, bool left_transposed,
                    bool right_transposed, Index gap, MatmulOutput output) {
    const GappedMatrix<T> a(left_transposed ? depth : rows, left_transposed ? rows : depth, gap, 1);
    const GappedMatrix<T> b(right_transposed ? columns : depth, right_transposed ? depth : columns,
                            3, 2);
    GappedMatrix<T> c(rows, columns, 5, 3);
    const GappedMatrix<T> before = c;
    const nha::cpu::Rows<T> a_rows{a.data(), a.stride}, b_rows{b.data(), b.stride};
    const nha::cpu::Transposed<T> a_turned{a.data(), a.stride}, b_turned{b.data(), b.stride};
    if (left_transposed)
      nha::cpu::matmul<Arch>(rows, columns, depth, a_turned, b_rows, c.data(), c.stride, output);
    else if (right_transposed)
      nha::cpu::matmul<Arch>(rows, columns, depth, a_rows, b_turned, c.data(), c.stride, output);
    else
      nha::cpu::matmul<Arch>(rows, columns, depth, a_rows, b_rows, c.data(), c.stride, output);
    ASSERT_EQ(c.numbers[0], before.numbers[0]);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < c.stride; ++j) {
        double expected = before(i, j);
        if (j < columns) {
          if (output == MatmulOutput::written) expected = 0;
          for (Index k = 0; k < depth; ++k)
            expected += double(left_transposed ? a(k, i) : a(i, k)) *
                        double(right_transposed ? b(j, k) : b(k, j));
        }
        ASSERT_EQ(c(i, j), expected) << rows << "x" << columns << "x" << depth << " at " << i
                                     << ", " << j << (left_transposed ? ", A transposed" : "")
                                     << (right_transposed ? ", B transposed" : "");
      }
  }

  template <class T>
  static void check_products(Index rows, Index columns, Index depth, Index gap,
                             MatmulOutput output) {
    check<T>(rows, columns, depth, false, true, gap, output);
    check<T>(rows, columns, depth, false, false, gap, output);
    check<T>(rows, columns, depth, true, false, gap, output);
  }
};
TYPED_TEST_SUITE(Matmul, nha_test::Architectures);

TYPED_TEST(Matmul, IsThePlainProductAtEverySizeAndStride) {
  for (Index rows : {1, 2, 15, 16, 17, 49})
    for (Index columns : {1, 15, 16, 17, 35, 81})
      for (Index depth : {1, 5, 64, 241}) {
        this->template check_products<float>(rows, columns, depth, 1, MatmulOutput::written);
        this->template check_products<double>(rows, columns, depth, 0, MatmulOutput::added);
      }
}

// The rows of a transposed A that lie a page or more apart are copied strip by strip.
TYPED_TEST(Matmul, IsThePlainProductWithLongStrides) {
  for (Index rows : {1, 47, 48, 101})
    for (Index depth : {63, 64, 200}) {
      this->template check_products<float>(rows, 37, depth, 1100, MatmulOutput::added);
      this->template check_products<double>(rows, 37, depth, 1100, MatmulOutput::written);
    }
}

// Shallow products of many columns are walked along the rows of C.
TYPED_TEST(Matmul, IsThePlainProductOfShallowOperands) {
  for (Index rows : {1, 24, 55})
    for (Index depth : {1, 2, 9}) {
      this->template check_products<float>(rows, 997, depth, 2, MatmulOutput::added);
      this->template check_products<double>(rows, 500, depth, 2, MatmulOutput::written);
    }
}

TYPED_TEST(Matmul, AnEmptySumIsZeroAndAnEmptyProductTouchesNothing) {
  for (Index rows : {3, 20})
    for (MatmulOutput output : {MatmulOutput::written, MatmulOutput::added}) {
      this->template check_products<float>(rows, 21, 0, 1, output);
      this->template check_products<float>(rows, 0, 7, 1, output);
      this->template check_products<float>(0, 21, 7, 1, output);
    }
}

TYPED_TEST(Matmul, RoundsWithinTheBoundOfItsSums) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (Index rows : {3, 40}) {
    const Index columns = 30, depth = 700;
    std::vector<float> a(static_cast<std::size_t>(rows * depth));
    std::vector<float> b(static_cast<std::size_t>(columns * depth));
    std::vector<float> c(static_cast<std::size_t>(rows * columns));
    for (float& value : a) value = normal(random);
    for (float& value : b) value = normal(random);
    nha::cpu::matmul<TypeParam>(rows, columns, depth, nha::cpu::Rows<float>{a.data(), depth},
                                nha::cpu::Transposed<float>{b.data(), depth}, c.data(), columns);
    for (Index i = 0; i < rows; ++i)
      for (Index j = 0; j < columns; ++j) {
        double sum = 0, size = 0;
        for (Index k = 0; k < depth; ++k) {
          const double term = double(a[static_cast<std::size_t>(i * depth + k)]) *
                              double(b[static_cast<std::size_t>(j * depth + k)]);
          sum += term;
          size += std::abs(term);
        }
        // A sum of n products in any order is within n roundings of the sum of its terms' sizes.
        const double bound =
            static_cast<double>(depth) * std::numeric_limits<float>::epsilon() / 2 * size;
        EXPECT_NEAR(c[static_cast<std::size_t>(i * columns + j)], sum, bound);
      }
  }
}

TYPED_TEST(Matmul, PaddingHidesNoNumbersThatAreNotFinite) {
  // The last columns are computed beside columns of zeros: infinity times these must not show.
  const float infinity = std::numeric_limits<float>::infinity();
  for (Index rows : {2, 20}) {
    std::vector<float> a(static_cast<std::size_t>(rows * 3), infinity);
    std::vector<float> b(static_cast<std::size_t>(5 * 3), 1.0f);
    std::vector<float> c(static_cast<std::size_t>(rows * 5));
    nha::cpu::matmul<TypeParam>(rows, 5, 3, nha::cpu::Rows<float>{a.data(), 3},
                                nha::cpu::Transposed<float>{b.data(), 3}, c.data(), 5);
    for (float value : c) EXPECT_EQ(value, infinity);
  }
}

}  // namespace
