// SPDX-License-Identifier: MIT
#include <nha/nn/feed_forward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::FeedForward;
using nha::FeedForwardWeights;
using nha::Keep;
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
    nha::Arena sizes(nullptr);
    layer.take_activations(sizes, x.extent(0));
    nha::Buffer scratch(sizes.used());
    nha::Arena cursor(scratch.data());
    layer.forward(x, y.view(), layer.take_activations(cursor, x.extent(0)));
  }
  /// Both passes; the gradients of x over d, those of the weights added to `gradients`.
  void run_backward(const Tensor<double, 2>& x, Tensor<double, 2>& d,
                    FeedForwardWeights<double>& gradients, bool input_wanted = true) const {
    const FeedForward<double> layer(kHidden, kInner, weights);
    const auto sections = [&](nha::Arena& cursor) {
      const auto a = layer.take_activations(cursor, x.extent(0), Keep::for_backward);
      return std::pair(a, layer.take_backward(cursor, x.extent(0)));
    };
    nha::Arena sizes(nullptr);
    sections(sizes);
    nha::Buffer memory(sizes.used());
    nha::Arena cursor(memory.data());
    const auto taken = sections(cursor);
    Tensor<double, 2> y({x.extent(0), kHidden});
    layer.forward(x, y.view(), taken.first);
    layer.backward(x, d.view(), taken.first, input_wanted ? d.view() : decltype(d.view())(),
                   gradients, taken.second);
  }
  double loss(const Tensor<double, 2>& x, const Tensor<double, 2>& dy) const {
    Tensor<double, 2> y(x.extents());
    run(x, y);
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
    return sum;
  }
  double slope(const Tensor<double, 2>& x, const Tensor<double, 2>& dy, double& value) const {
    const double at = value, step = 1e-5;
    value = at + step;
    const double above = loss(x, dy);
    value = at - step;
    const double below = loss(x, dy);
    value = at;
    return (above - below) / (2 * step);
  }
  static FeedForwardWeights<double> zero_gradients() {
    return {Tensor<double, 2>({kInner, kHidden}), Tensor<double, 2>({kInner, kHidden}),
            Tensor<double, 2>({kHidden, kInner})};
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

TEST_F(FeedForwardTest, BackwardAgreesWithFiniteDifferences) {
  for (Index rows : {1, 6, 20}) {
    auto x = random_tensor<double, 2>({rows, kHidden}, 4);
    const auto dy = random_tensor<double, 2>({rows, kHidden}, 5);
    auto gradients = zero_gradients();
    for (double& value : gradients.up_proj.values()) value = 2;  // added to
    Tensor<double, 2> dx = dy;
    run_backward(x, dx, gradients);
    const auto expect_slopes = [&](Tensor<double, 2>& of, const Tensor<double, 2>& found,
                                   double before) {
      for (Index i = 0; i < of.size(); ++i)
        ASSERT_NEAR(found.data()[i], before + slope(x, dy, of.data()[i]), 1e-7) << rows;
    };
    expect_slopes(x, dx, 0);
    expect_slopes(weights.gate_proj, gradients.gate_proj, 0);
    expect_slopes(weights.up_proj, gradients.up_proj, 2);
    expect_slopes(weights.down_proj, gradients.down_proj, 0);
  }
}

TEST_F(FeedForwardTest, BackwardLeavesOutWhatIsNotWanted) {
  const auto x = random_tensor<double, 2>({6, kHidden}, 4);
  const auto dy = random_tensor<double, 2>({6, kHidden}, 5);
  auto all = zero_gradients();
  Tensor<double, 2> all_dx = dy;
  run_backward(x, all_dx, all);
  using Weights = FeedForwardWeights<double>;
  for (const bool input_wanted : {false, true})
    for (const auto member : {&Weights::gate_proj, &Weights::up_proj, &Weights::down_proj}) {
      Weights one;
      one.*member = Tensor<double, 2>((all.*member).extents());
      Tensor<double, 2> dx = dy;
      run_backward(x, dx, one, input_wanted);
      EXPECT_EQ(nha_test::largest_difference(one.*member, all.*member), 0);
      EXPECT_EQ(nha_test::largest_difference(dx, input_wanted ? all_dx : dy), 0);
    }
}

TEST_F(FeedForwardTest, BackwardRefusesShapesThatDoNotFitAndTouchesNothing) {
  const auto x = random_tensor<double, 2>({3, kHidden}, 4);
  Tensor<double, 2> narrow({3, kHidden - 1}), dx({3, kHidden});
  auto gradients = zero_gradients();
  NHA_EXPECT_ERROR(run_backward(x, narrow, gradients), nha::ArgumentError,
                   "dy of FeedForward::backward is [3, 4]; expected [3, 5]");
  for (double& value : dx.values()) value = 1;
  gradients.up_proj = Tensor<double, 2>({kInner, kInner});
  NHA_EXPECT_ERROR(run_backward(x, dx, gradients), nha::ArgumentError,
                   "gradient of up_proj is [7, 7]; expected [7, 5]");
  for (double value : dx.values()) EXPECT_EQ(value, 1);
  for (double value : gradients.down_proj.values()) EXPECT_EQ(value, 0);
}

}  // namespace
