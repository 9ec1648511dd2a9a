// SPDX-License-Identifier: MIT
#include <nha/layer/gate.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace {

TEST(Gate, LogSigmoidKeepsItsDigitsEverywhere) {
  // log(sigmoid(x)) in long double, from the form that does not cancel at this x.
  const auto exact = [](long double x) { return x < 0 ? x - log1pl(expl(x)) : -log1pl(expl(-x)); };
  for (double x = -120; x <= 80; x += 0.37) {
    const auto expected = static_cast<double>(exact(x));
    EXPECT_NEAR(nha::log_sigmoid(x), expected, 4e-16 * std::abs(expected)) << x;
    const auto y = static_cast<float>(x);
    const auto expected_float = static_cast<double>(exact(y));
    EXPECT_NEAR(nha::log_sigmoid(y), expected_float, 2.5e-7 * std::abs(expected_float)) << y;
  }
}

TEST(Gate, LogSigmoidOfHugeLogitsIsTheLogitOrZero) {
  EXPECT_EQ(nha::log_sigmoid(-1e30f), -1e30f);
  EXPECT_EQ(nha::log_sigmoid(1e30f), 0.0f);
  EXPECT_EQ(nha::log_sigmoid(-INFINITY), -INFINITY);
}

TEST(Gate, LogGatesDivideAndAreNeverPositive) {
  std::vector<float> gates = {-3.0f, 0.0f, 0.5f, 200.0f};
  nha::log_gates(gates.data(), 4, 8.0);
  EXPECT_FLOAT_EQ(gates[0], nha::log_sigmoid(-3.0f) / 8);
  EXPECT_FLOAT_EQ(gates[1], -std::log(2.0f) / 8);
  EXPECT_FLOAT_EQ(gates[2], nha::log_sigmoid(0.5f) / 8);
  EXPECT_LE(gates[3], 0.0f);
}

}  // namespace
