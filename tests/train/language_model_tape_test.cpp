// SPDX-License-Identifier: MIT
#include <nha/train/language_model_tape.hpp>

#include <nha/nn/linear.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/parameters.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "support/directional_derivative.hpp"
#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;
using TapeRows = nha::TensorView<double, nha::Dynamic, nha::Dynamic>;

/// A model and tokens, and a loss: the sum of the rows that the head reads times fixed numbers.
struct TapeProblem {
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(3));
  Index batch = 2, tokens = 8;

  nha::LanguageModelWeights<double> weights = nha_test::random_model_weights<double>(options, 2);
  nha::Tensor<std::int32_t, 2> given =
      nha_test::random_tokens(batch, tokens, options.vocabulary, 3);
  nha::Tensor<double, 2> d_rows =
      nha_test::random_tensor<double, 2>({batch * tokens, options.hidden()}, 4);

  nha::LanguageModel<double> model() const { return {options, weights}; }
  double loss() const {
    nha::LanguageModelTape<double> tape;
    const auto m = model();
    auto state = m.make_state({.batch = batch});
    const TapeRows rows = tape.forward(m, given, state);
    double sum = 0;
    for (Index i = 0; i < rows.size(); ++i) sum += rows.data()[i] * d_rows.data()[i];
    return sum;
  }
  /// Adds the gradients of the loss.
  void backward(nha::LanguageModelTape<double>& tape,
                nha::LanguageModelWeights<double>& gradients) const {
    const auto m = model();
    auto state = m.make_state({.batch = batch});
    tape.forward(m, given, state);
    nha::Tensor<double, 2> used_up = d_rows;
    tape.backward(m, given, state, used_up.view(), gradients);
  }
};

TEST(LanguageModelTape, RowsTimesTheHeadAreTheLogits) {
  for (const Index window : {0, 3, 20}) {
    const TapeProblem problem;
    const auto model = problem.model();
    auto state = model.make_state({.batch = problem.batch, .windows = {window}});
    nha::Tensor<double, 3> logits({problem.batch, problem.tokens, problem.options.vocabulary});
    nha::LayerWorkspace workspace;
    model.forward(problem.given, state, logits.view(), workspace);
    state.reset();
    nha::LanguageModelTape<double> tape;
    const TapeRows rows = tape.forward(model, problem.given, state);
    ASSERT_EQ(rows.extents(), (TapeRows::Sizes{16, problem.options.hidden()}));
    nha::Tensor<double, 2> found({16, problem.options.vocabulary});
    nha::linear<double>(rows, model.head(), found.view());
    for (Index i = 0; i < found.size(); ++i)
      ASSERT_NEAR(found.data()[i], logits.data()[i], 1e-13) << window;
  }
}
TEST(LanguageModelTape, LeavesTheStateEmptySoThatAnotherPassIsTheSame) {
  const TapeProblem problem;
  const auto model = problem.model();
  auto state = model.make_state({.batch = problem.batch});
  nha::LanguageModelTape<double> tape;
  const TapeRows rows = tape.forward(model, problem.given, state);
  const std::vector<double> first(rows.data(), rows.data() + rows.size());
  EXPECT_EQ(state.tokens_seen(0), 0);
  const TapeRows again = tape.forward(model, problem.given, state);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), again.data()));
}
TEST(LanguageModelTape, DerivativesOfAllWeightsButTheHeads) {
  TapeProblem problem;
  nha::LanguageModelTape<double> tape;
  auto gradients = nha::zero_weights<double>(problem.options);
  std::fill(gradients.head.values().begin(), gradients.head.values().end(), 5.0);
  problem.backward(tape, gradients);
  const auto found = nha::parameters(problem.options, gradients);
  const auto weights = nha::parameters(problem.options, problem.weights);
  for (std::size_t n = 0; n + 1 < weights.size(); ++n)
    nha_test::expect_directional_derivative(weights[n].name, weights[n].values, found[n].values,
                                            [&] { return problem.loss(); });
  for (const double value : gradients.head.values()) EXPECT_EQ(value, 5);
}
TEST(LanguageModelTape, GradientsAreAdded) {
  const TapeProblem problem;
  nha::LanguageModelTape<double> tape;
  auto once = nha::zero_weights<double>(problem.options);
  auto twice = nha::zero_weights<double>(problem.options);
  problem.backward(tape, once);
  problem.backward(tape, twice);
  problem.backward(tape, twice);
  const auto a = nha::parameters(problem.options, once);
  const auto b = nha::parameters(problem.options, twice);
  for (std::size_t n = 0; n < a.size(); ++n)
    for (std::size_t i = 0; i < a[n].values.size(); ++i)
      ASSERT_NEAR(b[n].values[i], 2 * a[n].values[i], 1e-11) << a[n].name;
}
TEST(LanguageModelTape, OneServesOtherModelsAndBatches) {
  nha::LanguageModelTape<double> shared;
  TapeProblem large, small{.batch = 1, .tokens = 3};
  TapeProblem other{.options = nha_test::small_model(nha_test::convolving())};
  other.options.layers.pop_back();
  other.weights = nha_test::random_model_weights<double>(other.options, 5);
  for (const TapeProblem* problem : {&large, &small, &other, &large}) {
    nha::LanguageModelTape<double> own;
    auto expected = nha::zero_weights<double>(problem->options);
    auto found = nha::zero_weights<double>(problem->options);
    problem->backward(own, expected);
    problem->backward(shared, found);
    const auto a = nha::parameters(problem->options, expected);
    const auto b = nha::parameters(problem->options, found);
    for (std::size_t n = 0; n < a.size(); ++n)
      EXPECT_TRUE(std::equal(a[n].values.begin(), a[n].values.end(), b[n].values.begin()))
          << a[n].name;
  }
}
TEST(LanguageModelTape, AuxiliaryLossIsOfLayersWithBothMemories) {
  const TapeProblem problem;
  const auto model = problem.model();
  const nha::SlotShareLoss loss{.coefficient = 0.5, .target = 0.9};
  double sums[3];
  const std::vector<Index> windows[3] = {{0, 3}, {3, 3}, {0, 0}};
  for (int n = 0; n < 3; ++n) {
    auto state = model.make_state({.batch = problem.batch, .windows = windows[n]});
    EXPECT_EQ(nha::LanguageModelTape<double>::hybrid_query_heads(model, state),
              n == 2 ? 0 : 4 * (n + 1));
    nha::LanguageModelTape<double> tape;
    tape.forward(model, problem.given, state);
    EXPECT_EQ(tape.slot_share_sum(), 0);
    tape.forward(model, problem.given, state, {.loss = loss});
    sums[n] = tape.slot_share_sum();
    // The same where layers keep nothing.
    for (const Index first_kept : {1, 2}) {
      tape.forward(model, problem.given, state, {.first_kept = first_kept, .loss = loss});
      EXPECT_EQ(tape.slot_share_sum(), sums[n]);
    }
  }
  EXPECT_GT(sums[0], 0);
  EXPECT_GT(sums[1], sums[0]);
  EXPECT_EQ(sums[2], 0);
  nha::ModelOptions slotless = problem.options;
  nha_test::change_layers(slotless, [](nha::LayerSpec& layer) { layer.shape.slots = 0; });
  const auto window_only = nha_test::random_model<double>(slotless);
  EXPECT_EQ(
      nha::LanguageModelTape<double>::hybrid_query_heads(window_only, window_only.make_state()), 0);
}
TEST(LanguageModelTape, KnowsHowFarDownGradientsAreWanted) {
  using Tape = nha::LanguageModelTape<double>;
  const nha::ModelOptions options = nha_test::small_model();
  const auto of = [&](std::string_view name) {
    return nha::zero_weights<double>(options, [=](std::string_view any) { return any == name; });
  };
  const auto expect = [&](const char* name, Index first_layer, bool rows) {
    EXPECT_EQ(Tape::first_layer(of(name)), first_layer) << name;
    EXPECT_EQ(Tape::wants_rows(of(name)), rows) << name;
  };
  expect("model.embeddings.weight", 0, true);
  expect("model.layers.0.mlp.up_proj.weight", 0, true);
  expect("model.layers.1.attn.g_norm.weight", 1, true);
  expect("model.norm.weight", 2, true);
  expect("lm_head.weight", 2, false);
  expect("no weight", 2, false);
}
TEST(LanguageModelTape, RefusesStatesThatDoNotFit) {
  TapeProblem problem;
  const auto model = problem.model();
  nha::LanguageModelTape<double> tape;
  auto narrow = model.make_state({.batch = 1});
  NHA_EXPECT_ERROR(tape.forward(model, problem.given, narrow), nha::ArgumentError,
                   "the tokens are of 2 sequences; the state holds 1");
  nha::ModelOptions deep = problem.options;
  deep.layers.push_back(deep.layers.front());
  auto deeper = nha_test::random_model<double>(deep).make_state({.batch = 2});
  NHA_EXPECT_ERROR(tape.forward(model, problem.given, deeper), nha::ArgumentError,
                   "the state is of 3 layers; the model has 2");
  nha::ModelOptions wide = problem.options;
  wide.layers[1].shape.slots = 4;
  auto wider = nha_test::random_model<double>(wide).make_state({.batch = 2});
  NHA_EXPECT_ERROR(tape.forward(model, problem.given, wider), nha::ArgumentError,
                   "layer 1 of the state is that of a layer of another shape");
  auto state = model.make_state({.batch = 2});
  nha::LayerWorkspace workspace;
  model.forward(problem.given, state, {}, workspace);
  NHA_EXPECT_ERROR(tape.forward(model, problem.given, state), nha::ArgumentError,
                   "sequence 0 of the state has seen 8 tokens; training reads from the beginning");
  state.reset();
  problem.given(1, 2) = 11;
  NHA_EXPECT_ERROR(tape.forward(model, problem.given, state), nha::ArgumentError, "11");
  EXPECT_EQ(state.tokens_seen(0), 0);
}

}  // namespace
