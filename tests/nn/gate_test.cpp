// SPDX-License-Identifier: MIT
#include <nha/nn/gate.hpp>

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

TEST(Gate, LogGatesAreTheSameAtEveryPlaceOfARow) {
  for (nha::Index count = 0; count < 40; ++count) {
    std::vector<float> gates;
    for (nha::Index i = 0; i < count; ++i) gates.push_back(static_cast<float>(i - 20) * 1.37f);
    const std::vector<float> logits = gates;
    nha::log_gates(gates.data(), count, 8.0);
    for (std::size_t i = 0; i < gates.size(); ++i)
      EXPECT_EQ(gates[i], nha::log_sigmoid(logits[i]) / 8);
  }
}

TEST(Gate, LogGatesOfNaNAreNaN) {
  std::vector<float> gates(19, NAN);
  nha::log_gates(gates.data(), 19, 8.0);
  for (float gate : gates) EXPECT_TRUE(std::isnan(gate));
}

/// The slope of log_gates() at each logit, of a vector of any length.
template <class T>
std::vector<T> gate_slopes(const std::vector<T>& logits, double divisor) {
  std::vector<T> d(logits.size(), T{1});
  nha::log_gates_backward(logits.data(), d.data(), d.data(), static_cast<nha::Index>(d.size()),
                          divisor);
  return d;
}

TEST(Gate, BackwardKeepsItsDigitsEverywhere) {
  std::vector<double> logits;
  std::vector<float> float_logits;
  for (double x = -120; x <= 86; x += 0.37) {
    logits.push_back(x);
    float_logits.push_back(static_cast<float>(x));
  }
  const auto slopes = gate_slopes(logits, 1);
  const auto float_slopes = gate_slopes(float_logits, 1);
  // sigmoid(-x), small where x is large: 1 - sigmoid(x) would be 0 from x = 37 on.
  const auto exact = [](long double x) { return static_cast<double>(1 / (1 + expl(x))); };
  for (std::size_t i = 0; i < logits.size(); ++i) {
    EXPECT_NEAR(slopes[i], exact(logits[i]), 1e-15 * exact(logits[i])) << logits[i];
    const double expected = exact(static_cast<long double>(float_logits[i]));
    EXPECT_NEAR(float_slopes[i], expected, 5e-7 * expected) << float_logits[i];
  }
}

TEST(Gate, BackwardAgreesWithFiniteDifferences) {
  const double step = 1e-5, divisor = 8;
  for (nha::Index count : {1, 3, 11}) {
    std::vector<double> logits, d;
    for (nha::Index i = 0; i < count; ++i) {
      logits.push_back(static_cast<double>(i) - 4.5);
      d.push_back(static_cast<double>(i % 3) - 0.7);
    }
    const std::vector<double> d_log_gates = d;
    nha::log_gates_backward(logits.data(), d.data(), d.data(), count, divisor);
    for (std::size_t i = 0; i < d.size(); ++i) {
      double ends[] = {logits[i] + step, logits[i] - step};
      nha::log_gates(ends, 2, divisor);
      EXPECT_NEAR(d[i], d_log_gates[i] * (ends[0] - ends[1]) / (2 * step), 1e-9);
    }
  }
}

TEST(Gate, SlopesOfHugeLogitsAreOneOrZero) {
  const auto slopes = gate_slopes<float>({-1e30f, -INFINITY, 1e30f, INFINITY, 0.0f}, 2);
  EXPECT_EQ(slopes, (std::vector<float>{0.5f, 0.5f, 0.0f, 0.0f, 0.25f}));
}

}  // namespace
