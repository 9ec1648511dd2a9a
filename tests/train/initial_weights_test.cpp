// SPDX-License-Identifier: MIT
#include <nha/train/initial_weights.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <span>
#include <vector>

namespace {

nha::ModelOptions initial_options() {
  nha::ModelOptions options;
  options.vocabulary = 200;
  options.intermediate = 96;
  nha::LayerSpec layer;
  layer.shape = {
      .hidden = 32, .query_heads = 4, .kv_heads = 2, .key_dim = 8, .value_dim = 8, .slots = 32};
  layer.options = nha::nha_v1(4);
  layer.options.feature_map = nha::FeatureMap::t2r;
  layer.options.convolution_kernel_size = 4;
  layer.options.convolution_bias = true;
  options.layers = nha::repeat(2, layer);
  return options;
}

/// That numbers look drawn from a normal distribution: mean, deviation and fourth moment within
/// five standard errors.
void expect_normal(std::span<const float> values, double deviation) {
  const auto count = static_cast<double>(values.size());
  double sum = 0, squares = 0, fourth = 0;
  for (const float value : values) {
    const double x = value / deviation;
    sum += x;
    squares += x * x;
    fourth += x * x * x * x;
  }
  EXPECT_NEAR(sum / count, 0, 5 / std::sqrt(count));
  EXPECT_NEAR(squares / count, 1, 5 * std::sqrt(2 / count));
  EXPECT_NEAR(fourth / count, 3, 5 * std::sqrt(96 / count));
}

bool is_constant(std::span<const float> values, float constant) {
  return !values.empty() &&
         std::all_of(values.begin(), values.end(), [&](float value) { return value == constant; });
}

}  // namespace

TEST(ZeroWeights, HaveTheModelsShapesAndAreZero) {
  const nha::ModelOptions options = initial_options();
  const auto weights = nha::zero_weights<float>(options);
  nha::visit_weights(options, weights, nha::detail::CheckWeights());
  for (const auto& parameter : nha::parameters(options, weights))
    EXPECT_TRUE(is_constant(parameter.values, 0)) << parameter.name;
}

TEST(ZeroWeights, RefuseOptionsOutOfRange) {
  nha::ModelOptions options = initial_options();
  options.vocabulary = 0;
  NHA_EXPECT_ERROR((void)nha::zero_weights<float>(options), nha::ArgumentError,
                   "vocabulary is 0; expected 1");
}

TEST(InitialWeights, AreThoseThatArePublished) {
  const nha::ModelOptions options = initial_options();
  const auto weights = nha::initial_weights<float>(options);
  for (const auto& parameter : nha::parameters(options, weights)) {
    SCOPED_TRACE(parameter.name);
    if (parameter.shape.size() > 1)
      expect_normal(parameter.values, 0.02);
    else
      EXPECT_TRUE(is_constant(parameter.values, parameter.name.ends_with("norm.weight") ? 1 : 0));
  }
}

TEST(InitialWeights, GatesHaveADeviationOfTheirOwn) {
  const nha::ModelOptions options = initial_options();
  const auto plain = nha::initial_weights<float>(options);
  const auto wide = nha::initial_weights<float>(options, {.gate_standard_deviation = 0.5});
  expect_normal(wide.layers[1].attn.f_proj.values(), 0.5);
  expect_normal(wide.layers[1].attn.q_proj.values(), 0.02);
  EXPECT_TRUE(std::ranges::equal(plain.layers[0].attn.q_proj.values(),
                                 wide.layers[0].attn.q_proj.values()));
}

TEST(InitialWeights, EmbeddingsHaveADeviationOfTheirOwn) {
  const nha::ModelOptions options = initial_options();
  const auto wide = nha::initial_weights<float>(options, {.embedding_standard_deviation = 1.0});
  expect_normal(wide.embeddings.values(), 1.0);
  expect_normal(wide.layers[1].attn.q_proj.values(), 0.02);
}

TEST(InitialWeights, GateBiasStartsFromItsConstant) {
  std::vector<float> values(5, 3.0f);
  const nha::Parameter<float> gate{"model.layers.0.attn.f_proj.bias", {5}, values};
  nha::detail::start_weight(gate, {.gate_bias = 2.5}, 2);
  EXPECT_TRUE(is_constant(values, 2.5f));
  const nha::Parameter<float> other{"model.layers.0.attn.q_conv1d.bias", {5}, values};
  nha::detail::start_weight(other, {.gate_bias = 2.5}, 2);
  EXPECT_TRUE(is_constant(values, 0));
}

TEST(InitialWeights, ResidualWritersCanStartSmaller) {
  const nha::ModelOptions options = initial_options();
  using nha::ResidualStart;
  const auto normal =
      nha::initial_weights<float>(options, {.residual = ResidualStart::scaled_normal});
  expect_normal(normal.layers[0].attn.o_proj.values(), 0.02 / 2);  // sqrt(2 * 2 layers)
  expect_normal(normal.layers[1].mlp.down_proj.values(), 0.02 / 2);
  expect_normal(normal.layers[1].mlp.up_proj.values(), 0.02);

  const auto uniform =
      nha::initial_weights<float>(options, {.residual = ResidualStart::scaled_uniform});
  const std::span<const float> down = uniform.layers[1].mlp.down_proj.values();
  const double bound = 1 / std::sqrt(96.0) / 2;
  double squares = 0;
  for (const float value : down) squares += value * value;
  EXPECT_LE(*std::max_element(down.begin(), down.end()), bound);
  EXPECT_GE(*std::min_element(down.begin(), down.end()), -bound);
  EXPECT_NEAR(squares / static_cast<double>(down.size()), bound * bound / 3, bound * bound / 30);

  const auto zero = nha::initial_weights<float>(options, {.residual = ResidualStart::zero});
  EXPECT_TRUE(is_constant(zero.layers[0].attn.o_proj.values(), 0));
  EXPECT_TRUE(is_constant(zero.layers[1].mlp.down_proj.values(), 0));
  expect_normal(zero.layers[0].attn.v_proj.values(), 0.02);
}

TEST(InitialWeights, DependOnTheSeedAndTheNameAlone) {
  nha::ModelOptions options = initial_options();
  const auto first = nha::initial_weights<float>(options, {.seed = 1});
  for (nha::LayerSpec& layer : options.layers) {
    layer.options.convolution_kernel_size = 0;
    layer.options.convolution_bias = false;
  }
  const auto same = nha::initial_weights<float>(options, {.seed = 1});
  const auto other = nha::initial_weights<float>(options, {.seed = 2});
  EXPECT_TRUE(std::ranges::equal(first.head.values(), same.head.values()));
  EXPECT_FALSE(std::ranges::equal(first.head.values(), other.head.values()));
  EXPECT_FALSE(std::ranges::equal(first.layers[0].attn.q_proj.values(),
                                  first.layers[1].attn.q_proj.values()));
  EXPECT_FALSE(std::ranges::equal(first.embeddings.values(), first.head.values()));
}

TEST(InitialWeights, OfFloatAreThoseOfDoubleRounded) {
  const nha::ModelOptions options = initial_options();
  const auto narrow = nha::initial_weights<float>(options);
  const auto wide = nha::initial_weights<double>(options);
  for (nha::Index i = 0; i < 200; ++i)
    EXPECT_EQ(narrow.embeddings(i, 3), static_cast<float>(wide.embeddings(i, 3)));
}

TEST(InitialWeights, RefuseADeviationOrBiasThatIsNoNumber) {
  const nha::ModelOptions options = initial_options();
  NHA_EXPECT_ERROR((void)nha::initial_weights<float>(options, {.standard_deviation = -1}),
                   nha::ArgumentError, "standard_deviation is -1; expected 0 or more");
  NHA_EXPECT_ERROR((void)nha::initial_weights<float>(options, {.gate_standard_deviation = -2}),
                   nha::ArgumentError, "gate_standard_deviation is -2; expected 0 or more");
  NHA_EXPECT_ERROR((void)nha::initial_weights<float>(
                       options, {.gate_bias = std::numeric_limits<double>::infinity()}),
                   nha::ArgumentError, "gate_bias is inf; expected a finite number");
}
TEST(InitialWeights, RefuseAGateBiasThatTheModelHasNot) {
  nha::ModelOptions options = initial_options();
  NHA_EXPECT_ERROR((void)nha::initial_weights<float>(options, {.gate_bias = 2.5}),
                   nha::ArgumentError, "gate_bias is 2.5; expected 0, for the layers have no");
  options.layers[1].options.gate_bias = true;
  const auto weights = nha::initial_weights<float>(options, {.gate_bias = 2.5});
  EXPECT_TRUE(is_constant(weights.layers[1].attn.f_proj_bias.values(), 2.5f));
}
