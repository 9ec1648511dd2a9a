// SPDX-License-Identifier: MIT
#include <nha/train/parameters.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace {

nha::ModelOptions parameters_options() {
  nha::ModelOptions options;
  options.vocabulary = 11;
  options.intermediate = 6;
  nha::LayerSpec layer;
  layer.shape = {
      .hidden = 4, .query_heads = 2, .kv_heads = 1, .key_dim = 2, .value_dim = 2, .slots = 3};
  layer.options = nha::nha_v1(4);
  layer.options.convolution_kernel_size = 3;
  layer.options.convolution_bias = true;
  options.layers = nha::repeat(2, layer);
  return options;
}

/// Weights of the right shapes.
nha::LanguageModelWeights<float> parameters_weights(const nha::ModelOptions& options) {
  nha::LanguageModelWeights<float> weights;
  weights.layers.resize(options.layers.size());
  nha::visit_weights(options, weights, [](const std::string&, auto& tensor, const auto& extents) {
    tensor = std::remove_reference_t<decltype(tensor)>(extents);
  });
  return weights;
}

}  // namespace

TEST(Parameters, AreThoseOfTheCheckpointInItsOrder) {
  const nha::ModelOptions options = parameters_options();
  auto weights = parameters_weights(options);
  const auto list = nha::parameters(options, weights);
  std::vector<std::string> expected;
  nha::visit_weights(options, weights, [&](const std::string& name, const auto&, const auto&) {
    expected.push_back(name);
  });
  ASSERT_EQ(list.size(), expected.size());
  for (std::size_t n = 0; n < list.size(); ++n) EXPECT_EQ(list[n].name, expected[n]);
  EXPECT_EQ(list.front().name, "model.embeddings.weight");
  EXPECT_EQ(list.front().shape, (std::vector<nha::Index>{11, 4}));
  EXPECT_EQ(list.back().name, "lm_head.weight");
  for (const auto& parameter : list) {
    nha::Index size = 1;
    for (nha::Index extent : parameter.shape) size *= extent;
    EXPECT_EQ(parameter.values.size(), static_cast<std::size_t>(size)) << parameter.name;
    if (parameter.name.ends_with("conv1d.weight")) {
      EXPECT_EQ(parameter.shape.size(), 3u);
    }
  }
}

TEST(Parameters, WritesReachTheWeights) {
  const nha::ModelOptions options = parameters_options();
  auto weights = parameters_weights(options);
  const auto list = nha::parameters(options, weights);
  float next = 1;
  for (const auto& parameter : list)
    for (float& value : parameter.values) value = next++;
  EXPECT_EQ(weights.embeddings(0, 0), 1.0f);
  EXPECT_EQ(weights.embeddings(1, 0), 5.0f);
  EXPECT_EQ(weights.head(10, 3), next - 1);
}

TEST(Parameters, OfConstWeightsAreConstAndTheSameMemory) {
  const nha::ModelOptions options = parameters_options();
  const auto weights = parameters_weights(options);
  const auto list = nha::parameters(options, weights);
  static_assert(std::is_same_v<decltype(list[0].values), std::span<const float>>);
  EXPECT_EQ(list.front().values.data(), weights.embeddings.data());
}

TEST(Parameters, TiedHeadIsNotThereTwice) {
  nha::ModelOptions options = parameters_options();
  options.tied_head = true;
  auto weights = parameters_weights(options);
  EXPECT_EQ(nha::parameters(options, weights).back().name, "model.norm.weight");
}

TEST(Parameters, RefusesAnotherNumberOfLayersOrAnotherShape) {
  nha::ModelOptions options = parameters_options();
  auto weights = parameters_weights(options);
  options.layers.push_back(options.layers.front());
  NHA_EXPECT_ERROR((void)nha::parameters(options, weights), nha::ArgumentError,
                   "the weights are of 2 layers; expected 3");
  options.layers.pop_back();
  weights.layers[1].mlp_norm = nha::Tensor<float, 1>({5});
  NHA_EXPECT_ERROR((void)nha::parameters(options, weights), nha::ArgumentError,
                   "weight model.layers.1.mlp_norm.weight is [5]; expected [4]");
}

TEST(Parameters, LeaveOutGradientsThatAreNotWanted) {
  const nha::ModelOptions options = parameters_options();
  auto weights = parameters_weights(options);
  const std::size_t full = nha::parameters(options, weights).size();
  weights.layers[0].attn.q_proj = {};
  weights.head = {};
  const auto list = nha::parameters(options, weights);
  EXPECT_EQ(list.size() + 2, full);
  for (const auto& parameter : list) {
    EXPECT_NE(parameter.name, "model.layers.0.attn.q_proj.weight");
    EXPECT_FALSE(parameter.values.empty()) << parameter.name;
  }
}

TEST(Parameters, OfAModelCanBeChosenByName) {
  const nha::ModelOptions options = parameters_options();
  nha::LanguageModel<float> model(options, parameters_weights(options));
  const auto list =
      nha::parameters(model, [](std::string_view name) { return name.ends_with("norm.weight"); });
  ASSERT_EQ(list.size(), 7u);  // three of each layer, and the last
  EXPECT_EQ(list[0].name, "model.layers.0.attn_norm.weight");
  EXPECT_EQ(list[6].name, "model.norm.weight");
  EXPECT_EQ(nha::parameters(std::as_const(model), nha::AllWeights()).size(),
            nha::parameters(model).size());
}

TEST(Parameters, OfAModelAreItsOwnWeights) {
  const nha::ModelOptions options = parameters_options();
  nha::LanguageModel<float> model(options, parameters_weights(options));
  auto weights = parameters_weights(options);
  const auto expected = nha::parameters(options, weights);
  const auto list = nha::parameters(model);
  ASSERT_EQ(list.size(), expected.size());
  for (std::size_t n = 0; n < list.size(); ++n) {
    EXPECT_EQ(list[n].name, expected[n].name);
    EXPECT_EQ(list[n].shape, expected[n].shape);
    EXPECT_EQ(list[n].values.size(), expected[n].values.size());
  }
  list.front().values[5] = 7;
  EXPECT_EQ(model.embeddings()(1, 1), 7.0f);
  const auto read_only = nha::parameters(std::as_const(model));
  static_assert(std::is_same_v<decltype(read_only[0].values), std::span<const float>>);
  for (std::size_t n = 0; n < list.size(); ++n)
    EXPECT_EQ(read_only[n].values.data(), list[n].values.data()) << list[n].name;
}
