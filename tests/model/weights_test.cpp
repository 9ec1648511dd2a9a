// SPDX-License-Identifier: MIT
#include <nha/model/weights.hpp>

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionWeights;
using nha::LayerOptions;
using nha::LayerShape;

constexpr LayerShape kWeightsShape = {
    .hidden = 12, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3};

/// A visitor that lists names and shapes.
struct ListWeights {
  std::map<std::string, std::string>& shapes;
  template <int Rank>
  void operator()(const std::string& name, const nha::Tensor<float, Rank>&,
                  const typename nha::Tensor<float, Rank>::Sizes& extents) {
    EXPECT_EQ(shapes.count(name), 0u) << name;
    shapes[name] = nha::detail::shape_text(extents);
  }
};
std::map<std::string, std::string> attention_list(const LayerShape& shape,
                                                  const LayerOptions& options) {
  std::map<std::string, std::string> shapes;
  AttentionWeights<float> weights;
  nha::visit_attention_weights(shape, options, "a.", weights, ListWeights{shapes});
  return shapes;
}

TEST(Weights, ALayerHasThePublishedNamesAndShapes) {
  const std::map<std::string, std::string> expected = {
      {"a.q_proj.weight", "[24, 12]"}, {"a.k_proj.weight", "[12, 12]"},
      {"a.v_proj.weight", "[10, 12]"}, {"a.f_proj.weight", "[6, 12]"},
      {"a.o_proj.weight", "[12, 20]"}, {"a.g_norm.weight", "[20]"}};
  EXPECT_EQ(attention_list(kWeightsShape, nha::nha_v2(3)), expected);
}

TEST(Weights, OptionsAddAndRemoveSome) {
  LayerOptions options = nha::nha_v1(3);
  options.feature_map = nha::FeatureMap::t2r;
  options.convolution_kernel_size = 4;
  options.convolution_bias = true;
  auto shapes = attention_list(kWeightsShape, options);
  EXPECT_EQ(shapes.size(), 13u);
  EXPECT_EQ(shapes["a.feature_map.layer.weight"], "[6, 6]");
  EXPECT_EQ(shapes["a.k_conv1d.weight"], "[12, 1, 4]");
  EXPECT_EQ(shapes["a.v_conv1d.bias"], "[10]");
  options.convolution_bias = false;
  EXPECT_EQ(attention_list(kWeightsShape, options).count("a.v_conv1d.bias"), 0u);

  options = nha::nha_v1(3);
  options.output = nha::OutputForm::plain;
  LayerShape no_slots = kWeightsShape;
  no_slots.slots = 0;
  shapes = attention_list(no_slots, options);
  EXPECT_EQ(shapes.count("a.g_norm.weight"), 0u);
  EXPECT_EQ(shapes.count("a.f_proj.weight"), 0u);
  EXPECT_EQ(shapes.size(), 4u);
}

TEST(Weights, AModelNumbersItsLayers) {
  nha::ModelOptions options = small_model();
  nha::LanguageModelWeights<float> weights;
  weights.layers.resize(2);
  std::map<std::string, std::string> shapes;
  nha::visit_weights(options, weights, ListWeights{shapes});
  EXPECT_EQ(shapes.size(), 3 + 2 * 11u);
  EXPECT_EQ(shapes["model.embeddings.weight"], "[11, 12]");
  EXPECT_EQ(shapes["model.layers.1.attn.q_proj.weight"], "[24, 12]");
  EXPECT_EQ(shapes["model.layers.0.attn_norm.weight"], "[12]");
  EXPECT_EQ(shapes["model.layers.0.mlp_norm.weight"], "[12]");
  EXPECT_EQ(shapes["model.layers.1.mlp.gate_proj.weight"], "[20, 12]");
  EXPECT_EQ(shapes["model.layers.1.mlp.up_proj.weight"], "[20, 12]");
  EXPECT_EQ(shapes["model.layers.1.mlp.down_proj.weight"], "[12, 20]");
  EXPECT_EQ(shapes["model.norm.weight"], "[12]");
  EXPECT_EQ(shapes["lm_head.weight"], "[11, 12]");
  options.tied_head = true;
  shapes.clear();
  nha::visit_weights(options, weights, ListWeights{shapes});
  EXPECT_EQ(shapes.count("lm_head.weight"), 0u);
}

TEST(Weights, AWeightOfAnotherShapeIsNamed) {
  AttentionWeights<float> weights = random_attention_weights<float>(kWeightsShape, nha::nha_v1(3));
  nha::visit_attention_weights(kWeightsShape, nha::nha_v1(3), "", weights,
                               nha::detail::CheckWeights());
  weights.f_proj = nha::Tensor<float, 2>({5, 12});
  NHA_EXPECT_ERROR(nha::visit_attention_weights(kWeightsShape, nha::nha_v1(3), "b.", weights,
                                                nha::detail::CheckWeights()),
                   nha::ArgumentError, "weight b.f_proj.weight is [5, 12]; expected [6, 12]");
}

}  // namespace
