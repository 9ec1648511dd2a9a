// SPDX-License-Identifier: MIT
#include <nha/attention/backward.hpp>
#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <sstream>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::EmptySlots;

template <class T, class E = const nha::Serial, class Arch = nha::cpu::simd::default_arch>
Gradients<T> chunked_gradients(const RandomCase<T>& c, const AttentionState<T>& state,
                               const Cotangents<T>& cotangents,
                               const nha::BackwardOptions& options = {},
                               const nha::AttentionSaved<T>& saved = {}, E&& executor = E{}) {
  Gradients<T> gradients = unwritten_gradients(c);
  nha::Workspace workspace;
  nha::backward<Arch>(c.inputs(), state, saved, cotangents.views(), gradients.template views<T>(),
                      workspace, options, executor);
  return gradients;
}

/// Gradients of a case after `past` earlier tokens (of each sequence) against the definition.
template <class T>
void check_gradients(const CaseShape& shape, const nha::AttentionOptions& options, double tolerance,
                     Index past = 0, Index max_rollback = 0) {
  const RandomCase<T> c(shape);
  AttentionState<T> state(c.attention_shape(), options, max_rollback);
  if (past > 0) {
    CaseShape earlier = shape;
    earlier.tokens = past;
    const RandomCase<T> before(earlier, 7);
    CaseOutputs<T> ignored(before.shape);
    prefill_range(before, state, ignored, 0, past, past);
  }
  const Cotangents<T> cotangents = random_cotangents<T>(c.shape);
  const Gradients<T> expected = reference_gradients(c, state, cotangents);
  for (const Index chunk : {0, 1, 7, 64}) {
    SCOPED_TRACE(chunk);
    expect_gradients_near(chunked_gradients(c, state, cotangents, {.chunk = chunk}), expected,
                          tolerance);
  }
}

/// The same in double, where nothing but the sums' order differs, and in float.
void check_gradients_in_both(const CaseShape& shape, const nha::AttentionOptions& options,
                             Index past = 0) {
  check_gradients<double>(shape, options, 1e-12, past);
  check_gradients<float>(shape, options, 5e-6, past);
}

TEST(Backward, IsTheDefinitionForSlotsAndWindow) {
  check_gradients_in_both({.tokens = 70}, {.window = 13});
  check_gradients_in_both({.tokens = 70, .group = 3, .key_dim = 18, .value_dim = 20, .slots = 24},
                          {.window = 20, .slot_delay = 5});
  check_gradients_in_both(
      {.batch = 2, .tokens = 40, .kv_heads = 2, .key_dim = 5, .value_dim = 3, .slots = 7},
      {.window = 9, .slot_delay = 0});
}

TEST(Backward, IsTheDefinitionForSlotsAlone) {
  check_gradients_in_both({.tokens = 70, .group = 2}, {.window = 0});
}

TEST(Backward, IsTheDefinitionForTheWindowAlone) {
  check_gradients_in_both({.tokens = 70, .group = 2, .slots = 0}, {.window = 11});
  check_gradients_in_both({.tokens = 70, .slots = 0}, {.window = 200});
}

TEST(Backward, IsTheDefinitionForEveryEmptySlotRule) {
  for (const EmptySlots rule :
       {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected}) {
    SCOPED_TRACE(static_cast<int>(rule));
    for (const Index delay : {0, 10, 25})
      check_gradients_in_both({.tokens = 60, .group = 2, .explicit_write = true},
                              {.window = 25, .slot_delay = delay, .empty_slots = rule}, 30);
  }
  check_gradients_in_both({.tokens = 60, .group = 2},
                          {.window = 25, .empty_slots = EmptySlots::masked});
}

TEST(Backward, IsTheDefinitionForGatesOfAnySpeed) {
  for (const Gates gates : {Gates::fast, Gates::slow, Gates::mixed}) {
    SCOPED_TRACE(static_cast<int>(gates));
    check_gradients_in_both({.tokens = 70, .gates = gates}, {.window = 13});
    check_gradients_in_both({.tokens = 70, .gates = gates, .explicit_write = true}, {.window = 13});
  }
}

TEST(Backward, KeepsTheDigitsOfGatesThatAreAllFast) {
  // With retentions of e^-40 to e^-20 these gradients are about 1e-9 and what surrounds them about
  // 1: a difference of sums of that size would leave no digit of them.
  for (const bool explicit_write : {false, true})
    for (const Index window : {0, 13}) {
      SCOPED_TRACE(window);
      RandomCase<float> c({.tokens = 70, .group = 2, .explicit_write = explicit_write});
      std::mt19937 random(5);
      std::uniform_real_distribution<float> uniform(-40, -20);
      for (float& gate : c.log_gate.values()) gate = uniform(random);
      const AttentionState<float> state(c.attention_shape(), {.window = window});
      const auto cotangents = random_cotangents<float>(c.shape);
      const auto expected = reference_gradients(c, state, cotangents);
      const auto& gate_gradient = expected.log_gate.values();
      const float largest = *std::max_element(gate_gradient.begin(), gate_gradient.end());
      EXPECT_GT(largest, 0.0f);
      EXPECT_LT(largest, 1e-6f);
      for (const Index chunk : {0, 1, 7, 64}) {
        SCOPED_TRACE(chunk);
        const auto gradients = chunked_gradients(c, state, cotangents, {.chunk = chunk});
        expect_gradients_near(gradients, expected, 5e-6);
        // Token by token as well, for their sizes differ by e^20; of one token alone the sums over
        // the dimensions may cancel some more (3e-5 was seen without fused multiply-adds).
        for (Index t = 0; t < 70; ++t)
          EXPECT_LE(relative_error(&gradients.log_gate(0, t, 0, 0), &expected.log_gate(0, t, 0, 0),
                                   c.shape.slots),
                    1e-4)
              << "token " << t;
      }
    }
}

TEST(Backward, IsTheDefinitionAfterEarlierTokens) {
  check_gradients_in_both({.tokens = 70, .group = 2}, {.window = 25, .slot_delay = 25}, 3);
  check_gradients_in_both({.tokens = 70, .group = 2}, {.window = 25, .slot_delay = 12}, 50);
  check_gradients_in_both({.tokens = 3}, {.window = 25, .slot_delay = 12}, 50);
  check_gradients<double>({.tokens = 70}, {.window = 9}, 1e-12, 20, 11);
}

TEST(Backward, IsTheDefinitionWhereThereAreManyRegions) {
  check_gradients<double>({.tokens = 900, .key_dim = 4, .value_dim = 4, .slots = 4}, {.window = 20},
                          1e-12);
  check_gradients<double>({.tokens = 900, .key_dim = 4, .value_dim = 4, .slots = 4},
                          {.window = 300}, 1e-12);
}

TEST(Backward, IsTheDefinitionForWindowsLongerThanABlock) {
  check_gradients_in_both({.tokens = 800, .key_dim = 6, .value_dim = 4, .slots = 4},
                          {.window = 700});
  check_gradients_in_both({.tokens = 800, .key_dim = 6, .value_dim = 4, .slots = 0},
                          {.window = 800});
}

TEST(Backward, IsTheDefinitionForPackedSequences) {
  const CaseShape shape{.kv_heads = 2, .lengths = {0, 5, 33, 1, 17}};
  check_gradients_in_both(shape, {.window = 9});
}

TEST(Backward, IsTheDefinitionForRandomShapesAndOptions) {
  for (std::uint32_t seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto draw = [&](Index least, Index most) {
      return least + static_cast<Index>(random() % static_cast<std::uint32_t>(most - least + 1));
    };
    CaseShape shape;
    shape.tokens = draw(1, 60);
    shape.kv_heads = draw(1, 2);
    shape.group = draw(1, 3);
    shape.key_dim = draw(1, 20);
    shape.value_dim = draw(1, 20);
    shape.slots = draw(0, 20);
    shape.gates = static_cast<Gates>(draw(0, 3));
    shape.explicit_write = draw(0, 1) == 1;
    nha::AttentionOptions options;
    options.window = draw(0, 40);
    if (draw(0, 3) > 0) options.slot_delay = draw(0, options.window);
    options.empty_slots = static_cast<EmptySlots>(draw(0, 2));
    const Index past = draw(0, 1) * draw(0, 50);
    const Index max_rollback = draw(0, 1) * draw(0, 30);
    const Index chunk = draw(0, 32);
    std::ostringstream drawn;
    drawn << "seed " << seed << ": " << shape.tokens << " tokens after " << past << ", chunk "
          << chunk << ", " << shape.kv_heads << " x " << shape.group << " heads, dims "
          << shape.key_dim << " and " << shape.value_dim << ", " << shape.slots << " slots, window "
          << options.window << ", delay " << options.slot_delay.value_or(-1) << ", empty slots "
          << static_cast<int>(options.empty_slots) << ", gates " << static_cast<int>(shape.gates)
          << ", write " << shape.explicit_write << ", rollback " << max_rollback;
    SCOPED_TRACE(drawn.str());

    CaseShape with_past = shape;
    with_past.tokens = past;
    const RandomCase<double> before(with_past, seed + 1000), c(shape, seed);
    AttentionState<double> state(c.attention_shape(), options, max_rollback);
    CaseOutputs<double> ignored(with_past);
    if (past > 0) prefill_range(before, state, ignored, 0, past, past);
    const auto cotangents = random_cotangents<double>(shape, seed + 2000);
    expect_gradients_near(chunked_gradients(c, state, cotangents, {.chunk = chunk}),
                          reference_gradients(c, state, cotangents), 1e-12);
  }
}

TEST(Backward, TakesWhatTheForwardPassKept) {
  const RandomCase<double> c({.tokens = 800, .group = 2, .key_dim = 6, .value_dim = 4, .slots = 4});
  const AttentionState<double> state(c.attention_shape(), {.window = 700, .slot_delay = 20});
  const auto cotangents = random_cotangents<double>(c.shape);
  AttentionState<double> after(state);
  CaseOutputs<double> out(c.shape);
  prefill_range(c, after, out, 0, 800, 800);
  const nha::AttentionSaved<double> saved{.o = out.o, .lse = out.lse, .slot_share = out.slot_share};
  expect_gradients_near(chunked_gradients(c, state, cotangents, {}, saved),
                        reference_gradients(c, state, cotangents), 1e-12);
  // Used, not only taken: another o gives other gradients.
  for (double& x : out.o.values()) x += 1;
  EXPECT_GT(relative_error(chunked_gradients(c, state, cotangents, {}, saved).q_window,
                           reference_gradients(c, state, cotangents).q_window),
            1e-3);
}

TEST(Backward, IsTheSameToTheBitOnThreads) {
  const RandomCase<float> c({.batch = 3, .tokens = 90, .kv_heads = 2, .group = 2});
  const AttentionState<float> state(c.attention_shape(), {.window = 20});
  const auto cotangents = random_cotangents<float>(c.shape);
  nha::ThreadPool pool(3);
  expect_gradients_near(chunked_gradients(c, state, cotangents, {}, {}, pool),
                        chunked_gradients(c, state, cotangents), 0);
}

TEST(Backward, WritesOnlyTheGradientsThatAreWanted) {
  const RandomCase<float> c({.tokens = 40});
  const AttentionState<float> state(c.attention_shape(), {.window = 10});
  const auto cotangents = random_cotangents<float>(c.shape);
  const auto all = chunked_gradients(c, state, cotangents);
  auto some = unwritten_gradients(c);
  nha::Workspace workspace;
  nha::backward(c.inputs(), state, {}, cotangents.views(),
                {.q_slot = some.q_slot, .log_gate = some.log_gate}, workspace);
  EXPECT_EQ(relative_error(some.q_slot, all.q_slot), 0);
  EXPECT_EQ(relative_error(some.log_gate, all.log_gate), 0);
}

TEST(Backward, NeedsNoMoreThanTheWorkspaceItSays) {
  const RandomCase<float> c({.batch = 2, .tokens = 300, .kv_heads = 2, .group = 2});
  AttentionState<float> state(c.attention_shape(), {.window = 40}, 9);
  const auto cotangents = random_cotangents<float>(c.shape);
  auto gradients = unwritten_gradients(c);
  nha::Workspace workspace;
  const std::size_t bytes = nha::backward_workspace_bytes(state, 4, 300);
  workspace.reserve(bytes);
  nha::backward(c.inputs(), state, {}, cotangents.views(), gradients.views<float>(), workspace);
  EXPECT_EQ(workspace.bytes(), bytes);
}

/// What backward() takes for a call of these sizes, and what is stated for it, near each of the
/// windows at which longer chunks begin.
void check_stated_workspace(Index dim, Index window, Index group, Index tokens) {
  const Index far = nha::detail::kFarNumbers / (2 * dim);
  // Many slots: shorter chunks, of which more copies are kept, may need more than longer windows.
  const AttentionState<float> state({.key_dim = dim, .value_dim = dim, .slots = 1024},
                                    {.window = window, .slot_delay = 0});
  const std::size_t stated = nha::backward_workspace_bytes(state, group, tokens);
  std::size_t most = 0;
  for (const Index count : {tokens, std::min(tokens, far), std::min<Index>(tokens, 512)})
    for (const Index reach : {Index{1}, nha::detail::kLongWindow, far, window})
      for (Index past = reach - count - 2; past <= reach - count + 2; ++past) {
        const std::size_t needed = nha::detail::backward_bytes<nha::cpu::simd::default_arch>(
            state, group, count, std::max<Index>(past, 0), {});
        EXPECT_LE(needed, stated) << "window " << window << ", " << group << " heads, " << tokens
                                  << " tokens, " << count << " after " << past;
        most = std::max(most, needed);
      }
  EXPECT_EQ(most, stated);
}

TEST(Backward, ItsWorkspaceIsEnoughForFewerTokensAndAnyPast) {
  for (const Index group : {1, 3, 5}) {
    for (const Index window : {200, 513, 2049, 5000})
      for (const Index tokens : {1, 40, 513, 1750, 2600})
        check_stated_workspace(64, window, group, tokens);
    for (const Index window : {200, 513, 8193, 20000})
      for (const Index tokens : {1, 40, 513, 7000, 8300})
        check_stated_workspace(16, window, group, tokens);
  }
}

TEST(Backward, RefusesWhatDoesNotFit) {
  const RandomCase<float> c({.tokens = 4});
  const AttentionState<float> state(c.attention_shape(), {.window = 10});
  const auto cotangents = random_cotangents<float>(c.shape);
  auto gradients = unwritten_gradients(c);
  nha::Workspace workspace;
  const nha::Tensor<float, 3> lse({1, 3, 1});
  NHA_EXPECT_ERROR(nha::backward(c.inputs(), state, {.lse = lse}, cotangents.views(),
                                 gradients.views<float>(), workspace),
                   nha::ArgumentError, "saved.lse");
  NHA_EXPECT_ERROR(nha::backward(c.inputs(), state, {}, cotangents.views(),
                                 gradients.views<float>(), workspace, {.chunk = 65}),
                   nha::ArgumentError, "chunk is 65");
  EXPECT_TRUE(std::isnan(gradients.q_slot(0, 0, 0, 0)));
}

template <class Arch>
class BackwardOn : public testing::Test {};
TYPED_TEST_SUITE(BackwardOn, Architectures);

TYPED_TEST(BackwardOn, IsTheDefinition) {
  const RandomCase<float> c({.tokens = 70, .group = 2, .key_dim = 18, .slots = 24});
  const AttentionState<float> state(c.attention_shape(), {.window = 13});
  const auto cotangents = random_cotangents<float>(c.shape);
  Gradients<float> gradients = unwritten_gradients(c);
  nha::Workspace workspace;
  nha::backward<TypeParam>(c.inputs(), state, {}, cotangents.views(), gradients.views<float>(),
                           workspace);
  expect_gradients_near(gradients, reference_gradients(c, state, cotangents), 5e-6);
}

}  // namespace
