// SPDX-License-Identifier: MIT
#include <nha/cpu/softmax_backward.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "support/architectures.hpp"

namespace {

using nha::Index;

template <class Arch>
class SoftmaxBackward : public ::testing::Test {};
TYPED_TEST_SUITE(SoftmaxBackward, nha_test::Architectures);

template <class T>
std::vector<T> random_row(std::size_t size, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<double> normal(0, 2);
  std::vector<T> row(size);
  for (T& x : row) x = static_cast<T>(normal(random));
  return row;
}

TYPED_TEST(SoftmaxBackward, DotAndScaleOfARow) {
  std::vector<double> a(48), b(48);
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<double>(i);
    b[i] = i % 2 == 0 ? 3 : -1;
  }
  // 0 + 2 + ... + 46 = 552, 1 + 3 + ... + 47 = 576; of the first 16: 56 and 64.
  EXPECT_EQ((nha::cpu::dot_row<TypeParam>(a.data(), b.data(), 48)), 3 * 552 - 576.0);
  EXPECT_EQ((nha::cpu::dot_row<TypeParam>(a.data(), b.data(), 16)), 3 * 56 - 64.0);
  EXPECT_EQ((nha::cpu::dot_row<TypeParam>(a.data(), b.data(), 0)), 0.0);
  nha::cpu::scale_row<TypeParam>(a.data(), 32, 0.5);
  EXPECT_EQ(a[31], 15.5);
  EXPECT_EQ(a[32], 32.0);
}

TYPED_TEST(SoftmaxBackward, WeightsComeFromTheLogSumExp) {
  auto row = random_row<float>(32, 3);
  row[5] = -INFINITY;
  const auto logits = row;
  double sum = 0;
  for (const float x : logits) sum += std::exp(static_cast<double>(x));
  nha::cpu::weigh_row<TypeParam>(row.data(), 16, static_cast<float>(std::log(sum)));
  for (std::size_t i = 0; i < 16; ++i) {
    const double expected = std::exp(static_cast<double>(logits[i])) / sum;
    EXPECT_NEAR(row[i], expected, 1e-6 * expected);
  }
  EXPECT_EQ(row[5], 0.0f);
  EXPECT_EQ(row[16], logits[16]);  // beyond the count
}

TYPED_TEST(SoftmaxBackward, WhereNothingWasSeenAllWeightsAreZero) {
  std::vector<float> row(16, -INFINITY);
  nha::cpu::weigh_row<TypeParam>(row.data(), 16, -INFINITY);
  for (const float x : row) EXPECT_EQ(x, 0.0f);
}

/// d_logit_n = sum_k d_p_k (p_k [k = n] - p_k p_n) + d_lse p_n, the Jacobian written out.
TYPED_TEST(SoftmaxBackward, IsTheJacobianOfSoftmaxAndLogSumExp) {
  constexpr std::size_t kSize = 48;
  auto p = random_row<double>(kSize, 4);
  const auto d_p = random_row<double>(kSize, 5);
  constexpr double kDLse = 0.7;
  double sum = 0;
  for (double& x : p) sum += x = std::exp(x);
  for (double& x : p) x /= sum;
  auto d = d_p;
  const double mean = nha::cpu::dot_row<TypeParam>(p.data(), d.data(), Index{kSize});
  nha::cpu::softmax_backward_row<TypeParam>(p.data(), d.data(), Index{kSize}, kDLse - mean);
  for (std::size_t n = 0; n < kSize; ++n) {
    double expected = kDLse * p[n];
    for (std::size_t k = 0; k < kSize; ++k) expected += d_p[k] * p[k] * ((k == n ? 1 : 0) - p[n]);
    EXPECT_NEAR(d[n], expected, 1e-15);
  }
}

}  // namespace
