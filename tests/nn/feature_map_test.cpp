// SPDX-License-Identifier: MIT
#include <nha/nn/feature_map.hpp>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

namespace {

using nha::FeatureMap;
using nha::Index;
using nha::Tensor;

class FeatureMaps : public testing::Test {
 protected:
  Tensor<double, 2> mapped(FeatureMap map) const {
    Tensor<double, 2> heads = x;
    std::vector<double> scratch(static_cast<std::size_t>(x.size()));
    nha::apply_feature_map(map, heads.view(), weight, scratch.data());
    return heads;
  }
  template <class F>
  void expect_each(FeatureMap map, F&& expected) const {
    const auto result = mapped(map);
    for (Index i = 0; i < x.size(); ++i)
      EXPECT_NEAR(result.data()[i], expected(x.data()[i]), 1e-14);
  }

  Tensor<double, 2> x = nha_test::random_tensor<double, 2>({11, 5});
  Tensor<double, 2> weight = nha_test::random_tensor<double, 2>({5, 5}, 2);
};

TEST_F(FeatureMaps, IdentityLeavesHeadsAsTheyAre) {
  expect_each(FeatureMap::identity, [](double v) { return v; });
}
TEST_F(FeatureMaps, SwishIsSilu) {
  expect_each(FeatureMap::swish, [](double v) { return v / (1 + std::exp(-v)); });
}
TEST_F(FeatureMaps, ReluCutsAtZero) {
  expect_each(FeatureMap::relu, [](double v) { return v > 0 ? v : 0.0; });
}
TEST_F(FeatureMaps, T2rIsReluOfALinearMap) {
  const auto result = mapped(FeatureMap::t2r);
  for (Index r = 0; r < 11; ++r)
    for (Index o = 0; o < 5; ++o) {
      double sum = 0;
      for (Index i = 0; i < 5; ++i) sum += weight(o, i) * x(r, i);
      EXPECT_NEAR(result(r, o), std::max(sum, 0.0), 1e-14);
    }
}

TEST_F(FeatureMaps, HeadsWithGapsAreRefusedAndNeighboursStay) {
  for (FeatureMap map :
       {FeatureMap::identity, FeatureMap::swish, FeatureMap::relu, FeatureMap::t2r}) {
    Tensor<double, 2> wide = nha_test::random_tensor<double, 2>({4, 7});
    const Tensor<double, 2> before = wide;
    std::vector<double> scratch(20);
    const nha::TensorView<double, nha::Dynamic, nha::Dynamic> heads = wide.view().slice<1>(0, 5);
    NHA_EXPECT_ERROR(nha::apply_feature_map(map, heads, weight, scratch.data()), nha::ArgumentError,
                     "heads of apply_feature_map has stride 7 between its rows; expected 5");
    for (Index i = 0; i < wide.size(); ++i) ASSERT_EQ(wide.data()[i], before.data()[i]);
  }
}

TEST_F(FeatureMaps, T2rNeedsItsWeightAndScratchMemory) {
  std::vector<double> scratch(static_cast<std::size_t>(x.size()));
  double* none = nullptr;
  NHA_EXPECT_ERROR(nha::apply_feature_map(FeatureMap::t2r, x.view(), weight, none),
                   nha::ArgumentError, "scratch of apply_feature_map is null");
  NHA_EXPECT_ERROR(nha::apply_feature_map(FeatureMap::t2r, x.view(), weight.view().slice<0>(0, 4),
                                          scratch.data()),
                   nha::ArgumentError, "weight of apply_feature_map is [4, 5]; expected [5, 5]");
}

class FeatureMapBackward : public FeatureMaps {
 protected:
  double loss(FeatureMap map) const {
    const auto y = mapped(map);
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
    return sum;
  }
  double slope(FeatureMap map, double& value) const {
    const double at = value, step = 1e-6;
    value = at + step;
    const double above = loss(map);
    value = at - step;
    const double below = loss(map);
    value = at;
    return (above - below) / (2 * step);
  }

  Tensor<double, 2> dy = nha_test::random_tensor<double, 2>({11, 5}, 3);
  Tensor<double, 2> dx{Tensor<double, 2>({11, 5})};
  Tensor<double, 2> dweight{Tensor<double, 2>({5, 5})};
  std::vector<double> scratch = std::vector<double>(55);
};

TEST_F(FeatureMapBackward, AgreesWithFiniteDifferences) {
  for (FeatureMap map :
       {FeatureMap::identity, FeatureMap::swish, FeatureMap::relu, FeatureMap::t2r}) {
    for (double& value : dweight.values()) value = 2;  // added to
    nha::feature_map_backward(map, x, weight, dy, dx.view(), dweight, scratch.data());
    for (Index i = 0; i < x.size(); ++i)
      EXPECT_NEAR(dx.data()[i], slope(map, x.data()[i]), 1e-8) << int(map);
    for (Index i = 0; i < weight.size(); ++i)
      EXPECT_NEAR(dweight.data()[i], 2 + slope(map, weight.data()[i]), 1e-8) << int(map);
  }
}

TEST_F(FeatureMapBackward, MayWriteOverTheGradientItReads) {
  for (FeatureMap map :
       {FeatureMap::identity, FeatureMap::swish, FeatureMap::relu, FeatureMap::t2r}) {
    Tensor<double, 2> d = dy;
    nha::feature_map_backward(map, x, weight, dy, dx.view(), dweight, scratch.data());
    nha::feature_map_backward(map, x, weight, d, d.view(), dweight, scratch.data());
    for (Index i = 0; i < d.size(); ++i) EXPECT_EQ(d.data()[i], dx.data()[i]);
  }
}

TEST_F(FeatureMapBackward, LeavesOutWhatIsNotWanted) {
  for (FeatureMap map :
       {FeatureMap::identity, FeatureMap::swish, FeatureMap::relu, FeatureMap::t2r}) {
    Tensor<double, 2> dx_alone(dx.extents()), dweight_alone(dweight.extents());
    dweight = Tensor<double, 2>(dweight.extents());
    nha::feature_map_backward(map, x, weight, dy, dx.view(), dweight, scratch.data());
    nha::feature_map_backward(map, x, weight, dy, dx_alone.view(), {}, scratch.data());
    nha::feature_map_backward(map, x, weight, dy, decltype(dx.view())(), dweight_alone,
                              scratch.data());
    for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx_alone.data()[i], dx.data()[i]);
    for (Index i = 0; i < dweight.size(); ++i)
      EXPECT_EQ(dweight_alone.data()[i], dweight.data()[i]);
  }
}

TEST_F(FeatureMapBackward, ArgumentsThatDoNotFitAreNamedAndTouchNothing) {
  using Rows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;
  const auto refuses = [&](FeatureMap map, const Rows& x_, const Rows& weight_, const Rows& dy_,
                           const Rows& dx_, const Rows& dweight_, double* scratch_,
                           const char* message) {
    NHA_EXPECT_ERROR(nha::feature_map_backward(map, x_, weight_, dy_, dx_, dweight_, scratch_),
                     nha::ArgumentError, message);
    for (double value : dx.values()) EXPECT_EQ(value, 0) << message;
    for (double value : dweight.values()) EXPECT_EQ(value, 0) << message;
  };
  const Rows in = x.view(), w = weight.view(), d = dy.view(), to = dx.view(), dw = dweight.view();
  double* room = scratch.data();
  refuses(FeatureMap::swish, in.slice<0>(0, 4), w, d, to, dw, room,
          "heads of feature_map_backward is [4, 5]; expected [11, 5]");
  refuses(FeatureMap::identity, in, w, d.slice<0>(0, 4), to, dw, room,
          "d_mapped of feature_map_backward is [4, 5]; expected [11, 5]");
  refuses(FeatureMap::relu, in, w, d, to.slice<1>(0, 4), dw, room,
          "d_heads of feature_map_backward has stride 5 between its rows; expected 4");
  refuses(FeatureMap::t2r, in, w.slice<0>(0, 4), d, to, dw, room,
          "weight of feature_map_backward is [4, 5]; expected [5, 5]");
  refuses(FeatureMap::t2r, in, w, d, to, dw.slice<0>(0, 4), room,
          "dweight of feature_map_backward is [4, 5]; expected [5, 5]");
  refuses(FeatureMap::t2r, in, w, d, to, dw, nullptr, "scratch of feature_map_backward is null");
}

TEST_F(FeatureMapBackward, InFloatIsThatOfDoubleRounded) {
  const auto rounded = [](const Tensor<double, 2>& from) {
    Tensor<float, 2> to(from.extents());
    for (Index i = 0; i < to.size(); ++i) to.data()[i] = static_cast<float>(from.data()[i]);
    return to;
  };
  for (FeatureMap map :
       {FeatureMap::identity, FeatureMap::swish, FeatureMap::relu, FeatureMap::t2r}) {
    nha::feature_map_backward(map, x, weight, dy, dx.view(), dweight, scratch.data());
    Tensor<float, 2> d = rounded(dy), d_weight({5, 5});
    std::vector<float> room(55);
    nha::feature_map_backward(map, rounded(x), rounded(weight), d, d.view(), d_weight, room.data());
    for (Index i = 0; i < d.size(); ++i) EXPECT_NEAR(d.data()[i], dx.data()[i], 1e-5);
    for (Index i = 0; i < dweight.size(); ++i)
      EXPECT_NEAR(d_weight.data()[i], dweight.data()[i], 1e-5);
  }
}

}  // namespace
