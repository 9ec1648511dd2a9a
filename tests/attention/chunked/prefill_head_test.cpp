// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/prefill_head.hpp>
#include <nha/attention/prefill.hpp>
#include <nha/attention/reference.hpp>

#include <gtest/gtest.h>

#include "support/architectures.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::PrefillAlgorithm;

template <class Arch>
class PrefillHeadOn : public testing::Test {
 protected:
  static void check(const CaseShape& shape, const nha::AttentionOptions& options) {
    const RandomCase<float> c(shape);
    AttentionState<float> fast(c.attention_shape(), options), plain(fast);
    CaseOutputs<float> out(c.shape), expected(c.shape);
    nha::Workspace workspace;
    nha::prefill<Arch>(c.inputs(), fast, out.views(), workspace,
                       {.algorithm = PrefillAlgorithm::chunked});
    nha::reference(c.inputs(), plain, expected.views());
    EXPECT_LT(relative_error(out, expected), 5e-6);
    EXPECT_LT(slot_error(fast, plain), 5e-6);
  }
};
TYPED_TEST_SUITE(PrefillHeadOn, Architectures);

TYPED_TEST(PrefillHeadOn, IsTheDefinitionForShortWindows) {
  this->check({.tokens = 100, .group = 2, .key_dim = 18, .value_dim = 20, .slots = 24},
              {.window = 13});
  this->check({.tokens = 100, .slots = 40, .gates = Gates::mixed}, {.window = 32, .slot_delay = 0});
}

TYPED_TEST(PrefillHeadOn, IsTheDefinitionForWindowsLongerThanABlock) {
  this->check({.tokens = 700, .key_dim = 8, .value_dim = 6, .slots = 4}, {.window = 560});
}

TYPED_TEST(PrefillHeadOn, IsTheDefinitionWhereTheBandMovesDown) {
  // Many times the window: the packed band is moved to its front again and again.
  this->check({.tokens = 2000, .key_dim = 4, .value_dim = 4, .slots = 4}, {.window = 16});
}

}  // namespace
