// SPDX-License-Identifier: MIT
#include <nha/io/model_config_writer.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using nha::ArgumentError;
using nha::Index;
using nha::model_config_text;
using nha::ModelOptions;
using nha::parse_model_config;

ModelOptions writer_options() {
  const nha::LayerSpec layer{
      .shape =
          {.hidden = 12, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 6, .slots = 3},
      .options = nha::nha_v1(5)};
  return {.vocabulary = 11, .intermediate = 20, .layers = nha::repeat(2, layer)};
}

/// Valid options, each left out or chosen at random.
class RandomModelOptions {
 public:
  explicit RandomModelOptions(std::uint64_t seed) : random_(seed) {}

  ModelOptions draw() {
    ModelOptions o;
    o.vocabulary = size(1, nha::kLargestSize);
    o.intermediate = size(1, 5000);
    o.norm_eps = real(-12, 0);
    o.tied_head = coin();
    const Index hidden = size(1, 5000);
    o.layers = nha::repeat(size(1, 9), draw_layer(hidden, o.norm_eps));
    const auto& attention = o.layers.front().options.attention;
    const Index delay = attention.slot_delay.value_or(0);
    if (coin())  // layers that differ in their windows alone
      for (nha::LayerSpec& layer : o.layers) layer.options.attention.window = size(delay, 3000);
    else if (coin())
      for (nha::LayerSpec& layer : o.layers)
        if (coin()) layer = draw_layer(hidden, o.norm_eps);
    return o;
  }

 private:
  nha::LayerSpec draw_layer(Index hidden, double norm_eps) {
    nha::LayerSpec spec;
    spec.shape.hidden = hidden;
    spec.shape.kv_heads = size(1, 4);
    spec.shape.query_heads = spec.shape.kv_heads * size(1, 4);
    spec.shape.key_dim = 2 * size(1, 100);
    spec.shape.value_dim = coin() ? spec.shape.key_dim : size(1, 200);
    spec.shape.slots = size(0, 100);
    nha::LayerOptions& layer = spec.options;
    layer.attention.window = size(0, 300);
    layer.attention.empty_slots = static_cast<nha::EmptySlots>(size(0, 2));
    if (coin()) layer.attention.slot_delay = size(0, layer.attention.window);
    if (coin()) layer.attention.softmax_scale = real(-3, 3);
    const Index delay = layer.attention.slot_delay.value_or(0);
    if (coin())
      for (Index n = 0; n < spec.shape.kv_heads; ++n)
        layer.attention.head_windows.push_back(size(delay, 3000));
    layer.feature_map = static_cast<nha::FeatureMap>(size(0, 3));
    layer.value_activation = static_cast<nha::ValueActivation>(size(0, 1));
    layer.output = static_cast<nha::OutputForm>(size(0, 1));
    layer.gate_divisor = real(-2, 3);
    layer.gate_bias = coin();
    layer.rope_theta = real(0, 7);
    layer.output_norm_eps = coin() ? norm_eps : real(-12, 0);
    if (coin()) {
      layer.convolution_kernel_size = size(1, 64);
      layer.convolution_bias = coin();
    }
    return spec;
  }
  Index size(Index least, Index most) {
    return std::uniform_int_distribution<Index>(least, most)(random_);
  }
  bool coin() { return size(0, 1) == 1; }
  /// With all its bits, between powers of ten.
  double real(double least, double most) {
    return std::pow(10.0, std::uniform_real_distribution<double>(least, most)(random_));
  }

  std::mt19937_64 random_;
};

TEST(ModelConfigWriter, WhatIsWrittenIsReadBackTheSame) {
  RandomModelOptions random(5);
  for (int n = 0; n < 500; ++n) {
    const ModelOptions options = random.draw();
    nha::validate(options);
    const std::string text = model_config_text(options);
    EXPECT_EQ(parse_model_config(text), options) << text;
    EXPECT_EQ(model_config_text(parse_model_config(text)), text);
  }
}

TEST(ModelConfigWriter, WritesTheKeysOfPublishedConfigurationsFirst) {
  EXPECT_EQ(model_config_text(writer_options()), R"({
 "model_type": "nha",
 "vocab_size": 11,
 "hidden_size": 12,
 "num_hidden_layers": 2,
 "intermediate_size": 20,
 "norm_eps": 1e-05,
 "tie_word_embeddings": false,
 "num_heads": 4,
 "num_kv_heads": 2,
 "head_dim": 6,
 "num_slots": 3,
 "window_size": 5,
 "empty_slots": "participate",
 "feature_map": "identity",
 "value_activation": "silu",
 "output_form": "silu_norm",
 "gate_logit_normalizer": 8.0,
 "gate_bias": false,
 "rope_theta": 10000.0,
 "output_norm_eps": 1e-05,
 "use_short_conv": false
}
)");
}

TEST(ModelConfigWriter, ExtremeNumbersKeepTheirBits) {
  for (const double value : {std::numeric_limits<double>::denorm_min(),
                             std::numeric_limits<double>::max(), 1.0 / 3, 4503599627370497.5}) {
    ModelOptions options = writer_options();
    options.layers[1].options.gate_divisor = value;
    options.layers[0].options.attention.softmax_scale = value;
    EXPECT_EQ(parse_model_config(model_config_text(options)), options);
  }
}

TEST(ModelConfigWriter, LayersWithWindowsFromTheirListAlone) {
  ModelOptions options = writer_options();
  for (nha::LayerSpec& layer : options.layers) layer.shape.slots = 0;
  nha_test::set_windows(options, {nha::kLargestSize, 0});
  EXPECT_NE(model_config_text(options).find("\"windows\": [16777216,0]"), std::string::npos);
  EXPECT_EQ(parse_model_config(model_config_text(options)), options);
}

TEST(ModelConfigWriter, WhatAConfigurationCannotSayIsNamed) {
  const auto refuses = [](const auto& change, const std::string& message) {
    ModelOptions options = writer_options();
    change(options);
    NHA_EXPECT_ERROR(model_config_text(options), ArgumentError, message);
  };
  refuses([](ModelOptions& o) { o.layers[0].options.attention.window = nha::kLargestSize + 1; },
          "window is 16777217; expected 0 to 16777216");
  refuses([](ModelOptions& o) { o.layers[1].options.attention.window = nha::kLargestSize + 1; },
          "windows is 16777217; expected 0 to 16777216");
  refuses(
      [](ModelOptions& o) {
        o.layers = nha::repeat(40000, o.layers.front());
        o.layers.back().options.attention.window = 1;
      },
      "windows has 40000 entries; a configuration has at most 32768");
  refuses([](ModelOptions& o) { o.layers = nha::repeat(65537, o.layers.front()); },
          "there are 65537 layers; a configuration has at most 65536");
  refuses([](ModelOptions& o) { o.layers[0].options.convolution_bias = true; },
          "convolution_bias is true and convolution_kernel_size 0");
}

TEST(ModelConfigWriter, InvalidOptionsAreNamed) {
  const auto refuses = [](const auto& change, const std::string& message) {
    ModelOptions options = writer_options();
    change(options);
    NHA_EXPECT_ERROR(model_config_text(options), ArgumentError, message);
  };
  refuses([](ModelOptions& o) { o.vocabulary = 0; }, "vocabulary is 0; expected 1");
  refuses(
      [](ModelOptions& o) {
        o.layers[1].options.attention.slot_delay = 5;
        o.layers[1].options.attention.window = 4;
      },
      "slot_delay is 5; expected 0 to the window, 4");
  refuses([](ModelOptions& o) { o.layers[1].options.output = static_cast<nha::OutputForm>(7); },
          "output_form is 7; expected plain or silu_norm");
}

}  // namespace
