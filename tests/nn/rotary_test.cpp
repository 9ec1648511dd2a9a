// SPDX-License-Identifier: MIT
#include <nha/nn/rotary.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

namespace {

using nha::Index;
using nha::Tensor;

constexpr Index kDim = 6;

/// One token with `heads` heads, turned to a position.
template <class T>
Tensor<T, 3> turned(const Tensor<T, 3>& x, std::int64_t position, double theta = 10000) {
  Tensor<T, 2> cosine({1, kDim / 2}), sine({1, kDim / 2});
  double frequencies[kDim / 2];
  nha::rotary_frequencies(theta, kDim, frequencies);
  nha::rotary_row(position, frequencies, kDim / 2, cosine.data(), sine.data());
  Tensor<T, 3> out(x.extents());
  nha::rotate_half(x, cosine, sine, out.view());
  return out;
}

TEST(Rotary, TurnsChannelPairsOfTheTwoHalves) {
  const auto x = nha_test::random_tensor<double, 3>({1, 2, kDim});
  const auto out = turned(x, 17, 500.0);
  for (Index h = 0; h < 2; ++h)
    for (Index i = 0; i < kDim / 2; ++i) {
      const double angle = 17 * std::pow(500.0, -2.0 * static_cast<double>(i) / kDim);
      const double a = x(0, h, i), b = x(0, h, kDim / 2 + i);
      EXPECT_NEAR(out(0, h, i), a * std::cos(angle) - b * std::sin(angle), 1e-14);
      EXPECT_NEAR(out(0, h, kDim / 2 + i), b * std::cos(angle) + a * std::sin(angle), 1e-14);
    }
}

TEST(Rotary, PositionZeroChangesNothing) {
  const auto x = nha_test::random_tensor<float, 3>({1, 2, kDim});
  const auto out = turned(x, 0);
  for (Index i = 0; i < x.size(); ++i) EXPECT_EQ(out.data()[i], x.data()[i]);
}

TEST(Rotary, ProductsDependOnTheDistanceAloneAlsoFarOut) {
  const auto q = nha_test::random_tensor<float, 3>({1, 1, kDim}, 1);
  const auto k = nha_test::random_tensor<float, 3>({1, 1, kDim}, 2);
  const auto product = [&](std::int64_t start) {
    const auto a = turned(q, start + 9), b = turned(k, start);
    double sum = 0;
    for (Index i = 0; i < kDim; ++i) sum += double(a.data()[i]) * double(b.data()[i]);
    return sum;
  };
  // Beyond 2^32, where positions in 32 bits or angles in float would be noise.
  EXPECT_NEAR(product(std::int64_t{1} << 33), product(0), 1e-5);
}

TEST(Rotary, RefusesAnOddDimensionAndAShortTable) {
  Tensor<float, 3> odd({1, 1, 5}), out({1, 1, 5});
  Tensor<float, 2> table({1, 2});
  NHA_EXPECT_ERROR(nha::rotate_half(odd, table, table, out.view()), nha::ArgumentError,
                   "head dimension is 5; rotary needs an even one");
  Tensor<float, 3> x({1, 1, 6}), y({1, 1, 6});
  NHA_EXPECT_ERROR(nha::rotate_half(x, table, table, y.view()), nha::ArgumentError,
                   "must be [1, 3]");
}

/// Tables of three tokens at positions 4, 5 and 6.
struct RotaryTables {
  RotaryTables() {
    double frequencies[kDim / 2];
    nha::rotary_frequencies(100.0, kDim, frequencies);
    for (Index r = 0; r < 3; ++r)
      nha::rotary_row(4 + r, frequencies, kDim / 2, &cosine(r, 0), &sine(r, 0));
  }
  Tensor<double, 2> cosine{Tensor<double, 2>({3, kDim / 2})};
  Tensor<double, 2> sine{Tensor<double, 2>({3, kDim / 2})};
};

// Turning back undoes turning, and the two are each other's adjoint: the gradient of a rotation.
TEST(RotaryBackward, TurnsBackAndIsTheAdjoint) {
  const RotaryTables tables;
  const auto x = nha_test::random_tensor<double, 3>({3, 2, kDim});
  const auto dy = nha_test::random_tensor<double, 3>({3, 2, kDim}, 2);
  Tensor<double, 3> y(x.extents()), dx(x.extents()), again(x.extents());
  nha::rotate_half(x, tables.cosine, tables.sine, y.view());
  nha::rotate_half_backward(y, tables.cosine, tables.sine, again.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(again.data()[i], x.data()[i], 1e-14);
  nha::rotate_half_backward(dy, tables.cosine, tables.sine, dx.view());
  for (Index r = 0; r < 3; ++r) {
    double forward = 0, backward = 0;
    for (Index i = 0; i < 2 * kDim; ++i) {
      forward += (&dy(r, 0, 0))[i] * (&y(r, 0, 0))[i];
      backward += (&dx(r, 0, 0))[i] * (&x(r, 0, 0))[i];
    }
    EXPECT_NEAR(forward, backward, 1e-13);
  }
}

TEST(RotaryBackward, BothWaysWorkInPlace) {
  const RotaryTables tables;
  auto x = nha_test::random_tensor<double, 3>({3, 2, kDim});
  Tensor<double, 3> turned_once(x.extents()), turned_back(x.extents());
  nha::rotate_half(x, tables.cosine, tables.sine, turned_once.view());
  nha::rotate_half_backward(turned_once, tables.cosine, tables.sine, turned_back.view());
  nha::rotate_half(x, tables.cosine, tables.sine, x.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(x.data()[i], turned_once.data()[i], 1e-15);
  nha::rotate_half_backward(x, tables.cosine, tables.sine, x.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(x.data()[i], turned_back.data()[i], 1e-15);
}

TEST(RotaryBackward, RefusesShapesThatDoNotFit) {
  const RotaryTables tables;
  const Tensor<double, 3> dy({3, 2, kDim});
  Tensor<double, 3> dx({3, 1, kDim}), two({2, 2, kDim});
  NHA_EXPECT_ERROR(nha::rotate_half_backward(dy, tables.cosine, tables.sine, dx.view()),
                   nha::ArgumentError, "dx of rotate_half_backward has another shape than dy");
  NHA_EXPECT_ERROR(nha::rotate_half_backward(two, tables.cosine, tables.sine, two.view()),
                   nha::ArgumentError, "cosine and sine of rotate_half_backward must be [2, 3]");
}

TEST(RotaryBackward, TurnsFloatsBackToo) {
  const auto x = nha_test::random_tensor<float, 3>({1, 2, kDim});
  Tensor<float, 2> cosine({1, kDim / 2}), sine({1, kDim / 2});
  double frequencies[kDim / 2];
  nha::rotary_frequencies(100.0, kDim, frequencies);
  nha::rotary_row(9, frequencies, kDim / 2, cosine.data(), sine.data());
  Tensor<float, 3> y = turned(x, 9, 100.0);
  nha::rotate_half_backward(y, cosine, sine, y.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(y.data()[i], x.data()[i], 1e-6);
}

}  // namespace
