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

namespace {

using nha::ArgumentError;
using nha::Index;
using nha::model_config_text;
using nha::ModelOptions;
using nha::parse_model_config;

ModelOptions writer_options() {
  return {
      .vocabulary = 11,
      .layers = 2,
      .intermediate = 20,
      .shape =
          {.hidden = 12, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 6, .slots = 3},
      .layer = nha::nha_v1(5)};
}

/// Valid options, each left out or chosen at random.
class RandomModelOptions {
 public:
  explicit RandomModelOptions(std::uint64_t seed) : random_(seed) {}

  ModelOptions draw() {
    ModelOptions o;
    o.vocabulary = size(1, nha::kLargestSize);
    o.layers = size(1, 9);
    o.intermediate = size(1, 5000);
    o.norm_eps = real(-12, 0);
    o.tied_head = coin();
    o.shape.hidden = size(1, 5000);
    o.shape.kv_heads = size(1, 4);
    o.shape.query_heads = o.shape.kv_heads * size(1, 4);
    o.shape.key_dim = 2 * size(1, 100);
    o.shape.value_dim = coin() ? o.shape.key_dim : size(1, 200);
    o.shape.slots = size(0, 100);
    nha::LayerOptions& layer = o.layer;
    layer.attention.window = size(0, 300);
    layer.attention.empty_slots = static_cast<nha::EmptySlots>(size(0, 2));
    if (coin()) layer.attention.slot_delay = size(0, layer.attention.window);
    if (coin()) layer.attention.softmax_scale = real(-3, 3);
    const Index delay = layer.attention.slot_delay.value_or(0);
    if (coin())
      for (Index n = 0; n < o.layers; ++n) o.windows.push_back(size(delay, 3000));
    if (coin())
      for (Index n = 0; n < o.shape.kv_heads; ++n)
        layer.attention.head_windows.push_back(size(delay, 3000));
    layer.feature_map = static_cast<nha::FeatureMap>(size(0, 3));
    layer.value_activation = static_cast<nha::ValueActivation>(size(0, 1));
    layer.output = static_cast<nha::OutputForm>(size(0, 1));
    layer.gate_divisor = real(-2, 3);
    layer.gate_bias = coin();
    layer.rope_theta = real(0, 7);
    layer.output_norm_eps = coin() ? o.norm_eps : real(-12, 0);
    if (coin()) {
      layer.convolution_kernel_size = size(1, 64);
      layer.convolution_bias = coin();
    }
    return o;
  }

 private:
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
 "num_heads": 4,
 "num_kv_heads": 2,
 "head_dim": 6,
 "num_slots": 3,
 "intermediate_size": 20,
 "window_size": 5,
 "empty_slots": "participate",
 "feature_map": "identity",
 "value_activation": "silu",
 "output_form": "silu_norm",
 "gate_logit_normalizer": 8.0,
 "gate_bias": false,
 "rope_theta": 10000.0,
 "norm_eps": 1e-05,
 "output_norm_eps": 1e-05,
 "use_short_conv": false,
 "tie_word_embeddings": false
}
)");
}

TEST(ModelConfigWriter, ExtremeNumbersKeepTheirBits) {
  for (const double value : {std::numeric_limits<double>::denorm_min(),
                             std::numeric_limits<double>::max(), 1.0 / 3, 4503599627370497.5}) {
    ModelOptions options = writer_options();
    options.layer.gate_divisor = value;
    options.layer.attention.softmax_scale = value;
    EXPECT_EQ(parse_model_config(model_config_text(options)), options);
  }
}

TEST(ModelConfigWriter, LayersWithWindowsFromTheirListAlone) {
  ModelOptions options = writer_options();
  options.windows = {nha::kLargestSize, 0};
  options.shape.slots = 0;
  EXPECT_EQ(parse_model_config(model_config_text(options)), options);
}

TEST(ModelConfigWriter, WhatAConfigurationCannotSayIsNamed) {
  const auto refuses = [](const auto& change, const std::string& message) {
    ModelOptions options = writer_options();
    change(options);
    NHA_EXPECT_ERROR(model_config_text(options), ArgumentError, message);
  };
  refuses([](ModelOptions& o) { o.layer.attention.window = nha::kLargestSize + 1; },
          "window is 16777217; expected 0 to 16777216");
  refuses(
      [](ModelOptions& o) {
        o.windows = {1, nha::kLargestSize + 1};
      },
      "windows is 16777217; expected 0 to 16777216");
  refuses(
      [](ModelOptions& o) {
        o.layers = 40000;
        o.windows.assign(40000, 1);
      },
      "windows has 40000 entries; a configuration has at most 32768");
  refuses([](ModelOptions& o) { o.layer.convolution_bias = true; },
          "convolution_bias is true and convolution_kernel_size 0");
}

TEST(ModelConfigWriter, InvalidOptionsAreNamed) {
  const auto refuses = [](const auto& change, const std::string& message) {
    ModelOptions options = writer_options();
    change(options);
    NHA_EXPECT_ERROR(model_config_text(options), ArgumentError, message);
  };
  refuses([](ModelOptions& o) { o.vocabulary = 0; }, "vocabulary is 0; expected 1");
  refuses([](ModelOptions& o) { o.windows = {1}; }, "windows has 1 entries; expected one for each");
  refuses(
      [](ModelOptions& o) {
        o.layer.attention.slot_delay = 5;
        o.windows = {5, 4};
      },
      "slot_delay is 5; expected 0 to the window, 4");
  refuses([](ModelOptions& o) { o.layer.output = static_cast<nha::OutputForm>(7); },
          "output_form is 7; expected plain or silu_norm");
}

}  // namespace
