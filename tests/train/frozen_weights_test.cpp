// SPDX-License-Identifier: MIT
// Training with some weights frozen: their gradients are empty, the others are to the bit what they
// are when all weights train.
#include <nha/parallel/thread_pool.hpp>
#include <nha/train/adamw.hpp>
#include <nha/train/gradient_norm.hpp>
#include <nha/train/initial_weights.hpp>
#include <nha/train/parameters.hpp>
#include <nha/train/training_step.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

/// A batch and gradients of a model, of all weights or of some.
struct FrozenProblem {
  explicit FrozenProblem(const nha::ModelOptions& options)
      : model(nha_test::random_model<double>(options, 3)),
        tokens(nha_test::random_tokens(3, 11, options.vocabulary, 4)),
        targets(nha_test::random_tokens(3, 11, options.vocabulary, 5)) {}

  template <class Trains>
  nha::LanguageModelWeights<double> gradients(const Trains& trains, nha::TrainingLoss* loss) {
    auto found = nha::zero_weights<double>(model.options(), trains);
    *loss = nha::loss_and_gradients(
        model, {tokens, targets}, found, workspace,
        {.slot_share = {.coefficient = 0.3, .target = 0.9}, .micro_batches = 2});
    return found;
  }

  nha::LanguageModel<double> model;
  nha::Tensor<std::int32_t, 2> tokens, targets;
  nha::TrainingWorkspace<double> workspace;
};

/// Options with every weight that a layer can have.
nha::ModelOptions all_kinds_of_weights() {
  nha::LayerOptions layer = nha_test::convolving(3);
  layer.convolution_bias = true;
  layer.gate_bias = true;
  layer.feature_map = nha::FeatureMap::t2r;
  return nha_test::small_model(layer);
}

template <class Trains>
void expect_same_gradients(FrozenProblem& problem, const Trains& trains, const std::string& what) {
  SCOPED_TRACE(what);
  const nha::ModelOptions& options = problem.model.options();
  nha::TrainingLoss all_loss, some_loss;
  const auto all = problem.gradients(nha::AllWeights(), &all_loss);
  const auto some = problem.gradients(trains, &some_loss);
  EXPECT_EQ(some_loss.cross_entropy, all_loss.cross_entropy);
  EXPECT_EQ(some_loss.slot_share, all_loss.slot_share);
  std::vector<nha::Parameter<const double>> expected = nha::parameters(options, all);
  std::erase_if(expected, [&](const auto& weight) { return !trains(weight.name); });
  const auto found = nha::parameters(options, some);
  ASSERT_EQ(found.size(), expected.size());
  for (std::size_t n = 0; n < found.size(); ++n) {
    EXPECT_EQ(found[n].name, expected[n].name);
    EXPECT_TRUE(std::ranges::equal(found[n].values, expected[n].values)) << found[n].name;
  }
}

TEST(FrozenWeights, EachWeightAloneHasTheGradientItHasAmongAll) {
  nha::ModelOptions tied = nha_test::small_model(nha::nha_v1(3));
  tied.tied_head = true;
  for (const nha::ModelOptions& options : {all_kinds_of_weights(), nha_test::unlike_layers(), tied,
                                           nha_test::small_model(nha::gsa())}) {
    FrozenProblem problem(options);
    for (const auto& weight : nha::parameters(problem.model))
      expect_same_gradients(
          problem, [&](std::string_view name) { return name == weight.name; }, weight.name);
  }
}

TEST(FrozenWeights, EachWeightFrozenAloneChangesNoOther) {
  FrozenProblem problem(all_kinds_of_weights());
  for (const auto& weight : nha::parameters(problem.model))
    expect_same_gradients(
        problem, [&](std::string_view name) { return name != weight.name; },
        "all but " + weight.name);
}

TEST(FrozenWeights, PartsOfAModelMayTrain) {
  for (const nha::ModelOptions& options : {all_kinds_of_weights(), nha_test::unlike_layers()}) {
    FrozenProblem problem(options);
    for (const std::string part : {"layers.0", "layers.1", "mlp", "attn.", "conv1d", "_norm",
                                   "_proj", "head", "nothing at all"})
      expect_same_gradients(
          problem, [&](std::string_view name) { return name.find(part) != std::string_view::npos; },
          part);
  }
}

TEST(FrozenWeights, StayAsTheyAreWhileOthersLearn) {
  FrozenProblem problem(nha_test::small_model());
  const auto trains = [](std::string_view name) {
    return name.find("attn") != std::string_view::npos;
  };
  nha::AdamW<double> optimizer(nha::parameters(problem.model, trains));
  const auto before = problem.model;
  double first_loss = 0, last_loss = 0;
  for (int step = 0; step < 20; ++step) {
    nha::TrainingLoss loss;
    auto gradients = problem.gradients(trains, &loss);
    const auto list = nha::parameters(problem.model.options(), gradients);
    EXPECT_GT(nha::clip_gradients(list, 1.0), 0);
    optimizer.step(nha::parameters(problem.model, trains), list, 0.01);
    (step == 0 ? first_loss : last_loss) = loss.cross_entropy;
  }
  EXPECT_LT(last_loss, first_loss);
  const auto old_weights = nha::parameters(before);
  const auto weights = nha::parameters(std::as_const(problem.model));
  for (std::size_t n = 0; n < weights.size(); ++n)
    EXPECT_EQ(std::ranges::equal(weights[n].values, old_weights[n].values),
              !trains(weights[n].name))
        << weights[n].name;
}

TEST(FrozenWeights, AnOptimizerOfOtherWeightsThanTheGradientsIsRefused) {
  FrozenProblem problem(nha_test::small_model());
  nha::AdamW<double> optimizer(nha::parameters(problem.model));
  nha::TrainingLoss loss;
  auto gradients =
      problem.gradients([](std::string_view name) { return name != "lm_head.weight"; }, &loss);
  const auto list = nha::parameters(problem.model.options(), gradients);
  NHA_EXPECT_ERROR(optimizer.step(nha::parameters(problem.model), list, 0.01), nha::ArgumentError,
                   "gradients of AdamW have 24 tensors; expected 25");
}

}  // namespace
