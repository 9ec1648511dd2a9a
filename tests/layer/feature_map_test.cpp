// SPDX-License-Identifier: MIT
#include <nha/layer/feature_map.hpp>

#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cmath>
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

}  // namespace
