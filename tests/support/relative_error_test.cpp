// SPDX-License-Identifier: MIT
// The judge of the other tests sees what is wrong.
#include "support/relative_error.hpp"

#include <nha/core/dtype.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace {

using nha_test::Index;
using nha_test::relative_error;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<double> judged_numbers(Index count, double scale = 1) {
  std::mt19937 random(5);
  std::normal_distribution<double> normal;
  std::vector<double> values(static_cast<std::size_t>(count));
  for (double& value : values) value = scale * normal(random);
  return values;
}
double error_between(const std::vector<double>& a, const std::vector<double>& b) {
  return relative_error(a.data(), b.data(), static_cast<Index>(b.size()));
}

TEST(RelativeError, EqualNumbersHaveNone) {
  EXPECT_EQ(error_between(judged_numbers(100), judged_numbers(100)), 0);
  EXPECT_EQ(error_between({kInf, -kInf, 0, 1}, {kInf, -kInf, -0.0, 1}), 0);
  EXPECT_EQ(error_between({}, {}), 0);
}

TEST(RelativeError, OfScaledNumbersIsTheScale) {
  const std::vector<double> b = judged_numbers(1000);
  std::vector<double> a = b;
  for (double& x : a) x *= 1 + 1e-6;
  EXPECT_NEAR(error_between(a, b), 1e-6, 1e-12);
}

TEST(RelativeError, OneWrongElementShowsAmongAnyNumber) {
  for (Index count : {1, 10, 1000, 1000000}) {
    const std::vector<double> b = judged_numbers(count);
    for (std::size_t at : {std::size_t{0}, b.size() / 2, b.size() - 1}) {
      std::vector<double> a = b;
      a[at] += 1;
      EXPECT_GT(error_between(a, b), 0.01) << count;
      a[at] = 0;
      EXPECT_GT(error_between(a, b), 0.01 * std::min(1.0, std::abs(b[at]))) << count;
    }
  }
}

TEST(RelativeError, SwappedElementsShow) {
  const std::vector<double> b = judged_numbers(100000);
  std::vector<double> a = b;
  std::swap(a[17], a[18]);
  EXPECT_GT(error_between(a, b), 1e-3);
}

TEST(RelativeError, NaNIsInfinitelyWrongWhereverItIs) {
  for (std::size_t at : {0u, 1u, 2u}) {
    std::vector<double> a = {1, 2, 3}, b = a;
    a[at] = kNaN;
    EXPECT_EQ(error_between(a, b), INFINITY);
    EXPECT_EQ(error_between(b, a), INFINITY);
    EXPECT_EQ(error_between(a, a), INFINITY);
  }
}

TEST(RelativeError, InfinitiesMustBeTheSame) {
  EXPECT_EQ(error_between({1, kInf}, {1, -kInf}), INFINITY);
  EXPECT_EQ(error_between({1, kInf}, {1, 5}), INFINITY);
  EXPECT_EQ(error_between({1, 5}, {1, -kInf}), INFINITY);
  EXPECT_EQ(error_between({1, kInf}, {1, kNaN}), INFINITY);
  // Equal ones do not hide what is wrong beside them.
  EXPECT_NEAR(error_between({kInf, 2}, {kInf, 1}), 1, 1e-12);
  EXPECT_NEAR(error_between({-kInf, 0.5}, {-kInf, 0}), 0.5, 1e-12);
}

TEST(RelativeError, HugeAndTinyNumbersAreJudgedAlike) {
  for (double scale : {1e-240, 1e-200, 1.0, 1e200, 1e300}) {
    const std::vector<double> b = judged_numbers(100, scale);
    std::vector<double> a = b;
    for (double& x : a) x *= 1.25;
    EXPECT_NEAR(error_between(a, b), 0.25, 1e-9) << scale;
    for (double& x : a) x = -x;
    EXPECT_GT(error_between(a, b), 1) << scale;
  }
}

TEST(RelativeError, AgainstZerosItIsTheLargestDifference) {
  EXPECT_EQ(error_between({0, -3, 2}, {0, 0, 0}), 3);
  EXPECT_EQ(error_between({0, 0}, {1e-290, 0}), 1e-290);
  EXPECT_EQ(error_between({1, 0}, {1e-290, 0}), 1);
}

TEST(RelativeError, ShapesMustBeTheSame) {
  const nha::Tensor<float, 2> wide({2, 3}), tall({3, 2}), missing, none({0, 3});
  EXPECT_EQ(relative_error(wide, wide), 0);
  EXPECT_EQ(relative_error(wide, tall), INFINITY);
  EXPECT_EQ(relative_error(missing, wide), INFINITY);
  EXPECT_EQ(relative_error(wide, missing), INFINITY);
  EXPECT_EQ(relative_error(missing, none), INFINITY);
}

TEST(RelativeError, ComparesNumbersOfUnlikeTypes) {
  const std::vector<nha::bfloat16> a = {nha::bfloat16(1.0f), nha::bfloat16(2.0f)};
  const std::vector<double> same = {1, 2}, other = {1, 2.5};
  EXPECT_EQ(relative_error(a.data(), same.data(), 2), 0);
  EXPECT_GT(relative_error(a.data(), other.data(), 2), 0.1);
}

}  // namespace
