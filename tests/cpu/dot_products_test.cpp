// SPDX-License-Identifier: MIT
#include <nha/cpu/dot_products.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

template <class Arch>
class DotProducts : public ::testing::Test {
 protected:
  template <class T>
  static std::vector<T> random_numbers(Index count, unsigned seed) {
    std::mt19937 random(seed);
    std::normal_distribution<double> normal;
    std::vector<T> values(static_cast<std::size_t>(count));
    for (T& value : values) value = static_cast<T>(normal(random));
    return values;
  }

  /// Every sum within the roundings of its terms, and nothing written beside y.
  template <class T>
  static void check(Index rows, Index columns, Index depth) {
    const Index stride = depth + 3, y_stride = columns + 2;
    const auto x = random_numbers<T>(rows * stride + 1, 1);
    const auto w = random_numbers<T>(columns * stride + 1, 2);
    std::vector<T> y(static_cast<std::size_t>(rows * y_stride), T{7});
    nha::cpu::dot_products<Arch>(rows, columns, depth, x.data() + 1, stride, w.data() + 1, stride,
                                 y.data(), y_stride);
    for (Index r = 0; r < rows; ++r)
      for (Index o = 0; o < y_stride; ++o) {
        const T found = y[static_cast<std::size_t>(r * y_stride + o)];
        if (o >= columns) {
          ASSERT_EQ(found, T{7});
          continue;
        }
        double sum = 0, size = 0;
        for (Index k = 0; k < depth; ++k) {
          const double term = double(x[static_cast<std::size_t>(1 + r * stride + k)]) *
                              double(w[static_cast<std::size_t>(1 + o * stride + k)]);
          sum += term;
          size += std::abs(term);
        }
        ASSERT_NEAR(found, sum,
                    static_cast<double>(depth) * std::numeric_limits<T>::epsilon() * size)
            << rows << "x" << columns << "x" << depth << " at " << r << ", " << o;
      }
  }
};
TYPED_TEST_SUITE(DotProducts, nha_test::Architectures);

TYPED_TEST(DotProducts, ArePlainSumsAtEverySize) {
  for (Index rows : {1, 2, 3, 4, 5, 9})
    for (Index columns : {1, 3, 4, 5, 16, 18, 35})
      for (Index depth : {0, 1, 7, 16, 33, 100}) {
        this->template check<float>(rows, columns, depth);
        this->template check<double>(rows, columns, depth);
      }
}

TYPED_TEST(DotProducts, OfARowHaveTheSameBitsAmongAnyOthers) {
  const Index depth = 77, columns = 19;
  const auto x = TestFixture::template random_numbers<float>(7 * depth, 1);
  const auto w = TestFixture::template random_numbers<float>(columns * depth, 2);
  std::vector<float> together(static_cast<std::size_t>(7 * columns)), alone(columns);
  nha::cpu::dot_products<TypeParam>(7, columns, depth, x.data(), depth, w.data(), depth,
                                    together.data(), columns);
  for (Index r = 0; r < 7; ++r) {
    nha::cpu::dot_products<TypeParam>(1, columns, depth, x.data() + r * depth, depth, w.data(),
                                      depth, alone.data(), columns);
    for (Index o = 0; o < columns; ++o)
      ASSERT_EQ(alone[static_cast<std::size_t>(o)],
                together[static_cast<std::size_t>(r * columns + o)]);
  }
}

}  // namespace
