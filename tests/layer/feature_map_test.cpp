// SPDX-License-Identifier: MIT
#include <nha/layer/feature_map.hpp>

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

}  // namespace
