// SPDX-License-Identifier: MIT
#include <nha/nn/activation.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

template <class T>
class Activation : public testing::Test {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(Activation, Types);

double exact_silu(double x) {
  return x / (1 + std::exp(-x));
}

TYPED_TEST(Activation, SiluIsExactAtEveryLengthAndSize) {
  // Lengths around the vector width end in every possible tail.
  for (nha::Index count = 0; count < 40; ++count) {
    std::vector<TypeParam> values;
    for (nha::Index i = 0; i < count; ++i)
      values.push_back(static_cast<TypeParam>(static_cast<double>(i - 20) * 1.37));
    const std::vector<TypeParam> x = values;
    nha::silu(values.data(), count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double expected = exact_silu(static_cast<double>(x[i]));
      EXPECT_NEAR(
          static_cast<double>(values[i]), expected,
          8 * static_cast<double>(std::numeric_limits<TypeParam>::epsilon()) * std::abs(expected));
    }
  }
}

TYPED_TEST(Activation, SiluOfLargeNumbersIsTheNumberOrZero) {
  std::vector<TypeParam> values = {1000, -1000, TypeParam(1e30), TypeParam(-1e30), 0};
  nha::silu(values.data(), 5);
  EXPECT_EQ(values[0], TypeParam(1000));
  EXPECT_EQ(values[1], TypeParam(0));
  EXPECT_EQ(values[2], TypeParam(1e30));
  EXPECT_EQ(values[3], TypeParam(0));
  EXPECT_EQ(values[4], TypeParam(0));
}

TYPED_TEST(Activation, SiluTimesMultiplies) {
  std::vector<TypeParam> values, factors;
  for (int i = 0; i < 37; ++i) {
    values.push_back(static_cast<TypeParam>(i - 18) / 5);
    factors.push_back(static_cast<TypeParam>(3 - i));
  }
  std::vector<TypeParam> expected = values;
  nha::silu(expected.data(), 37);
  nha::silu_times(values.data(), factors.data(), values.data(), 37);
  for (std::size_t i = 0; i < values.size(); ++i) EXPECT_EQ(values[i], expected[i] * factors[i]);
}

long double exact_silu_slope(long double x) {
  const long double sigmoid = 1 / (1 + expl(-x));
  return sigmoid * (1 + x / (1 + expl(x)));
}

TYPED_TEST(Activation, SiluBackwardIsTheSlopeAtEveryLengthAndSize) {
  const double epsilon = static_cast<double>(std::numeric_limits<TypeParam>::epsilon());
  for (nha::Index count = 0; count < 40; ++count) {
    std::vector<TypeParam> x, d;
    for (nha::Index i = 0; i < count; ++i) {
      x.push_back(static_cast<TypeParam>(static_cast<double>(i - 20) * 1.37));
      d.push_back(static_cast<TypeParam>(i % 5) - TypeParam(1.5));
    }
    const std::vector<TypeParam> dy = d;
    nha::silu_backward(x.data(), d.data(), d.data(), count);
    for (std::size_t i = 0; i < x.size(); ++i) {
      // Near its zero, at x = -1.28, the slope is as good as its terms are.
      const double slope = static_cast<double>(exact_silu_slope(static_cast<long double>(x[i])));
      EXPECT_NEAR(static_cast<double>(d[i]), static_cast<double>(dy[i]) * slope,
                  16 * epsilon * (std::abs(slope) + (std::abs(x[i]) < 2 ? 1 : 0)))
          << x[i];
    }
  }
}

TYPED_TEST(Activation, SlopesOfSiluAtLargeNumbersAreOneOrZero) {
  const std::vector<TypeParam> x = {1000, -1000, TypeParam(1e30), TypeParam(-1e30), 0};
  std::vector<TypeParam> d(5, 1);
  nha::silu_backward(x.data(), d.data(), d.data(), 5);
  EXPECT_EQ(d[0], TypeParam(1));
  EXPECT_EQ(d[1], TypeParam(0));
  EXPECT_EQ(d[2], TypeParam(1));
  EXPECT_EQ(d[3], TypeParam(0));
  EXPECT_EQ(d[4], TypeParam(0.5));
}

TEST(SiluTimesBackward, AgreesWithFiniteDifferences) {
  const double step = 1e-5;
  for (nha::Index count : {1, 4, 37}) {
    std::vector<double> gate, up, dy;
    for (nha::Index i = 0; i < count; ++i) {
      gate.push_back(static_cast<double>(i - 18) / 5);
      up.push_back(static_cast<double>(7 - i) / 3);
      dy.push_back(static_cast<double>(i % 7) - 2.5);
    }
    const auto size = static_cast<std::size_t>(count);
    std::vector<double> d_gate(size), d_up(size);
    nha::silu_times_backward(gate.data(), up.data(), dy.data(), d_gate.data(), d_up.data(), count);
    const auto loss = [&](std::size_t i, double gate_step, double up_step) {
      return dy[i] * exact_silu(gate[i] + gate_step) * (up[i] + up_step);
    };
    for (std::size_t i = 0; i < size; ++i) {
      EXPECT_NEAR(d_gate[i], (loss(i, step, 0) - loss(i, -step, 0)) / (2 * step), 1e-8);
      EXPECT_NEAR(d_up[i], (loss(i, 0, step) - loss(i, 0, -step)) / (2 * step), 1e-8);
    }
  }
}

TYPED_TEST(Activation, SiluTimesBackwardMayWriteOverItsInputs) {
  std::vector<TypeParam> gate, up, dy, d_gate(37), d_up(37);
  for (int i = 0; i < 37; ++i) {
    gate.push_back(static_cast<TypeParam>(i - 18) / 5);
    up.push_back(static_cast<TypeParam>(3 - i));
    dy.push_back(static_cast<TypeParam>(i % 4) / 2);
  }
  nha::silu_times_backward(gate.data(), up.data(), dy.data(), d_gate.data(), d_up.data(), 37);
  auto over_dy = dy, over_up = up;
  nha::silu_times_backward(gate.data(), over_up.data(), over_dy.data(), over_dy.data(),
                           over_up.data(), 37);
  EXPECT_EQ(over_dy, d_gate);
  EXPECT_EQ(over_up, d_up);
  // The factor that reaches `up` is the value that silu_times() multiplied by.
  std::vector<TypeParam> values = gate;
  nha::silu_times(values.data(), dy.data(), values.data(), 37);
  EXPECT_EQ(d_up, values);
}

}  // namespace
