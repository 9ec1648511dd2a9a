// SPDX-License-Identifier: MIT
#include <nha/train/adamw.hpp>

#include <nha/parallel/thread_pool.hpp>
#include <nha/train/random.hpp>

#include "support/architectures.hpp"
#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

/// Weights and gradients that own their numbers.
template <class T>
struct AdamWLists {
  std::vector<std::vector<T>> weight_numbers, gradient_numbers;
  std::vector<nha::Parameter<T>> weights;
  std::vector<nha::Parameter<const T>> gradients;

  AdamWLists() = default;
  AdamWLists(const AdamWLists&) = delete;
  void add(const std::string& name, const std::vector<nha::Index>& shape,
           const std::vector<T>& weight, const std::vector<T>& gradient) {
    weight_numbers.push_back(weight);
    gradient_numbers.push_back(gradient);
    weights.clear();
    gradients.clear();
    names.push_back(name);
    shapes.push_back(shape);
    for (std::size_t n = 0; n < names.size(); ++n) {
      weights.push_back({names[n], shapes[n], weight_numbers[n]});
      gradients.push_back({names[n], shapes[n], gradient_numbers[n]});
    }
  }

 private:
  std::vector<std::string> names;
  std::vector<std::vector<nha::Index>> shapes;
};

/// A matrix and a norm of random numbers.
template <class T>
void fill_adamw_lists(AdamWLists<T>& lists, nha::Index count = 37) {
  nha::Random random(1);
  const auto draw = [&] {
    std::vector<T> numbers(static_cast<std::size_t>(count));
    for (T& x : numbers) x = static_cast<T>(random.normal());
    return numbers;
  };
  auto weight = draw();
  auto gradient = draw();
  lists.add("q_proj.weight", {count, 1}, weight, gradient);
  weight = draw();
  gradient = draw();
  lists.add("norm.weight", {count}, weight, gradient);
}

/// One number of a matrix, with the given gradients in turn.
std::vector<double> adamw_path(const nha::AdamWOptions& options, double weight,
                               const std::vector<double>& gradients, double rate) {
  AdamWLists<double> lists;
  lists.add("a.weight", {1, 1}, {weight}, {0});
  nha::AdamW<double> optimizer(lists.weights, options);
  std::vector<double> path;
  for (const double gradient : gradients) {
    lists.gradient_numbers[0][0] = gradient;
    optimizer.step(lists.weights, lists.gradients, rate);
    path.push_back(lists.weight_numbers[0][0]);
  }
  return path;
}

}  // namespace

TEST(AdamW, MatchesNumbersWorkedOutByHand) {
  // beta1 = beta2 = 1/2, rate 1/10, no decay and next to no epsilon. Gradients 1, 3, 0:
  //   m = 1/2, 7/4, 7/8         m / (1 - 2^-t) = 1, 7/3, 1
  //   v = 1/2, 19/4, 19/8       v / (1 - 2^-t) = 1, 19/3, 19/7
  const auto path = adamw_path({.beta1 = 0.5, .beta2 = 0.5, .epsilon = 1e-300, .weight_decay = 0},
                               2, {1, 3, 0}, 0.1);
  double w = 2;
  EXPECT_NEAR(path[0], w -= 0.1, 1e-15);
  EXPECT_NEAR(path[1], w -= 0.1 * (7.0 / 3) / std::sqrt(19.0 / 3), 1e-15);
  EXPECT_NEAR(path[2], w -= 0.1 / std::sqrt(19.0 / 7), 1e-15);
}

TEST(AdamW, FirstStepIsTheSignOfTheGradientAndTheDecay) {
  const nha::AdamWOptions options{.epsilon = 1e-3, .weight_decay = 0.25};
  for (const double gradient : {3.0, -0.01, 1e-6}) {
    const double weight = 1.5, rate = 0.02;
    const auto path = adamw_path(options, weight, {gradient}, rate);
    EXPECT_NEAR(path[0], weight - rate * (gradient / (std::fabs(gradient) + 1e-3) + 0.25 * weight),
                1e-15);
  }
}

TEST(AdamW, DecayIsDecoupledFromTheGradient) {
  // Without a gradient nothing but the decay acts, and the moments stay 0.
  const auto path = adamw_path({.weight_decay = 0.5}, 8, {0, 0}, 0.1);
  EXPECT_NEAR(path[0], 8 * 0.95, 1e-15);
  EXPECT_NEAR(path[1], 8 * 0.95 * 0.95, 1e-15);
}

TEST(AdamW, NormsAndBiasesDoNotDecay) {
  AdamWLists<float> lists;
  lists.add("model.embeddings.weight", {1, 1}, {2}, {0});
  lists.add("norm.weight", {1}, {2}, {0});
  lists.add("q_conv1d.bias", {1}, {2}, {0});
  lists.add("q_conv1d.weight", {1, 1, 1}, {2}, {0});
  nha::AdamW<float> all(lists.weights, {.weight_decay = 0.5});
  all.step(lists.weights, lists.gradients, 1);
  EXPECT_EQ(lists.weight_numbers,
            (std::vector<std::vector<float>>{{1.0f}, {2.0f}, {2.0f}, {1.0f}}));
  nha::AdamW<float> others(lists.weights, {.weight_decay = 0.5, .decay_embeddings = false});
  others.step(lists.weights, lists.gradients, 1);
  EXPECT_EQ(lists.weight_numbers,
            (std::vector<std::vector<float>>{{1.0f}, {2.0f}, {2.0f}, {0.5f}}));
}

TEST(AdamW, FloatFollowsDouble) {
  AdamWLists<float> narrow;
  AdamWLists<double> wide;
  fill_adamw_lists(narrow);
  fill_adamw_lists(wide);
  nha::AdamW<float> single(narrow.weights);
  nha::AdamW<double> precise(wide.weights);
  for (int n = 0; n < 20; ++n) {
    single.step(narrow.weights, narrow.gradients, 0.01);
    precise.step(wide.weights, wide.gradients, 0.01);
  }
  for (std::size_t t = 0; t < 2; ++t)
    for (std::size_t i = 0; i < 37; ++i) {
      // Twenty steps of 0.01 and the start, each rounded to half an ulp of numbers below 4.
      EXPECT_NEAR(narrow.weight_numbers[t][i], wide.weight_numbers[t][i], 20 * 4 * 1.2e-7);
    }
}

template <class Arch>
class AdamWOn : public testing::Test {};
TYPED_TEST_SUITE(AdamWOn, nha_test::Architectures);

TYPED_TEST(AdamWOn, TreatsNumbersAlikeWhereverTheyStand) {
  AdamWLists<float> lists;
  fill_adamw_lists(lists);
  const std::vector<float> before = lists.weight_numbers[0];
  const std::vector<float>& gradient = lists.gradient_numbers[0];
  const nha::detail::AdamWFactors<float> factors{.beta1 = 0.9f,
                                                 .rest1 = 0.1f,
                                                 .beta2 = 0.95f,
                                                 .rest2 = 0.05f,
                                                 .root = 4.0f,
                                                 .epsilon = 1e-8f,
                                                 .keep = 0.99f,
                                                 .rate = 0.02f};
  std::vector<float> together = before, first(37, 0.5f), second(37, 0.25f);
  nha::detail::adamw_numbers<TypeParam>(factors, together.data(), gradient.data(), first.data(),
                                        second.data(), 37);
  for (std::size_t i = 0; i < 37; ++i) {
    float weight = before[i], m = 0.5f, v = 0.25f;
    nha::detail::adamw_vector<float>(factors, &weight, &gradient[i], &m, &v);
    if constexpr (std::is_same_v<TypeParam, nha::cpu::simd::default_arch>) {
      EXPECT_EQ(together[i], weight);
      EXPECT_EQ(first[i], m);
      EXPECT_EQ(second[i], v);
    } else {
      // A lesser instruction set may have no fused multiply-add.
      EXPECT_NEAR(together[i], weight, 1e-6f * (1 + std::fabs(weight)));
      EXPECT_NEAR(first[i], m, 1e-6f);
      EXPECT_NEAR(second[i], v, 1e-6f);
    }
    EXPECT_NE(together[i], before[i]);
  }
}

TEST(AdamW, ThreadsMakeNoDifference) {
  AdamWLists<float> alone, shared;
  fill_adamw_lists(alone, 40000);  // several blocks
  fill_adamw_lists(shared, 40000);
  nha::AdamW<float> first(alone.weights), second(shared.weights);
  nha::ThreadPool pool(3);
  for (int n = 0; n < 2; ++n) {
    first.step(alone.weights, alone.gradients, 0.01);
    second.step(shared.weights, shared.gradients, 0.01, pool);
  }
  EXPECT_EQ(alone.weight_numbers, shared.weight_numbers);
  // Every block has moments of its own.
  const auto moment = second.moments()[0].values;
  for (std::size_t i = 0; i < moment.size(); i += 1000)
    EXPECT_NEAR(moment[i], 0.19f * shared.gradient_numbers[0][i], 1e-6f);
}

TEST(AdamW, ResumesExactlyFromItsMomentsAndSteps) {
  AdamWLists<float> whole, resumed;
  fill_adamw_lists(whole);
  fill_adamw_lists(resumed);
  nha::AdamW<float> optimizer(whole.weights);
  for (int n = 0; n < 3; ++n) optimizer.step(whole.weights, whole.gradients, 0.01);

  nha::AdamW<float> other(resumed.weights);
  const auto saved = std::as_const(optimizer).moments();
  const auto target = other.moments();
  ASSERT_EQ(saved.size(), 4u);
  EXPECT_EQ(saved[0].name, "first_moment.q_proj.weight");
  EXPECT_EQ(saved[3].name, "second_moment.norm.weight");
  EXPECT_EQ(saved[0].shape, (std::vector<nha::Index>{37, 1}));
  EXPECT_NEAR(saved[1].values[2], whole.gradient_numbers[1][2] * (1 - 0.9 * 0.9 * 0.9), 1e-5);
  for (std::size_t n = 0; n < saved.size(); ++n) {
    ASSERT_EQ(saved[n].name, target[n].name);
    std::copy(saved[n].values.begin(), saved[n].values.end(), target[n].values.begin());
  }
  other.resume_at(optimizer.steps());
  EXPECT_EQ(other.steps(), 3);
  for (std::size_t n = 0; n < 2; ++n)
    std::copy(whole.weight_numbers[n].begin(), whole.weight_numbers[n].end(),
              resumed.weights[n].values.begin());

  optimizer.step(whole.weights, whole.gradients, 0.01);
  other.step(resumed.weights, resumed.gradients, 0.01);
  EXPECT_EQ(whole.weight_numbers, resumed.weight_numbers);
}

TEST(AdamW, RefusesWhatDoesNotFitAndChangesNothing) {
  AdamWLists<float> lists, other;
  fill_adamw_lists(lists);
  fill_adamw_lists(other, 36);
  nha::AdamW<float> optimizer(lists.weights);
  const auto before = lists.weight_numbers;
  NHA_EXPECT_ERROR(optimizer.step(lists.weights, other.gradients, 0.1), nha::ArgumentError,
                   "q_proj.weight of the gradients of AdamW is [36, 1]; expected [37, 1]");
  std::swap(other.gradients[0], other.gradients[1]);
  NHA_EXPECT_ERROR(optimizer.step(lists.weights, other.gradients, 0.1), nha::ArgumentError,
                   "tensor 0 of the gradients of AdamW is norm.weight; expected q_proj.weight");
  other.gradients.pop_back();
  NHA_EXPECT_ERROR(optimizer.step(lists.weights, other.gradients, 0.1), nha::ArgumentError,
                   "gradients of AdamW have 1 tensors; expected 2");
  NHA_EXPECT_ERROR(
      optimizer.step(lists.weights, lists.gradients, std::numeric_limits<double>::quiet_NaN()),
      nha::ArgumentError, "learning_rate is");
  EXPECT_EQ(lists.weight_numbers, before);
  EXPECT_EQ(optimizer.steps(), 0);
  NHA_EXPECT_ERROR(optimizer.resume_at(-1), nha::ArgumentError, "steps is -1");
}

TEST(AdamW, RefusesOptionsOutOfRange) {
  AdamWLists<float> lists;
  const auto make = [&](const nha::AdamWOptions& options) {
    (void)nha::AdamW<float>(lists.weights, options);
  };
  NHA_EXPECT_ERROR(make({.beta1 = 1}), nha::ArgumentError, "beta1 is 1; expected 0 to less than 1");
  NHA_EXPECT_ERROR(make({.beta2 = -0.5}), nha::ArgumentError, "beta2 is -0.5");
  NHA_EXPECT_ERROR(make({.epsilon = 1e-60}), nha::ArgumentError, "epsilon is 1e-60");  // 0 in float
  // Subnormal in float, and so taken as 0.
  NHA_EXPECT_ERROR(make({.epsilon = 1e-40}), nha::ArgumentError,
                   "epsilon is 1e-40; expected 1.17549e-38 to 3.40282e+38");
  NHA_EXPECT_ERROR(make({.epsilon = 1e39}), nha::ArgumentError, "epsilon is 1e+39");
  make({.epsilon = std::numeric_limits<float>::min()});
  NHA_EXPECT_ERROR(make({.weight_decay = -1}), nha::ArgumentError, "weight_decay is -1");
}
