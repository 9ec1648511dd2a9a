// SPDX-License-Identifier: MIT
#include <nha/attention/prefill.hpp>
#include <nha/attention/reference.hpp>
#include <nha/attention/step.hpp>

#include <gtest/gtest.h>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionOptions;
using nha::AttentionState;

TEST(Step, TokenByTokenIsTheDefinition) {
  for (const AttentionOptions& options :
       {AttentionOptions{.window = 6}, AttentionOptions{.window = 0},
        AttentionOptions{.window = 100}, AttentionOptions{.window = 6, .slot_delay = 0}}) {
    const RandomCase<double> c({.batch = 2, .tokens = 40, .kv_heads = 2, .group = 5});
    AttentionState<double> expected_state(c.attention_shape(), options);
    AttentionState<double> state(c.attention_shape(), options);
    CaseOutputs<double> expected(c.shape), actual(c.shape);
    nha::reference(c.inputs(), expected_state, expected.views());
    nha::Workspace workspace;
    for (Index t = 0; t < 40; ++t)
      nha::step(c.inputs().tokens(t, 1), state, actual.tokens(t, 1), workspace);
    EXPECT_LT(relative_error(actual, expected), 1e-13);
    EXPECT_LT(slot_error(state, expected_state), 1e-13);
  }
}

TEST(Step, TakesViewsWithoutATokenAxis) {
  const RandomCase<float> c({.batch = 3, .tokens = 1, .kv_heads = 2});
  AttentionState<float> a(c.attention_shape()), b = a;
  CaseOutputs<float> expected(c.shape), actual(c.shape);
  nha::Workspace workspace;
  nha::step(c.inputs(), a, expected.views(), workspace);
  using View = nha::TensorView<const float, nha::Dynamic, nha::Dynamic, nha::Dynamic>;
  const auto rows = [](const auto& tensor) {
    return View(tensor.data(), {3, tensor.extent(2), tensor.extent(3)}).insert_axis<1>();
  };
  nha::step({.q_window = rows(c.q_window),
             .k_window = rows(c.k_window),
             .q_slot = rows(c.q_slot),
             .k_slot = rows(c.k_slot),
             .v = rows(c.v),
             .log_gate = rows(c.log_gate)},
            b, actual.views(), workspace);
  EXPECT_EQ(relative_error(actual, expected), 0.0);
}

TEST(Step, WithOffsetsSequencesMayRest) {
  const RandomCase<float> c({.lengths = {1, 0, 1}});
  AttentionState<float> state(c.attention_shape());
  CaseOutputs<float> out(c.shape);
  nha::Workspace workspace;
  nha::step(c.inputs(), state, out.views(), workspace);
  EXPECT_EQ(state.tokens_seen(0), 1);
  EXPECT_EQ(state.tokens_seen(1), 0);
  EXPECT_EQ(state.tokens_seen(2), 1);
}

TEST(Step, WorkspaceSizeIsKnownAndConstant) {
  const RandomCase<float> c({.tokens = 30, .group = 3});
  AttentionState<float> state(c.attention_shape(), {.window = 8});
  CaseOutputs<float> out(c.shape);
  const std::size_t bytes = nha::step_workspace_bytes(state, 3);
  nha::Workspace workspace;
  for (Index t = 0; t < 30; ++t) {
    nha::step(c.inputs().tokens(t, 1), state, out.tokens(t, 1), workspace);
    EXPECT_EQ(workspace.bytes(), bytes);
  }
  EXPECT_EQ(nha::step_workspace_bytes(state, 3), bytes);
}

TEST(Step, RefusesSeveralTokens) {
  const RandomCase<float> c({.tokens = 2});
  AttentionState<float> state(c.attention_shape());
  CaseOutputs<float> out(c.shape);
  nha::Workspace workspace;
  NHA_EXPECT_ERROR(nha::step(c.inputs(), state, out.views(), workspace), nha::ArgumentError,
                   "sequence 0 has 2 tokens; step takes one");
  EXPECT_EQ(state.tokens_seen(0), 0);
}

TEST(Step, ManyStepsAreTheRecurrentPrefillToTheBit) {
  const RandomCase<float> c({.batch = 2, .tokens = 40, .group = 3, .key_dim = 9, .slots = 20});
  const AttentionOptions options{.window = 7, .slot_delay = 3};
  AttentionState<float> at_once(c.attention_shape(), options), stepped(at_once);
  CaseOutputs<float> a(c.shape), b(c.shape);
  prefill_range(c, at_once, a, 0, 40, 40, {.algorithm = nha::PrefillAlgorithm::recurrent});
  nha::Workspace workspace;
  for (Index t = 0; t < 40; ++t)
    nha::step(c.inputs().tokens(t, 1), stepped, b.tokens(t, 1), workspace);
  EXPECT_EQ(relative_error(a, b), 0);
  EXPECT_TRUE(at_once == stepped);
}

template <class Arch>
class StepOn : public testing::Test {};
TYPED_TEST_SUITE(StepOn, Architectures);

TYPED_TEST(StepOn, AGroupOfAnySizeIsTheDefinition) {
  for (const Index group : {1, 2, 3, 4, 5, 8}) {
    const RandomCase<float> c(
        {.tokens = 30, .group = group, .key_dim = 33, .value_dim = 40, .slots = 70});
    AttentionState<float> fast(c.attention_shape(), {.window = 11}), plain(fast);
    CaseOutputs<float> out(c.shape), expected(c.shape);
    nha::Workspace workspace;
    for (Index t = 0; t < 30; ++t)
      nha::step<TypeParam>(c.inputs().tokens(t, 1), fast, out.tokens(t, 1), workspace);
    nha::reference(c.inputs(), plain, expected.views());
    EXPECT_LT(relative_error(out, expected), 2e-6) << group;
    EXPECT_LT(slot_error(fast, plain), 2e-6) << group;
  }
}

TYPED_TEST(StepOn, SlotsAsWeightedMeansAreThoseOfTheDefinition) {
  const RandomCase<float> c({.tokens = 30, .group = 2, .key_dim = 18, .slots = 20});
  AttentionState<float> fast(
      c.attention_shape(),
      {.window = 6, .slot_delay = 2, .empty_slots = nha::EmptySlots::mass_corrected}),
      plain(fast);
  CaseOutputs<float> out(c.shape), expected(c.shape);
  nha::Workspace workspace;
  for (Index t = 0; t < 30; ++t)
    nha::step<TypeParam>(c.inputs().tokens(t, 1), fast, out.tokens(t, 1), workspace);
  nha::reference(c.inputs(), plain, expected.views());
  EXPECT_LT(relative_error(out, expected), 2e-6);
  EXPECT_LT(slot_error(fast, plain), 2e-6);
}

TEST(Step, TakesAnExecutorAndTheBaseOfAState) {
  const RandomCase<float> c({.batch = 2, .tokens = 1, .kv_heads = 2});
  AttentionState<float> a(c.attention_shape());
  AttentionState<float, 16, 16, 8> b(c.attention_shape());
  nha::AttentionStateBase<float>& base = b;
  CaseOutputs<float> expected(c.shape), actual(c.shape);
  nha::Workspace workspace;
  nha::step(c.inputs(), a, expected.views(), workspace);
  const nha::Serial serial;
  nha::step(c.inputs(), base, actual.views(), workspace, serial);
  EXPECT_EQ(relative_error(actual, expected), 0.0);
  EXPECT_EQ(b.tokens_seen(1), 1);
}

}  // namespace
