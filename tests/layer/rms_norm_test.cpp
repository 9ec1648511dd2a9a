// SPDX-License-Identifier: MIT
#include <nha/layer/rms_norm.hpp>

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

}  // namespace
