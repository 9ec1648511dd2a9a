// SPDX-License-Identifier: MIT
#include <nha/io/model_config.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "support/expect_error.hpp"
#include "support/temporary_folder.hpp"

namespace {

using nha::ConfigLayout;
using nha::FeatureMap;
using nha::FormatError;
using nha::Index;
using nha::ModelOptions;
using nha::parse_model_config;

/// A configuration with the keys that must be there, and more; `more` begins with a comma. With
/// empty_slots it is of the plain layout.
std::string config(const std::string& more = "") {
  return R"({"vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 3, "num_heads": 4)" + more +
         "}";
}
std::string plain(const std::string& more = "") {
  return config(R"(, "empty_slots": "participate")" + more);
}

const nha::LayerOptions& layer_options(const ModelOptions& options, std::size_t layer = 0) {
  return options.layers[layer].options;
}
std::vector<Index> windows_of_layers(const ModelOptions& options) {
  std::vector<Index> windows;
  for (const nha::LayerSpec& layer : options.layers)
    windows.push_back(layer.options.attention.window);
  return windows;
}

TEST(ModelConfig, DefaultsAreThoseOfPublishedConfigurations) {
  const ModelOptions options = parse_model_config(config(), ConfigLayout::nha_v1);
  const nha::LayerSpec layer{.shape = {.hidden = 64,
                                       .query_heads = 4,
                                       .kv_heads = 4,
                                       .key_dim = 16,
                                       .value_dim = 16,
                                       .slots = 16},
                             .options = nha::nha_v1(64)};
  EXPECT_EQ(options, (ModelOptions{.vocabulary = 100,
                                   .intermediate = 256,  // 64 * 4 * 2 / 3 = 170, rounded up
                                   .layers = nha::repeat(3, layer)}));
}

TEST(ModelConfig, EveryKeyReachesItsOption) {
  const ModelOptions options = parse_model_config(config(R"(, "model_type": "nha",
      "num_kv_heads": 2, "head_dim": 10, "num_slots": 7, "intermediate_size": 33,
      "norm_eps": 1e-3, "tie_word_embeddings": true, "window_size": 9, "slot_delay": 4,
      "scale": 0.25, "empty_slots": "masked", "feature_map": "relu", "gate_logit_normalizer": 16,
      "rope_theta": 500000, "use_short_conv": true, "conv_size": 3, "conv_bias": true,
      "hidden_act": "silu", "use_norm": true, "use_output_gate": false, "attn": null,
      "unknown": [1, 2])"));
  EXPECT_EQ(options.layers[0].shape, (nha::LayerShape{.hidden = 64,
                                                      .query_heads = 4,
                                                      .kv_heads = 2,
                                                      .key_dim = 10,
                                                      .value_dim = 10,
                                                      .slots = 7}));
  EXPECT_EQ(options.intermediate, 33);
  EXPECT_EQ(options.norm_eps, 1e-3);
  EXPECT_TRUE(options.tied_head);
  EXPECT_EQ(layer_options(options),
            (nha::LayerOptions{.attention = {.window = 9,
                                             .slot_delay = 4,
                                             .softmax_scale = 0.25,
                                             .empty_slots = nha::EmptySlots::masked},
                               .feature_map = FeatureMap::relu,
                               .gate_divisor = 16,
                               .rope_theta = 500000,
                               .output_norm_eps = 1e-3,
                               .convolution_kernel_size = 3,
                               .convolution_bias = true}));
}

TEST(ModelConfig, ExpansionsMakeHeadDimensions) {
  const ModelOptions options =
      parse_model_config(plain(R"(, "expand_k": 0.5, "expand_v": 2, "num_kv_heads": 1)"));
  EXPECT_EQ(options.layers[0].shape.key_dim, 8);
  EXPECT_EQ(options.layers[0].shape.value_dim, 32);
  EXPECT_EQ(options.layers[0].shape.slots, 8);
  EXPECT_EQ(parse_model_config(plain(R"(, "hidden_ratio": 8)")).intermediate, 512);
  NHA_EXPECT_ERROR(parse_model_config(plain(R"(, "expand_v": 0.99)")), FormatError,
                   "hidden_size times expand_v is 63; expected a multiple of num_heads, 4");
  NHA_EXPECT_ERROR(parse_model_config(plain(R"(, "expand_k": 1e300)")), FormatError,
                   "hidden_size times expand_k is");
  NHA_EXPECT_ERROR(parse_model_config(plain(R"(, "hidden_ratio": -1)")), FormatError,
                   "hidden_ratio makes intermediate_size");
}

// --- Layouts
// ----------------------------------------------------------------------------------------

TEST(ModelConfig, FirstLayoutIgnoresTheFeatureMapAndWidensSomeLayers) {
  const ModelOptions options = parse_model_config(
      config(
          R"(, "feature_map": "relu", "window_size": 32, "block_size": 2, "transformer_idx": 1)"),
      ConfigLayout::nha_v1);
  EXPECT_EQ(layer_options(options, 0), nha::nha_v1(32));
  EXPECT_EQ(windows_of_layers(options), (std::vector<Index>{32, 2048, 32}));
  NHA_EXPECT_ERROR(parse_model_config(config(R"(, "block_size": 2, "transformer_idx": 2)"),
                                      ConfigLayout::nha_v1),
                   FormatError, "transformer_idx is 2; expected 0 to block_size - 1, 1");
}

TEST(ModelConfig, SecondLayoutCountsTheWindowWithoutTheCurrentToken) {
  const ModelOptions options =
      parse_model_config(config(R"(, "window_size": 32, "block_size": 2, "transformer_idx": 1)"),
                         ConfigLayout::nha_v2);
  EXPECT_EQ(layer_options(options), nha::nha_v2(33));
  EXPECT_EQ(windows_of_layers(options), (std::vector<Index>{33, 33, 33}));
  const ModelOptions shifted =
      parse_model_config(config(R"(, "window_size": 32, "gsa_kv_shift": 8, "feature_map": "t2r")"),
                         ConfigLayout::nha_v2);
  EXPECT_EQ(layer_options(shifted).attention.slot_delay, 8);
  EXPECT_EQ(layer_options(shifted).feature_map, FeatureMap::t2r);
}

TEST(ModelConfig, GatedSlotAttentionIsKnownByItsType) {
  const ModelOptions options = parse_model_config(config(R"(, "model_type": "gsa")"));
  EXPECT_EQ(layer_options(options), nha::gsa());
  EXPECT_EQ(options.norm_eps, 1e-6);
  EXPECT_EQ(
      layer_options(parse_model_config(config(R"(, "model_type": "gsa", "window_size": 12)"))),
      nha::gsa());
}

TEST(ModelConfig, AFileThatDoesNotSayWhoseLayerItIsIsAskedAbout) {
  NHA_EXPECT_ERROR(parse_model_config(config()), FormatError, "choose ConfigLayout::nha_v1");
  NHA_EXPECT_ERROR(parse_model_config(config(R"(, "model_type": "nha")")), FormatError,
                   "choose ConfigLayout::nha_v1");
  EXPECT_EQ(parse_model_config(config(), ConfigLayout::plain), parse_model_config(plain()));
  NHA_EXPECT_ERROR(parse_model_config(config(R"(, "model_type": "llama")")), FormatError,
                   "model_type is 'llama'; expected nha or gsa");
}

TEST(ModelConfig, PlainFilesMaySayWhatPublishedLayersHaveAlike) {
  const std::string more = R"(, "num_slots": 0, "key_dim": 6, "value_dim": 5, "windows": [9, 0, 20],
      "num_kv_heads": 2, "head_windows": [8, 64], "slot_delay": 7, "value_activation": "none",
      "output_form": "plain", "norm_eps": 0.5, "output_norm_eps": 0.25)";
  const auto refuses = [&](const std::string& from, const std::string& to, const char* message) {
    std::string text = plain(more);
    text.replace(text.find(from), from.size(), to);
    NHA_EXPECT_ERROR(parse_model_config(text), FormatError, message);
  };
  const ModelOptions options = parse_model_config(plain(more));
  EXPECT_EQ(options.layers[0].shape.slots, 0);
  EXPECT_EQ(options.layers[0].shape.key_dim, 6);
  EXPECT_EQ(options.layers[0].shape.value_dim, 5);
  EXPECT_EQ(windows_of_layers(options), (std::vector<Index>{9, 0, 20}));
  EXPECT_EQ(layer_options(options).attention.head_windows, (std::vector<Index>{8, 64}));
  EXPECT_EQ(layer_options(options).value_activation, nha::ValueActivation::none);
  EXPECT_EQ(layer_options(options).output, nha::OutputForm::plain);
  EXPECT_EQ(options.norm_eps, 0.5);
  EXPECT_EQ(layer_options(options).output_norm_eps, 0.25);
  refuses("[9, 0, 20]", "[9]", "windows has 1 entries; expected one for each of 3 layers");
  refuses("[8, 64]", "[8]", "head_windows has 1 entries; expected one for each of 2 key/value");
  refuses("[8, 64]", "[8, 6]", "the slot delay is 7; expected 0 to the window, 6");
  refuses(R"("head_windows": [8, 64])", R"("window_size": 7)",
          "the slot delay is 7; expected 0 to the window, 0");
  refuses("0.25", "-1", "output_norm_eps is negative");
  refuses(R"("output_form": "plain")", R"("output_form": "gated")",
          "output_form is 'gated'; expected plain or silu_norm");
}

TEST(ModelConfig, PublishedLayoutsKnowNoPlainKeys) {
  const std::string more = R"(, "key_dim": 6, "value_dim": 5, "windows": [9, 0, 20],
      "head_windows": 3, "value_activation": "none", "output_form": "plain", "slot_delay": 7)";
  for (const ConfigLayout layout : {ConfigLayout::nha_v1, ConfigLayout::nha_v2, ConfigLayout::gsa})
    EXPECT_EQ(parse_model_config(config(more), layout), parse_model_config(config(), layout));
}

TEST(ModelConfig, LayersOfPlainFilesMayDiffer) {
  const std::string layers = R"(, "window_size": 9, "slot_delay": 2, "num_slots": 5, "layers": [
      {}, {"num_heads": 8, "num_kv_heads": 2, "head_dim": 6, "window_size": 4, "rope_theta": 50},
      {"slot_delay": null, "num_slots": 0, "feature_map": "relu"}])";
  const ModelOptions options = parse_model_config(plain(layers));
  ASSERT_EQ(options.layers.size(), 3u);
  EXPECT_EQ(options.layers[0], parse_model_config(plain(R"(, "window_size": 9, "slot_delay": 2,
      "num_slots": 5)"))
                                   .layers[0]);
  EXPECT_EQ(options.layers[1].shape, (nha::LayerShape{.hidden = 64,
                                                      .query_heads = 8,
                                                      .kv_heads = 2,
                                                      .key_dim = 6,
                                                      .value_dim = 6,
                                                      .slots = 5}));
  EXPECT_EQ(layer_options(options, 1).attention.window, 4);
  EXPECT_EQ(layer_options(options, 1).attention.slot_delay, 2);
  EXPECT_EQ(layer_options(options, 1).rope_theta, 50);
  EXPECT_EQ(layer_options(options, 2).attention.slot_delay, std::nullopt);
  EXPECT_EQ(layer_options(options, 2).feature_map, FeatureMap::relu);
  EXPECT_EQ(options.layers[2].shape.slots, 0);
}

TEST(ModelConfig, WhatLayersSayWronglyIsNamed) {
  const auto refuses = [](const std::string& more, const std::string& message) {
    SCOPED_TRACE(more);
    NHA_EXPECT_ERROR(parse_model_config(plain(", " + more)), FormatError, "config: " + message);
  };
  refuses(R"("layers": 3)", "layers is not an array of objects");
  refuses(R"("layers": [{}, {}])", "layers has 2 entries; expected one for each of 3 layers");
  refuses(R"("layers": [{}, 3, {}])", "layers is not an array of objects");
  refuses(R"("layers": [{}, {}, {}], "windows": [1, 2, 3])", "has both windows and layers");
  refuses(R"("layers": [{}, {"num_slots": -1}, {}])",
          "layers[1]: num_slots is -1; expected 0 to 16777216");
  refuses(R"("layers": [{}, {}, {"num_heads": 6}])",
          "layers[2]: hidden_size times expand_k is 64; expected a multiple of num_heads, 6");
  refuses(R"("layers": [{"hidden_size": 32}, {}, {}])",
          "layers[0] has the key 'hidden_size', which is not one of a layer");
  refuses(R"("layers": [{"slot_delay": 65}, {}, {}])",
          "layers[0]: the slot delay is 65; expected 0 to the window, 64");
}

TEST(ModelConfig, AShortTextDoesNotAskForMuchMemory) {
  std::string layers = plain();
  layers.replace(layers.find(": 3,"), 4, ": 65537,");
  NHA_EXPECT_ERROR(parse_model_config(layers), FormatError,
                   "num_hidden_layers is 65537; expected at most 65536");
  layers.replace(layers.find(": 65537,"), 8, ": 65536,");
  EXPECT_EQ(parse_model_config(layers).layer_count(), 65536);
  layers.replace(layers.find("\"num_heads\": 4"), 14, "\"num_heads\": 64, \"num_kv_heads\": 32");
  std::string windows;
  for (int head = 0; head < 32; ++head) windows += head == 0 ? "1" : ",1";
  layers.insert(layers.size() - 1, ", \"head_dim\": 2, \"head_windows\": [" + windows + "]");
  NHA_EXPECT_ERROR(parse_model_config(layers), FormatError,
                   "head_windows of all layers have 2097152 entries; expected at most 1048576");
}

// --- What may be wrong
// -----------------------------------------------------------------------------

TEST(ModelConfig, NeededKeysAreNamed) {
  const std::string all = plain();
  for (const std::string key : {"vocab_size", "hidden_size", "num_hidden_layers", "num_heads"}) {
    std::string text = all;
    text.replace(text.find(key), key.size(), "other");
    NHA_EXPECT_ERROR(parse_model_config(text), FormatError,
                     "config: the key " + key + " is missing");
  }
}

TEST(ModelConfig, WrongTypesAndValuesAreNamed) {
  const auto refuses = [](const std::string& more, const std::string& message) {
    SCOPED_TRACE(more);
    NHA_EXPECT_ERROR(parse_model_config(config(", " + more), ConfigLayout::plain), FormatError,
                     "config: " + message);
  };
  refuses(R"("num_kv_heads": "2")", "num_kv_heads is not an integer");
  refuses(R"("num_kv_heads": 3)", "num_heads is 4; expected a multiple of num_kv_heads, 3");
  refuses(R"("num_kv_heads": 0)", "num_kv_heads is 0; expected 1");
  refuses(R"("num_slots": 1.5)", "num_slots is not an integer");
  refuses(R"("head_dim": 99999999999)", "head_dim is 99999999999; expected 1 to 16777216");
  refuses(R"("head_dim": 7)", "the head dimension is 7; the rotary embedding of the window needs");
  refuses(R"("window_size": -1)", "window_size is -1; expected 0");
  refuses(R"("slot_delay": 65)", "the slot delay is 65; expected 0 to the window, 64");
  refuses(R"("scale": 0)", "scale is 0; expected a positive number");
  refuses(R"("norm_eps": "small")", "norm_eps is not a number");
  refuses(R"("norm_eps": -1)", "norm_eps is negative");
  refuses(R"("gate_logit_normalizer": -8)", "gate_logit_normalizer is -8; expected a positive");
  refuses(R"("rope_theta": 0)", "rope_theta is 0; expected a positive number");
  refuses(R"("use_short_conv": 1)", "use_short_conv is not true or false");
  refuses(R"("use_short_conv": true, "conv_size": 65)", "conv_size is 65; expected 1 to 64");
  refuses(R"("feature_map": "elu")", "feature_map is 'elu'; expected identity, swish, relu or t2r");
  refuses(R"("feature_map": 3)", "feature_map is not a string");
  refuses(R"("empty_slots": "never")",
          "empty_slots is 'never'; expected participate, masked or mass_corrected");
  refuses(R"("tie_word_embeddings": "no")", "tie_word_embeddings is not true or false");
}

TEST(ModelConfig, WhatTheLayerCannotComputeIsRefused) {
  const auto refuses = [](const std::string& more, const std::string& message) {
    NHA_EXPECT_ERROR(parse_model_config(plain(", " + more)), FormatError, message);
  };
  refuses(R"("hidden_act": "gelu")", "hidden_act is 'gelu'; expected swish or silu");
  refuses(R"("use_output_gate": true)", "use_output_gate is true, which is not supported");
  refuses(R"("use_norm": false)", "use_norm is false, which is not supported");
  refuses(R"("attn": {"layers": [1]})", "attn is given, which is not supported");
  refuses(R"("rope_scaling": {"factor": 2})", "rope_scaling is given, which is not supported");
}

TEST(ModelConfig, WhateverIsReadIsValid) {
  for (const ConfigLayout layout :
       {ConfigLayout::plain, ConfigLayout::nha_v1, ConfigLayout::nha_v2, ConfigLayout::gsa})
    for (const char* more : {"", R"(, "window_size": 0)", R"(, "num_kv_heads": 1, "num_slots": 3)"})
      nha::validate(parse_model_config(config(more), layout));
}

// --- Files
// -----------------------------------------------------------------------------------------

TEST(ModelConfig, FilesAreReadAndNamedInErrors) {
  const nha_test::TemporaryFolder folder;
  const std::string path = folder.file("config.json");
  nha_test::write_text(path, plain());
  EXPECT_EQ(nha::load_model_config(path), parse_model_config(plain()));
  nha_test::write_text(path, plain().substr(0, 40));
  NHA_EXPECT_ERROR(nha::load_model_config(path), FormatError,
                   "config.json is not valid JSON in UTF-8, at its byte 41");
  nha_test::write_text(path, "");
  NHA_EXPECT_ERROR(nha::load_model_config(path), FormatError, "config.json is not valid JSON");
  NHA_EXPECT_ERROR(nha::load_model_config(folder.file("other.json")), FormatError,
                   "other.json: cannot open");
}

TEST(ModelConfig, AFolderOrAHugeFileIsNoConfiguration) {
  const nha_test::TemporaryFolder folder;
  NHA_EXPECT_ERROR(nha::load_model_config(folder.path()), FormatError, "not a regular file");
  const std::string path = folder.file("config.json");
  nha_test::write_text(path, "");
  std::filesystem::resize_file(path, (1 << 20) + 1);
  NHA_EXPECT_ERROR(nha::load_model_config(path), FormatError,
                   "1048577 bytes; expected a configuration of at most 1048576");
}

}  // namespace
