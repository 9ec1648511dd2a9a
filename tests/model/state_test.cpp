// SPDX-License-Identifier: MIT
#include <nha/model/state.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::LanguageModel;
using nha::LanguageModelState;
using nha::LayerOptions;
using nha::ModelOptions;
using nha::ModelStateOptions;
using nha::Tensor;

/// A model whose layers have convolutions and unlike windows.
ModelOptions convolving_model() {
  LayerOptions layer = nha::nha_v1(4);
  layer.convolution_kernel_size = 3;
  ModelOptions options = small_model(layer);
  set_windows(options, {2, 5});
  return options;
}

class LanguageModelStateTest : public testing::Test {
 protected:
  Tensor<double, 3> run(LanguageModelState<double>& state, Index first, Index count,
                        Index piece = 1) {
    const Index batch = state.batch();
    return std::move(
        run_model(model, state, tokens.view().slice<0>(0, batch).slice<1>(first, count), {piece})
            .logits);
  }

  LanguageModel<double> model = random_model<double>(convolving_model());
  Tensor<std::int32_t, 2> tokens = random_tokens(3, 40, 11);
};

// Layers that were changed one by one would no longer be in step.
template <class State>
concept HandsOutParts = requires(State& state) {
  state.layer(0).reset();
};
static_assert(!HandsOutParts<LanguageModelState<double>>);

TEST_F(LanguageModelStateTest, CopiesContinueATextInTwoWays) {
  LanguageModelState<double> state = model.make_state();
  run(state, 0, 12, 12);
  LanguageModelState<double> copy = state;
  EXPECT_TRUE(copy == state);
  const auto expected = run(state, 12, 6);
  EXPECT_FALSE(copy == state);
  EXPECT_EQ(largest_difference(run(copy, 12, 6), expected), 0);
  EXPECT_TRUE(copy == state);
  LanguageModelState<double> moved = std::move(copy);
  EXPECT_TRUE(moved == state);
}

TEST_F(LanguageModelStateTest, ForkCopiesOneSequenceOfAllLayers) {
  LanguageModelState<double> prompt = model.make_state();
  run(prompt, 0, 9);
  LanguageModelState<double> batch = model.make_state({.batch = 3});
  run(batch, 30, 4);
  prompt.fork(0, batch, 2);
  EXPECT_EQ(batch.tokens_seen(0), 4);
  EXPECT_EQ(batch.tokens_seen(2), 9);
  LanguageModelState<double> again = model.make_state();
  batch.fork(2, again, 0);
  EXPECT_TRUE(again == prompt);
}

TEST_F(LanguageModelStateTest, RollbackMakesTokensNeverHaveBeen) {
  for (Index back : {0, 1, 4, 7}) {
    LanguageModelState<double> state = model.make_state({.max_rollback = 7});
    LanguageModelState<double> other = state;
    run(state, 0, 13);
    run(state, 25, back);
    state.rollback(0, back);
    run(other, 0, 13);
    EXPECT_TRUE(state == other) << back;
    EXPECT_EQ(largest_difference(run(state, 13, 5), run(other, 13, 5)), 0) << back;
  }
}

TEST_F(LanguageModelStateTest, RollbackOfPrefilledTokensIsExactToRounding) {
  LanguageModelState<double> state = model.make_state({.max_rollback = 7});
  LanguageModelState<double> other = state;
  run(state, 0, 20, 20);
  state.rollback(0, 6);
  run(other, 0, 14, 14);
  EXPECT_LT(largest_difference(run(state, 14, 5), run(other, 14, 5)), 1e-12);
}

TEST_F(LanguageModelStateTest, RollbackBeyondTheLimitChangesNothing) {
  LanguageModelState<double> state = model.make_state({.max_rollback = 3});
  run(state, 0, 8);
  const LanguageModelState<double> before = state;
  NHA_EXPECT_ERROR(state.rollback(0, 4), ArgumentError, "tokens to roll back is 4");
  NHA_EXPECT_ERROR(state.rollback(0, -1), ArgumentError, "tokens to roll back is -1");
  NHA_EXPECT_ERROR(state.rollback(1, 1), ArgumentError, "sequence is 1");
  EXPECT_TRUE(state == before);
}

TEST_F(LanguageModelStateTest, ResetForgetsAllOrOne) {
  LanguageModelState<double> state = model.make_state({.batch = 2});
  const LanguageModelState<double> empty = state;
  const auto expected = run(state, 0, 6);
  state.reset(1);
  EXPECT_EQ(state.tokens_seen(0), 6);
  EXPECT_EQ(state.tokens_seen(1), 0);
  const auto found = run(state, 0, 6);
  EXPECT_NEAR(found(1, 5, 3), expected(1, 5, 3), 1e-14);
  EXPECT_GT(std::abs(found(0, 5, 3) - expected(0, 5, 3)), 1e-6);
  state.reset();
  EXPECT_TRUE(state == empty);
  NHA_EXPECT_ERROR(state.reset(2), ArgumentError, "sequence is 2; expected 0 to 1");
}

TEST_F(LanguageModelStateTest, HasTheWindowsThatWereAskedFor) {
  const auto windows = [](const LanguageModelState<double>& state) {
    std::vector<Index> found;
    for (Index n = 0; n < state.layers(); ++n)
      found.push_back(state.layer(n).attention().options().window);
    return found;
  };
  EXPECT_EQ(windows(model.make_state()), (std::vector<Index>{2, 5}));
  EXPECT_EQ(windows(model.make_state({.windows = {3}})), (std::vector<Index>{3, 3}));
  EXPECT_EQ(windows(model.make_state({.windows = {0, 9}})), (std::vector<Index>{0, 9}));
  const auto state = model.make_state({.head_windows = {{1, 6}, {}}});
  EXPECT_EQ(state.layer(0).attention().options().head_windows, (std::vector<Index>{1, 6}));
  EXPECT_TRUE(state.layer(1).attention().options().head_windows.empty());
}

TEST_F(LanguageModelStateTest, SizeIsThatOfItsLayersWhateverTheText) {
  LanguageModelState<double> state = model.make_state();
  const std::size_t bytes = state.bytes();
  EXPECT_EQ(bytes, state.layer(0).bytes() + state.layer(1).bytes());
  EXPECT_GT(model.make_state({.windows = {50}}).bytes(), bytes);
  run(state, 0, 40);
  EXPECT_EQ(state.bytes(), bytes);
}

TEST_F(LanguageModelStateTest, ForksOnlyToStatesOfTheSameModelAndWindows) {
  const LanguageModelState<double> state = model.make_state();
  const auto refuses = [&](LanguageModelState<double> target, const char* message) {
    NHA_EXPECT_ERROR(state.fork(0, target, 0), ArgumentError, message);
  };
  refuses(model.make_state({.windows = {2, 6}}), "target of fork differs in layer 1");
  refuses(model.make_state({.max_rollback = 1}), "target of fork differs in layer 0");
  ModelOptions deeper = convolving_model();
  deeper.layers.push_back(deeper.layers.front());
  refuses(LanguageModelState<double>(deeper, {}), "a model with 3 layers; expected 2");
  LanguageModelState<double> target = model.make_state();
  NHA_EXPECT_ERROR(state.fork(1, target, 0), ArgumentError, "sequence is 1; expected 0 to 0");
}

TEST_F(LanguageModelStateTest, OptionsOutOfRangeAreNamed) {
  const auto refuses = [&](const ModelStateOptions& options, const char* message) {
    NHA_EXPECT_ERROR(model.make_state(options), ArgumentError, message);
  };
  refuses({.batch = -1}, "batch is -1");
  refuses({.windows = {1, 2, 3}}, "windows has 3 entries; expected one for each of 2 layers");
  refuses({.windows = {-1}}, "window is -1");
  refuses({.max_rollback = -1}, "max_rollback is -1");
}

TEST_F(LanguageModelStateTest, HugeStatesAreRefusedBeforeTheyAreMade) {
  NHA_EXPECT_ERROR(model.make_state({.batch = Index{1} << 24, .windows = {Index{1} << 40}}),
                   ArgumentError, "does not fit in memory");
}

TEST_F(LanguageModelStateTest, NoSequencesAreFine) {
  LanguageModelState<double> state = model.make_state({.batch = 0});
  EXPECT_EQ(state.batch(), 0);
  state.reset();
  NHA_EXPECT_ERROR(state.tokens_seen(0), ArgumentError, "sequence is 0");
}

}  // namespace
