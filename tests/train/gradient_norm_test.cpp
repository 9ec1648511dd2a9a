// SPDX-License-Identifier: MIT
#include <nha/train/gradient_norm.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace {

/// Two tensors of 19 and 4 numbers: 1, 2, 3, ... and their list.
template <class T>
struct NormGradients {
  std::vector<T> first = std::vector<T>(19), second = std::vector<T>(4);
  std::vector<nha::Parameter<T>> list = {{"a", {19}, first}, {"b", {2, 2}, second}};
  NormGradients() {
    T next = 0;
    for (auto& parameter : list)
      for (T& value : parameter.values) value = next += 1;
  }
  NormGradients(const NormGradients&) = delete;
};

// 1 + 4 + ... + 23^2 = 23 * 24 * 47 / 6.
const double kNormOf23 = std::sqrt(23.0 * 24 * 47 / 6);

}  // namespace

TEST(GradientNorm, IsOfAllTensorsTogether) {
  const NormGradients<float> gradients;
  EXPECT_DOUBLE_EQ(nha::gradient_norm(gradients.list), kNormOf23);
  std::vector<nha::Parameter<const float>> read_only;
  for (const auto& parameter : gradients.list)
    read_only.push_back({parameter.name, parameter.shape, parameter.values});
  EXPECT_EQ(nha::gradient_norm(read_only), nha::gradient_norm(gradients.list));
}

TEST(GradientNorm, OfNothingIsZero) {
  EXPECT_EQ(nha::gradient_norm(std::vector<nha::Parameter<float>>()), 0);
}

TEST(GradientNorm, DoesNotOverflowInFloatOrLoseSmallNumbers) {
  NormGradients<float> gradients;
  for (float& value : gradients.first) value = 3e38f;
  for (float& value : gradients.second) value = 0;
  EXPECT_NEAR(nha::gradient_norm(gradients.list) / (3e38 * std::sqrt(19.0)), 1, 1e-7);
  for (float& value : gradients.first) value = 1e-30f;
  EXPECT_NEAR(nha::gradient_norm(gradients.list) / (1e-30 * std::sqrt(19.0)), 1, 1e-7);
}

TEST(ClipGradients, ShortensToTheGreatestNormAndKeepsTheDirection) {
  NormGradients<double> gradients;
  EXPECT_DOUBLE_EQ(nha::clip_gradients(gradients.list, 2.0), kNormOf23);
  EXPECT_NEAR(nha::gradient_norm(gradients.list), 2, 1e-14);
  EXPECT_NEAR(gradients.first[3] / gradients.first[0], 4, 1e-14);
  EXPECT_NEAR(gradients.second[3], 23 * 2 / kNormOf23, 1e-14);
}

TEST(ClipGradients, LeavesShortOnesAsTheyAre) {
  NormGradients<float> gradients;
  EXPECT_DOUBLE_EQ(nha::clip_gradients(gradients.list, 1000), kNormOf23);
  EXPECT_EQ(gradients.second[3], 23);
  EXPECT_DOUBLE_EQ(nha::clip_gradients(gradients.list, std::numeric_limits<double>::infinity()),
                   kNormOf23);
  EXPECT_EQ(gradients.second[3], 23);
}

TEST(ClipGradients, LeavesOnesThatAreNoNumbersAsTheyAre) {
  NormGradients<float> gradients;
  gradients.first[7] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(nha::clip_gradients(gradients.list, 1), std::numeric_limits<double>::infinity());
  EXPECT_EQ(gradients.second[3], 23);
  gradients.second[0] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(nha::clip_gradients(gradients.list, 1)));
  EXPECT_EQ(gradients.second[3], 23);
  EXPECT_EQ(gradients.first[0], 1);
}

TEST(ClipGradients, RefusesANormThatIsNotPositive) {
  NormGradients<float> gradients;
  NHA_EXPECT_ERROR(nha::clip_gradients(gradients.list, 0), nha::ArgumentError,
                   "max_norm is 0; expected a positive number");
  NHA_EXPECT_ERROR(nha::clip_gradients(gradients.list, std::numeric_limits<double>::quiet_NaN()),
                   nha::ArgumentError, "max_norm is");
  EXPECT_EQ(gradients.first[0], 1);
}
