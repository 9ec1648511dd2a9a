// SPDX-License-Identifier: MIT
// Compares gradients with finite differences of the loss.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace nha_test {

/// Expects `gradient` to be that of loss() with respect to `values`, along one random direction.
/// The values are changed while this runs, and restored.
template <class Loss>
void expect_directional_derivative(const std::string& what, std::span<double> values,
                                   std::span<const double> gradient, Loss&& loss) {
  ASSERT_EQ(values.size(), gradient.size()) << what;
  std::mt19937 random(11);
  std::normal_distribution<double> normal;
  std::vector<double> direction(values.size());
  for (double& d : direction) d = normal(random);
  const std::vector<double> at(values.begin(), values.end());
  double expected = 0, size = 0;
  for (std::size_t i = 0; i < values.size(); ++i) {
    expected += gradient[i] * direction[i];
    size += std::abs(gradient[i] * direction[i]);
  }
  // Four points: the error is of fourth order in the step.
  const double step = 1e-4;
  const auto loss_at = [&](double t) {
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = at[i] + t * direction[i];
    return loss();
  };
  const double found =
      (8 * (loss_at(step) - loss_at(-step)) - loss_at(2 * step) + loss_at(-2 * step)) / (12 * step);
  std::copy(at.begin(), at.end(), values.begin());
  EXPECT_GT(size, 0) << what;
  EXPECT_NEAR(found, expected, 2e-8 * size + 1e-9) << what;
}

}  // namespace nha_test
