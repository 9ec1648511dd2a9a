// SPDX-License-Identifier: MIT
#include <nha/nn/rms_norm.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace {

using nha::Index;
using nha::Tensor;

TEST(RmsNorm, EqualsAPlainLoop) {
  for (Index channels : {1, 3, 8, 19, 64}) {
    const auto x = nha_test::random_tensor<float, 2>({5, channels});
    const auto weight = nha_test::random_tensor<float, 1>({channels}, 2);
    Tensor<float, 2> y({5, channels});
    nha::rms_norm(x, weight, 1e-5, y.view());
    for (Index r = 0; r < 5; ++r) {
      double squares = 0;
      for (Index c = 0; c < channels; ++c) squares += double(x(r, c)) * double(x(r, c));
      const double root = std::sqrt(squares / static_cast<double>(channels) + 1e-5);
      for (Index c = 0; c < channels; ++c)
        EXPECT_NEAR(y(r, c), x(r, c) / root * weight(c), 1e-6 * std::abs(y(r, c)) + 1e-12);
    }
  }
}

TEST(RmsNorm, WorksInPlaceAndOnStridedRows) {
  auto x = nha_test::random_tensor<double, 2>({4, 20});
  const auto weight = nha_test::random_tensor<double, 1>({7}, 2);
  const auto part = x.view().slice<1>(3, 7);
  Tensor<double, 2> expected({4, 7});
  nha::rms_norm(part, weight, 0.5, expected.view());
  const double before = x(1, 2);
  const nha::TensorView<double, nha::Dynamic, nha::Dynamic> rows(part);
  nha::rms_norm(rows, weight, 0.5, rows);
  for (Index r = 0; r < 4; ++r)
    for (Index c = 0; c < 7; ++c) EXPECT_EQ(x(r, 3 + c), expected(r, c));
  EXPECT_EQ(x(1, 2), before);
}

TEST(RmsNorm, RowOfZerosGivesZeros) {
  Tensor<float, 2> x({1, 6});
  const auto weight = nha_test::random_tensor<float, 1>({6});
  nha::rms_norm(x, weight, 1e-6, x.view());
  for (float value : x.values()) EXPECT_EQ(value, 0.0f);
}

TEST(RmsNorm, RefusesAWeightOfAnotherSize) {
  Tensor<float, 2> x({2, 6});
  const Tensor<float, 1> weight({5});
  NHA_EXPECT_ERROR(nha::rms_norm(x, weight, 1e-6, x.view()), nha::ArgumentError,
                   "weight of rms_norm has 5 entries; expected 6");
}

class RmsNormBackward : public testing::Test {
 protected:
  static constexpr double kEps = 0.01;
  static constexpr Index kRows = 3;

  explicit RmsNormBackward(Index count = 19)
      : channels(count),
        x(nha_test::random_tensor<double, 2>({kRows, count})),
        dy(nha_test::random_tensor<double, 2>({kRows, count}, 3)),
        weight(nha_test::random_tensor<double, 1>({count}, 2)) {}
  double loss() const {
    Tensor<double, 2> y({kRows, channels});
    nha::rms_norm(x, weight, kEps, y.view());
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
    return sum;
  }
  double slope(double& value) const {
    const double at = value, step = 1e-5;
    value = at + step;
    const double above = loss();
    value = at - step;
    const double below = loss();
    value = at;
    return (above - below) / (2 * step);
  }

  Index channels;
  Tensor<double, 2> x, dy;
  Tensor<double, 1> weight;
};

TEST_F(RmsNormBackward, AgreesWithFiniteDifferences) {
  Tensor<double, 2> dx({kRows, channels});
  Tensor<double, 1> dweight({channels});
  for (double& value : dweight.values()) value = 2;  // added to
  nha::rms_norm_backward(x, weight, kEps, dy, dx, dweight.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(dx.data()[i], slope(x.data()[i]), 1e-8);
  for (Index c = 0; c < channels; ++c) EXPECT_NEAR(dweight(c), 2 + slope(weight(c)), 1e-8);
}

TEST_F(RmsNormBackward, MayWriteOverDyAndOnStridedRows) {
  Tensor<double, 2> dx({kRows, channels}), wide({kRows, channels + 5});
  Tensor<double, 1> dweight({channels}), dweight_wide({channels});
  nha::rms_norm_backward(x, weight, kEps, dy, dx, dweight.view());
  const nha::TensorView<double, nha::Dynamic, nha::Dynamic> part =
      wide.view().slice<1>(2, channels);
  for (Index r = 0; r < kRows; ++r)
    for (Index c = 0; c < channels; ++c) part(r, c) = dy(r, c);
  nha::rms_norm_backward(x, weight, kEps, part, part, dweight_wide.view());
  for (Index r = 0; r < kRows; ++r) {
    for (Index c = 0; c < channels; ++c) EXPECT_EQ(part(r, c), dx(r, c));
    EXPECT_EQ(wide(r, 1), 0.0);
    EXPECT_EQ(wide(r, 2 + channels), 0.0);
  }
  for (Index c = 0; c < channels; ++c) EXPECT_EQ(dweight_wide(c), dweight(c));
}

// Without eps a row times a number gives the same y, so its gradient is at right angles to it.
TEST_F(RmsNormBackward, IsAtRightAnglesToARowWithoutEps) {
  Tensor<float, 2> x_float({kRows, channels}), dy_float = x_float, dx = x_float;
  Tensor<float, 1> weight_float({channels}), dweight({channels});
  for (Index i = 0; i < x.size(); ++i) {
    x_float.data()[i] = static_cast<float>(x.data()[i]);
    dy_float.data()[i] = static_cast<float>(dy.data()[i]);
  }
  for (Index c = 0; c < channels; ++c) weight_float(c) = static_cast<float>(weight(c));
  nha::rms_norm_backward(x_float, weight_float, 0, dy_float, dx, dweight.view());
  for (Index r = 0; r < kRows; ++r) {
    double dot = 0, size = 0;
    for (Index c = 0; c < channels; ++c) {
      dot += double(dx(r, c)) * double(x_float(r, c));
      size += std::abs(double(dx(r, c)) * double(x_float(r, c)));
    }
    EXPECT_GT(size, 1);
    EXPECT_NEAR(dot, 0, 1e-6 * size);
  }
}

TEST_F(RmsNormBackward, LeavesOutWhatIsNotWanted) {
  Tensor<double, 2> dx({kRows, channels}), dx_alone = dx;
  Tensor<double, 1> dweight({channels}), dweight_alone = dweight;
  nha::rms_norm_backward(x, weight, kEps, dy, dx, dweight.view());
  nha::rms_norm_backward(x, weight, kEps, dy, dx_alone, nha::TensorView<double, nha::Dynamic>());
  nha::rms_norm_backward(x, weight, kEps, dy, {}, dweight_alone.view());
  for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx_alone.data()[i], dx.data()[i]);
  for (Index c = 0; c < channels; ++c) EXPECT_EQ(dweight_alone(c), dweight(c));
}

TEST_F(RmsNormBackward, ArgumentsThatDoNotFitAreNamedAndTouchNothing) {
  using Rows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;
  Tensor<double, 2> dx({kRows, channels});
  Tensor<double, 1> dweight({channels}), five({5});
  const auto refuses = [&](const Rows& dy_, const Rows& dx_, auto& weight_, auto& dweight_,
                           const char* message) {
    NHA_EXPECT_ERROR(nha::rms_norm_backward(x, weight_, kEps, dy_, dx_, dweight_.view()),
                     nha::ArgumentError, message);
    for (double value : dx.values()) EXPECT_EQ(value, 0) << message;
    for (double value : dweight.values()) EXPECT_EQ(value, 0) << message;
  };
  const Rows d = dy.view(), to = dx.view();
  refuses(d.slice<0>(0, 2), to, weight, dweight,
          "dy of rms_norm_backward is [2, 19]; expected [3, 19]");
  refuses(d, to.slice<1>(0, 9), weight, dweight,
          "dx of rms_norm_backward is [3, 9]; expected [3, 19]");
  refuses(d, Rows(dx.data(), {kRows, channels}, {1, 1}), weight, dweight,
          "dx of rms_norm_backward has stride 1 between its rows");
  refuses(d, to, five, dweight, "weight of rms_norm_backward has 5 entries; expected 19");
  refuses(d, to, weight, five, "dweight of rms_norm_backward has 5 entries; expected 19");
}

}  // namespace
