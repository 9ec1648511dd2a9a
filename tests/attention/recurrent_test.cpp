// SPDX-License-Identifier: MIT
#include <nha/attention/prefill.hpp>
#include <nha/attention/recurrent.hpp>

#include <gtest/gtest.h>

#include "support/architectures.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::PrefillAlgorithm;

TEST(Recurrent, ManyTokensAreTheStepsToTheBit) {
  const RandomCase<float> c({.batch = 2, .tokens = 40, .group = 3, .key_dim = 9, .slots = 20});
  const nha::AttentionOptions options{.window = 7, .slot_delay = 3};
  AttentionState<float> at_once(c.attention_shape(), options), stepped(at_once);
  CaseOutputs<float> a(c.shape), b(c.shape);
  prefill_range(c, at_once, a, 0, 40, 40, {.algorithm = PrefillAlgorithm::recurrent});
  nha::Workspace workspace;
  for (Index t = 0; t < 40; ++t)
    nha::step(c.inputs().tokens(t, 1), stepped, b.views().tokens(t, 1), workspace);
  EXPECT_EQ(relative_error(a, b), 0);
  EXPECT_TRUE(at_once == stepped);
}

template <class Arch>
class RecurrentOn : public testing::Test {};
TYPED_TEST_SUITE(RecurrentOn, Architectures);

TYPED_TEST(RecurrentOn, AGroupOfAnySizeIsTheDefinition) {
  for (const Index group : {1, 2, 3, 4, 5, 8}) {
    const RandomCase<float> c(
        {.tokens = 30, .group = group, .key_dim = 33, .value_dim = 40, .slots = 70});
    AttentionState<float> fast(c.attention_shape(), {.window = 11}), plain(fast);
    CaseOutputs<float> out(c.shape), expected(c.shape);
    nha::Workspace workspace;
    for (Index t = 0; t < 30; ++t)
      nha::step<TypeParam>(c.inputs().tokens(t, 1), fast, out.views().tokens(t, 1), workspace);
    prefill_range(c, plain, expected, 0, 30, 30, {.algorithm = PrefillAlgorithm::reference});
    EXPECT_LT(relative_error(out, expected), 2e-6) << group;
    EXPECT_LT(slot_error(fast, plain), 2e-6) << group;
  }
}

}  // namespace
