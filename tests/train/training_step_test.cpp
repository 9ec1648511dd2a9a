// SPDX-License-Identifier: MIT
#include <nha/train/training_step.hpp>

#include <nha/parallel/thread_pool.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "support/directional_derivative.hpp"
#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

/// A model and a batch to learn from, some targets of which do not count.
template <class T>
struct StepProblem {
  nha::ModelOptions options;
  nha::TrainingOptions training = {};
  Index batch = 3, tokens = 8;

  nha::LanguageModelWeights<T> weights = nha_test::random_model_weights<T>(options, 2);
  nha::Tensor<std::int32_t, 2> given =
      nha_test::random_tokens(batch, tokens, options.vocabulary, 3);
  nha::Tensor<std::int32_t, 2> targets = make_targets();

  nha::Tensor<std::int32_t, 2> make_targets() const {
    auto made = nha_test::random_tokens(batch, tokens, options.vocabulary, 4);
    for (Index i = 0; i < made.size(); i += 3) made.data()[i] = -1;
    return made;
  }
  nha::TrainingBatch data() const { return {given, targets}; }
  nha::TrainingLoss evaluate(const nha::TrainingOptions& how) const {
    nha::TrainingWorkspace<T> workspace;
    return nha::evaluate(nha::LanguageModel<T>(options, weights), data(), workspace, how);
  }
  template <class E = const nha::Serial>
  nha::TrainingLoss step(nha::LanguageModelWeights<T>& gradients, const nha::TrainingOptions& how,
                         E&& executor = nha::Serial{}) const {
    nha::TrainingWorkspace<T> workspace;
    gradients = nha::zero_weights<T>(options);
    return nha::loss_and_gradients(nha::LanguageModel<T>(options, weights), data(), gradients,
                                   workspace, how, executor);
  }
};

/// The derivative along a random direction in all weights of one tensor at a time.
void expect_model_gradients(StepProblem<double> problem) {
  nha::LanguageModelWeights<double> gradients;
  const nha::TrainingLoss loss = problem.step(gradients, problem.training);
  EXPECT_NEAR(loss.sum(problem.training.slot_share),
              problem.evaluate(problem.training).sum(problem.training.slot_share), 1e-12);
  const auto found = nha::parameters(problem.options, gradients);
  const auto weights = nha::parameters(problem.options, problem.weights);
  for (std::size_t n = 0; n < weights.size(); ++n)
    nha_test::expect_directional_derivative(
        weights[n].name, weights[n].values, found[n].values,
        [&] { return problem.evaluate(problem.training).sum(problem.training.slot_share); });
}

TEST(TrainingStep, DerivativesOfWholeModels) {
  expect_model_gradients({.options = nha_test::small_model(nha::nha_v1(3))});
  nha::LayerOptions layer = nha::nha_v2(5);
  layer.convolution_taps = 3;
  layer.gate_bias = true;
  expect_model_gradients({.options = nha_test::small_model(layer)});
}
TEST(TrainingStep, DerivativesOfATiedHeadAndMassCorrectedSlots) {
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(2));
  options.tied_head = true;
  options.layer.attention.empty_slots = nha::EmptySlots::mass_corrected;
  expect_model_gradients({.options = options, .training = {.windows = {0, 4}, .shares = 2}});
}
TEST(TrainingStep, DerivativesWithTheAuxiliaryLoss) {
  expect_model_gradients(
      {.options = nha_test::small_model(nha::nha_v2(3)),
       .training = {.slot_share = {.coefficient = 0.7, .target = 0.8, .through_window = true}}});
}
TEST(TrainingStep, LossIsThatOfTheModelsLogits) {
  const StepProblem<double> problem{nha_test::small_model()};
  const nha::LanguageModel<double> model(problem.options, problem.weights);
  auto state = model.make_state({.batch = problem.batch});
  nha::Tensor<double, 3> logits({problem.batch, problem.tokens, problem.options.vocabulary});
  nha::LayerWorkspace workspace;
  model.forward(problem.given, state, logits.view(), workspace);
  double sum = 0;
  Index counted = 0, correct = 0;
  for (Index b = 0; b < problem.batch; ++b)
    for (Index t = 0; t < problem.tokens; ++t) {
      const std::int32_t target = problem.targets(b, t);
      if (target < 0) continue;
      const double* row = &logits(b, t, 0);
      double total = 0;
      for (Index v = 0; v < problem.options.vocabulary; ++v) total += std::exp(row[v]);
      sum += std::log(total) - row[target];
      ++counted;
      correct += std::max_element(row, row + problem.options.vocabulary) - row == target ? 1 : 0;
    }
  const nha::TrainingLoss loss = problem.evaluate({});
  EXPECT_NEAR(loss.cross_entropy, sum / static_cast<double>(counted), 1e-12);
  EXPECT_EQ(loss.targets, counted);
  EXPECT_EQ(loss.correct, correct);
}
TEST(TrainingStep, ResultDoesNotDependOnThreads) {
  const StepProblem<float> problem{.options = nha_test::small_model(), .batch = 5};
  nha::LanguageModelWeights<float> alone, together;
  problem.step(alone, {.shares = 3});
  nha::ThreadPool threads(4);
  problem.step(together, {.shares = 3}, threads);
  const auto a = nha::parameters(problem.options, alone);
  const auto b = nha::parameters(problem.options, together);
  for (std::size_t n = 0; n < a.size(); ++n)
    EXPECT_TRUE(std::equal(a[n].values.begin(), a[n].values.end(), b[n].values.begin()))
        << a[n].name;
}
TEST(TrainingStep, SharesAddUpToTheWhole) {
  const StepProblem<double> problem{.options = nha_test::small_model(), .batch = 5};
  nha::LanguageModelWeights<double> whole, cut;
  const double loss = problem.step(whole, {.shares = 1}).cross_entropy;
  EXPECT_NEAR(problem.step(cut, {.shares = 3}).cross_entropy, loss, 1e-12);
  EXPECT_NEAR(problem.step(cut, {.shares = 9}).cross_entropy, loss, 1e-12);
  const auto a = nha::parameters(problem.options, whole);
  const auto b = nha::parameters(problem.options, cut);
  for (std::size_t n = 0; n < a.size(); ++n)
    for (std::size_t i = 0; i < a[n].values.size(); ++i)
      ASSERT_NEAR(a[n].values[i], b[n].values[i], 1e-12) << a[n].name;
}
TEST(TrainingStep, OneWorkspaceServesOtherWindowsBatchesAndModels) {
  nha::TrainingWorkspace<double> workspace;
  for (const Index window : {0, 3, 100})
    for (const Index batch : {4, 1})
      for (const Index slots : {3, 2}) {
        StepProblem<double> problem{.options = nha_test::small_model(), .batch = batch};
        problem.options.shape.slots = slots;
        problem.weights = nha_test::random_model_weights<double>(problem.options);
        const nha::TrainingOptions how{.windows = {window}, .shares = 2};
        const nha::LanguageModel<double> model(problem.options, problem.weights);
        auto gradients = nha::zero_weights<double>(problem.options);
        nha::LanguageModelWeights<double> expected;
        const double loss = problem.step(expected, how).cross_entropy;
        EXPECT_EQ(
            nha::loss_and_gradients(model, problem.data(), gradients, workspace, how).cross_entropy,
            loss);
        const auto a = nha::parameters(problem.options, gradients);
        const auto b = nha::parameters(problem.options, expected);
        for (std::size_t n = 0; n < a.size(); ++n)
          EXPECT_TRUE(std::equal(a[n].values.begin(), a[n].values.end(), b[n].values.begin()))
              << a[n].name;
      }
}
TEST(TrainingStep, AWindowLongerThanTheTextIsFullAttention) {
  const StepProblem<double> problem{nha_test::small_model(nha::nha_v1(3))};
  EXPECT_EQ(problem.evaluate({.windows = {8}}).cross_entropy,
            problem.evaluate({.windows = {1 << 20}}).cross_entropy);
}
TEST(TrainingStep, NothingCountsWhereNoTargetIs) {
  StepProblem<double> problem{nha_test::small_model()};
  std::fill(problem.targets.values().begin(), problem.targets.values().end(), -1);
  nha::LanguageModelWeights<double> gradients;
  const nha::TrainingLoss loss = problem.step(gradients, {});
  EXPECT_EQ(loss.targets, 0);
  EXPECT_EQ(loss.cross_entropy, 0);
  for (const auto& parameter : nha::parameters(problem.options, gradients))
    for (const double value : parameter.values) ASSERT_EQ(value, 0) << parameter.name;
}
TEST(TrainingStep, RefusesWhatDoesNotFit) {
  StepProblem<double> problem{nha_test::small_model()};
  nha::LanguageModelWeights<double> gradients;
  problem.targets(1, 2) = 11;
  NHA_EXPECT_ERROR(problem.step(gradients, {}), nha::ArgumentError,
                   "target 2 of row 1 is 11; expected at most 10");
  problem.targets(1, 2) = 1;
  NHA_EXPECT_ERROR(problem.step(gradients, {.shares = 0}), nha::ArgumentError, "shares is 0");
  problem.given(0, 0) = -1;
  NHA_EXPECT_ERROR(problem.evaluate({}), nha::ArgumentError, "token 0 of row 0 is -1");
}

}  // namespace
