// SPDX-License-Identifier: MIT
#include <nha/core/float_mode.hpp>

#include <nha/attention/prefill.hpp>

#include <gtest/gtest.h>

#include <limits>

#include "support/random_case.hpp"

namespace {

/// The product of two numbers, computed when it is called and not earlier or later.
[[gnu::noinline]] float product(float a, float b) {
  volatile float left = a, right = b;
  volatile float result = left * right;
  return result;
}

#if defined(__SSE__) || defined(__aarch64__)
TEST(FlushSubnormals, MakesAndReadsNoneWhileItLives) {
  const float least = std::numeric_limits<float>::min();
  const float subnormal = least / 2;
  EXPECT_GT(product(least, 0.5f), 0.0f);
  {
    const nha::FlushSubnormals flush;
    EXPECT_EQ(product(least, 0.5f), 0.0f);
    EXPECT_EQ(product(subnormal, 4.0f), 0.0f);
    EXPECT_GT(product(least, 1.0f), 0.0f);
    { const nha::FlushSubnormals again; }
    EXPECT_EQ(product(least, 0.5f), 0.0f);
  }
  EXPECT_GT(product(least, 0.5f), 0.0f);
}
#endif

TEST(FlushSubnormals, TheOperatorLeavesTheCallersMode) {
  const nha_test::RandomCase<float> random({.gates = nha_test::Gates::fast});
  nha_test::CaseOutputs<float> out(random.shape);
  nha::AttentionState<float> state(random.attention_shape(), {.window = 4});
  nha_test::prefill_range(random, state, out, 0, 32, 32);
  EXPECT_GT(product(std::numeric_limits<float>::min(), 0.5f), 0.0f);
}

}  // namespace
