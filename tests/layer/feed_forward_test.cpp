// SPDX-License-Identifier: MIT
#include <nha/layer/feed_forward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::FeedForward;
using nha::FeedForwardWeights;
using nha::Tensor;

constexpr Index kHidden = 5, kInner = 7;

class FeedForwardTest : public testing::Test {
 protected:
  FeedForwardTest() {
    weights.gate_proj = random_tensor<double, 2>({kInner, kHidden}, 1);
    weights.up_proj = random_tensor<double, 2>({kInner, kHidden}, 2);
    weights.down_proj = random_tensor<double, 2>({kHidden, kInner}, 3);
  }
  double expected(const Tensor<double, 2>& x, Index row, Index channel) const {
    double sum = 0;
    for (Index i = 0; i < kInner; ++i) {
      double gate = 0, up = 0;
      for (Index c = 0; c < kHidden; ++c) {
        gate += weights.gate_proj(i, c) * x(row, c);
        up += weights.up_proj(i, c) * x(row, c);
      }
      sum += weights.down_proj(channel, i) * gate / (1 + std::exp(-gate)) * up;
    }
    return sum;
  }
  void run(const Tensor<double, 2>& x, Tensor<double, 2>& y) const {
    const FeedForward<double> layer(kHidden, kInner, weights);
    nha::SectionCursor sizes(nullptr);
    layer.take_activations(sizes, x.extent(0));
    nha::Buffer scratch(sizes.used());
    nha::SectionCursor cursor(scratch.data());
    layer.forward(x, y.view(), layer.take_activations(cursor, x.extent(0)));
  }

  FeedForwardWeights<double> weights;
};

TEST_F(FeedForwardTest, EqualsAPlainLoop) {
  for (Index rows : {1, 3, 20}) {
    const auto x = random_tensor<double, 2>({rows, kHidden}, 4);
    Tensor<double, 2> y({rows, kHidden});
    run(x, y);
    for (Index r = 0; r < rows; ++r)
      for (Index c = 0; c < kHidden; ++c) ASSERT_NEAR(y(r, c), expected(x, r, c), 1e-12) << rows;
  }
}

TEST_F(FeedForwardTest, MayWriteOverItsInput) {
  const auto x = random_tensor<double, 2>({4, kHidden}, 4);
  Tensor<double, 2> y = x;
  run(y, y);
  for (Index c = 0; c < kHidden; ++c) EXPECT_NEAR(y(3, c), expected(x, 3, c), 1e-12);
}

TEST_F(FeedForwardTest, ShapesThatDoNotFitAreRefused) {
  Tensor<double, 2> x({2, kHidden + 1}), y({2, kHidden});
  NHA_EXPECT_ERROR(run(x, y), nha::ArgumentError, "x of linear has rows of 6");
  weights.down_proj = Tensor<double, 2>({kInner, kHidden});
  NHA_EXPECT_ERROR(FeedForward<double>(kHidden, kInner, weights), nha::ArgumentError,
                   "weight down_proj.weight is [7, 5]; expected [5, 7]");
}

}  // namespace
