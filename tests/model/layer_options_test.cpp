// SPDX-License-Identifier: MIT
#include <nha/model/layer_options.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>

#include "support/expect_error.hpp"

namespace {

using nha::ArgumentError;
using nha::LayerOptions;
using nha::LayerShape;

constexpr LayerShape kOptionsShape = {
    .hidden = 24, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3};

TEST(LayerOptions, PresetsSayWhatThePublishedLayersDo) {
  const LayerOptions v1 = nha::nha_v1(8);
  EXPECT_EQ(v1.feature_map, nha::FeatureMap::identity);
  EXPECT_EQ(nha::head_options(v1.attention, 0).window, 8);
  EXPECT_EQ(nha::head_options(v1.attention, 0).slot_delay, 8);
  EXPECT_EQ(nha::softmax_scale(v1.attention, 16), 0.25);

  const LayerOptions v2 = nha::nha_v2(8);
  EXPECT_EQ(v2.feature_map, nha::FeatureMap::swish);
  EXPECT_EQ(nha::head_options(v2.attention, 0).window, 8);
  EXPECT_EQ(nha::head_options(v2.attention, 0).slot_delay, 0);
  EXPECT_EQ(nha::softmax_scale(v2.attention, 16), 1.0);

  LayerOptions gsa = nha::gsa();
  EXPECT_EQ(gsa.attention.window, 0);
  gsa.attention.window = 8;
  EXPECT_EQ(gsa, v2);

  for (const LayerOptions& options : {v1, v2, gsa}) {
    EXPECT_EQ(options.gate_divisor, 8);
    EXPECT_EQ(options.value_activation, nha::ValueActivation::silu);
    EXPECT_EQ(options.output, nha::OutputForm::silu_norm);
    EXPECT_EQ(options.convolution_kernel_size, 0);
    nha::validate(options, kOptionsShape);
  }
}

TEST(LayerOptions, ShapeOfTheStateFollowsFromTheLayer) {
  EXPECT_EQ(
      nha::attention_shape(kOptionsShape, 7),
      (nha::AttentionShape{.batch = 7, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3}));
}

TEST(LayerOptions, AWindowOfAnyHeadCounts) {
  EXPECT_TRUE(nha::has_window({.window = 1}));
  EXPECT_FALSE(nha::has_window({.window = 0}));
  EXPECT_TRUE(nha::has_window({.window = 0, .head_windows = {0, 3}}));
  EXPECT_FALSE(nha::has_window({.window = 9, .head_windows = {0, 0}}));
}

TEST(LayerOptions, ShapesOutOfRangeAreNamed) {
  const auto refuses = [](LayerShape shape, const std::string& message) {
    NHA_EXPECT_ERROR(nha::validate(shape), ArgumentError, message);
  };
  LayerShape shape = kOptionsShape;
  shape.hidden = 0;
  refuses(shape, "hidden is 0; expected 1 to");
  shape = kOptionsShape;
  shape.query_heads = 3;
  refuses(shape, "query_heads is 3; expected a multiple of the 2 key/value heads");
  shape.query_heads = 0;
  refuses(shape, "query_heads is 0");
  shape = kOptionsShape;
  shape.kv_heads = 0;
  refuses(shape, "kv_heads is 0; expected 1");
  shape = kOptionsShape;
  shape.slots = -1;
  refuses(shape, "slots is -1; expected 0");
}

TEST(LayerOptions, OptionsOutOfRangeAreNamed) {
  const auto refuses = [](const LayerOptions& options, const std::string& message) {
    NHA_EXPECT_ERROR(nha::validate(options, kOptionsShape), ArgumentError, message);
  };
  LayerOptions options = nha::nha_v1(4);
  options.gate_divisor = 0;
  refuses(options, "gate_divisor is 0; expected a positive number");
  options = {};
  options.rope_theta = std::numeric_limits<double>::quiet_NaN();
  refuses(options, "rope_theta is nan");
  options = {};
  options.output_norm_eps = -1;
  refuses(options, "output_norm_eps is -1; expected 0 or more");
  options = {};
  options.convolution_kernel_size = 65;
  refuses(options, "convolution_kernel_size is 65; expected 0 to 64");
  options = {};
  options.attention.slot_delay = 65;
  refuses(options, "slot_delay is 65; expected 0 to the window, 64");
}

TEST(LayerOptions, OddHeadDimensionsGoWithoutAWindow) {
  LayerShape odd = kOptionsShape;
  odd.key_dim = 7;
  nha::validate(nha::gsa(), odd);
  NHA_EXPECT_ERROR(nha::validate(nha::nha_v1(1), odd), ArgumentError, "key_dim is 7; the rotary");
}

}  // namespace
