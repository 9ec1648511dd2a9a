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
#include "support/random_case.hpp"
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

nha::LayerOptions convolving_with_bias() {
  nha::LayerOptions layer = nha_test::convolving();
  layer.convolution_bias = true;
  layer.gate_bias = true;
  return layer;
}

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

/// The same along one direction in all weights together, where some have no say in the loss.
void expect_gradient_of_all(StepProblem<double> problem) {
  nha::LanguageModelWeights<double> gradients;
  problem.step(gradients, problem.training);
  std::vector<double> at, gradient;
  const auto weights = nha::parameters(problem.options, problem.weights);
  for (const auto& weight : weights)
    at.insert(at.end(), weight.values.begin(), weight.values.end());
  for (const auto& part : nha::parameters(problem.options, gradients))
    gradient.insert(gradient.end(), part.values.begin(), part.values.end());
  nha_test::expect_directional_derivative("all weights", at, gradient, [&] {
    auto next = at.begin();
    for (const auto& weight : weights)
      for (double& value : weight.values) value = *next++;
    return problem.evaluate(problem.training).sum(problem.training.slot_share);
  });
}

/// Expects the relative error of each weight's gradient to be at most `tolerance`.
template <class A, class B>
void expect_step_gradients_near(const nha::ModelOptions& options,
                                const nha::LanguageModelWeights<A>& a,
                                const nha::LanguageModelWeights<B>& b, double tolerance) {
  const auto found = nha::parameters(options, a);
  const auto expected = nha::parameters(options, b);
  for (std::size_t n = 0; n < found.size(); ++n)
    EXPECT_LE(nha_test::relative_error(found[n].values.data(), expected[n].values.data(),
                                       static_cast<Index>(found[n].values.size())),
              tolerance)
        << found[n].name;
}

TEST(TrainingStep, DerivativesOfWholeModels) {
  expect_model_gradients({.options = nha_test::small_model(nha::nha_v1(3))});
  nha::LayerOptions layer = nha::nha_v2(5);
  layer.convolution_kernel_size = 3;
  layer.gate_bias = true;
  expect_model_gradients({.options = nha_test::small_model(layer)});
}
TEST(TrainingStep, DerivativesOfATiedHeadAndMassCorrectedSlots) {
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(2));
  options.tied_head = true;
  nha_test::change_layers(options, [](nha::LayerSpec& layer) {
    layer.options.attention.empty_slots = nha::EmptySlots::mass_corrected;
  });
  expect_model_gradients({.options = options, .training = {.windows = {0, 4}, .micro_batches = 2}});
}
TEST(TrainingStep, DerivativesOfLayersThatDiffer) {
  expect_gradient_of_all({.options = nha_test::unlike_layers(),
                          .training = {.slot_share = {.coefficient = 0.4, .through_window = true}},
                          .tokens = 20});
}
TEST(TrainingStep, DerivativesWithTheAuxiliaryLoss) {
  expect_model_gradients(
      {.options = nha_test::small_model(nha::nha_v2(3)),
       .training = {.slot_share = {.coefficient = 0.7, .target = 0.8, .through_window = true}}});
}
TEST(TrainingStep, DerivativesOfSequencesOfSeveralChunks) {
  for (const Index window : {0, 1, 20, 150}) {
    nha::LayerOptions layer = nha_test::convolving();
    layer.attention.window = window;
    expect_gradient_of_all({.options = nha_test::small_model(layer), .batch = 1, .tokens = 150});
  }
  expect_gradient_of_all({.options = nha_test::small_model(nha::nha_v2(3)),
                          .training = {.windows = {2, 70}},
                          .batch = 2,
                          .tokens = 130});
}
TEST(TrainingStep, DerivativesOfTheSmallestBatches) {
  expect_gradient_of_all({.options = nha_test::small_model(nha::nha_v2(3)), .tokens = 2});
  StepProblem<double> one{
      .options = nha_test::small_model(nha::nha_v2(3)), .batch = 1, .tokens = 1};
  one.targets(0, 0) = 4;
  expect_gradient_of_all(one);
  one = {.options = nha_test::small_model(convolving_with_bias()), .batch = 1, .tokens = 1};
  one.targets(0, 0) = 4;
  expect_gradient_of_all(one);
}
TEST(TrainingStep, WindowsOfAStepReplaceThoseOfTheModelsHeads) {
  nha::LayerOptions layer = nha::nha_v1(3);
  const StepProblem<double> plain{.options = nha_test::small_model(layer), .tokens = 20};
  layer.attention.head_windows = {2, 1 << 20};
  const StepProblem<double> heads{.options = nha_test::small_model(layer), .tokens = 20};
  EXPECT_EQ(heads.evaluate({.windows = {3}}).cross_entropy, plain.evaluate({}).cross_entropy);
  EXPECT_NE(heads.evaluate({}).cross_entropy, plain.evaluate({}).cross_entropy);
  expect_gradient_of_all(heads);
}
TEST(TrainingStep, DerivativesWithoutSlotsAndWithATiedHead) {
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(3));
  nha_test::change_layers(options, [](nha::LayerSpec& layer) { layer.shape.slots = 0; });
  options.tied_head = true;
  expect_model_gradients({.options = options});
  expect_model_gradients({.options = options, .training = {.windows = {2, 5}}, .batch = 1});
}
TEST(TrainingStep, AVocabularyOfOneIsKnownAlready) {
  nha::ModelOptions options = nha_test::small_model();
  options.vocabulary = 1;
  const StepProblem<double> problem{options};
  nha::LanguageModelWeights<double> gradients;
  const nha::TrainingLoss loss = problem.step(gradients, {});
  EXPECT_NEAR(loss.cross_entropy, 0, 1e-15);
  EXPECT_GT(loss.targets, 0);
  EXPECT_EQ(loss.correct, loss.targets);
  for (const auto& parameter : nha::parameters(options, gradients))
    for (const double value : parameter.values) ASSERT_NEAR(value, 0, 1e-15) << parameter.name;
}
TEST(TrainingStep, TokensAfterTheLastTargetChangeNothing) {
  // The longer text is cut into other chunks.
  for (const Index window : {0, 9, 500}) {
    const nha::ModelOptions options = nha_test::small_model(nha::nha_v1(window));
    StepProblem<double> brief{.options = options, .batch = 2, .tokens = 70};
    StepProblem<double> long_one{.options = options, .batch = 2, .tokens = 201};
    for (Index b = 0; b < 2; ++b)
      for (Index t = 0; t < 201; ++t) {
        long_one.targets(b, t) = t < 70 ? brief.targets(b, t) : -1;
        if (t < 70) long_one.given(b, t) = brief.given(b, t);
      }
    nha::LanguageModelWeights<double> expected, found;
    const double loss = brief.step(expected, {}).cross_entropy;
    EXPECT_NEAR(long_one.step(found, {}).cross_entropy, loss, 1e-13);
    expect_step_gradients_near(options, found, expected, 1e-12);
  }
}
TEST(TrainingStep, GradientsInFloatAreThoseOfDoubleRounded) {
  for (const nha::LayerOptions& layer : {nha::nha_v1(9), nha::nha_v2(5), convolving_with_bias()}) {
    const nha::ModelOptions options = nha_test::small_model(layer);
    StepProblem<float> in_float{.options = options, .tokens = 100};
    StepProblem<double> in_double{.options = options, .tokens = 100};
    const auto from = nha::parameters(options, in_float.weights);
    const auto to = nha::parameters(options, in_double.weights);
    for (std::size_t n = 0; n < from.size(); ++n)
      std::copy(from[n].values.begin(), from[n].values.end(), to[n].values.begin());
    nha::LanguageModelWeights<float> found;
    nha::LanguageModelWeights<double> expected;
    const nha::TrainingOptions how{.slot_share = {.coefficient = 0.3, .target = 0.9}};
    const double loss = in_double.step(expected, how).cross_entropy;
    EXPECT_NEAR(in_float.step(found, how).cross_entropy, loss, 1e-6 * loss);
    expect_step_gradients_near(options, found, expected, 5e-6);
  }
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
  problem.step(alone, {.micro_batches = 3});
  // Fewer threads than micro-batches, and more.
  for (const Index workers : {2, 4}) {
    nha::ThreadPool threads(workers);
    problem.step(together, {.micro_batches = 3}, threads);
    const auto a = nha::parameters(problem.options, alone);
    const auto b = nha::parameters(problem.options, together);
    for (std::size_t n = 0; n < a.size(); ++n)
      EXPECT_TRUE(std::equal(a[n].values.begin(), a[n].values.end(), b[n].values.begin()))
          << a[n].name;
  }
}
TEST(TrainingStep, MicroBatchesAddUpToTheWhole) {
  const StepProblem<double> problem{.options = nha_test::small_model(), .batch = 5};
  nha::LanguageModelWeights<double> whole, cut;
  const double loss = problem.step(whole, {.micro_batches = 1}).cross_entropy;
  EXPECT_NEAR(problem.step(cut, {.micro_batches = 3}).cross_entropy, loss, 1e-12);
  EXPECT_NEAR(problem.step(cut, {.micro_batches = 9}).cross_entropy, loss, 1e-12);
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
        nha_test::change_layers(problem.options,
                                [&](nha::LayerSpec& layer) { layer.shape.slots = slots; });
        problem.weights = nha_test::random_model_weights<double>(problem.options);
        const nha::TrainingOptions how{.windows = {window}, .micro_batches = 2};
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
  nha::LanguageModelWeights<double> all, beyond;
  problem.step(all, {.windows = {8}});
  problem.step(beyond, {.windows = {1 << 20, 9}});
  expect_step_gradients_near(problem.options, beyond, all, 0);
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
  NHA_EXPECT_ERROR(problem.step(gradients, {.micro_batches = 0}), nha::ArgumentError,
                   "micro_batches is 0");
  problem.given(0, 0) = -1;
  NHA_EXPECT_ERROR(problem.evaluate({}), nha::ArgumentError, "token 0 of row 0 is -1");
}

}  // namespace
