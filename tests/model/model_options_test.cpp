// SPDX-License-Identifier: MIT
#include <nha/model/model_options.hpp>

#include <gtest/gtest.h>

#include <string>
#include <utility>
#include <vector>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"

namespace {

using nha::ArgumentError;
using nha::Index;
using nha::ModelOptions;
using nha::ModelStateOptions;

ModelOptions three_layers(const std::vector<Index>& windows = {}) {
  const nha::LayerSpec layer{
      .shape =
          {.hidden = 4, .query_heads = 2, .kv_heads = 2, .key_dim = 2, .value_dim = 2, .slots = 2},
      .options = nha::nha_v1(5)};
  ModelOptions options{.vocabulary = 9, .intermediate = 8, .layers = nha::repeat(3, layer)};
  nha_test::set_windows(options, windows);
  return options;
}
std::vector<Index> windows_of(const ModelOptions& model, const ModelStateOptions& state) {
  std::vector<Index> windows;
  for (Index n = 0; n < model.layer_count(); ++n)
    windows.push_back(nha::layer_attention_options(model, state, n).window);
  return windows;
}

TEST(ModelOptions, WindowsOfTheStateGoBeforeThoseOfTheModel) {
  EXPECT_EQ(windows_of(three_layers(), {}), (std::vector<Index>{5, 5, 5}));
  const ModelOptions model = three_layers({1, 2, 3});
  EXPECT_EQ(windows_of(model, {}), (std::vector<Index>{1, 2, 3}));
  EXPECT_EQ(windows_of(model, {.windows = {7}}), (std::vector<Index>{7, 7, 7}));
  EXPECT_EQ(windows_of(model, {.windows = {7, 0, 9}}), (std::vector<Index>{7, 0, 9}));
}

TEST(ModelOptions, HeadsMayHaveWindowsOfTheirOwn) {
  const ModelStateOptions state{.head_windows = {{}, {4, 6}, {}}};
  EXPECT_TRUE(nha::layer_attention_options(three_layers(), state, 0).head_windows.empty());
  EXPECT_EQ(nha::layer_attention_options(three_layers(), state, 1).head_windows,
            (std::vector<Index>{4, 6}));
}

TEST(ModelOptions, WindowsOfTheStateGoBeforeThoseOfTheModelsHeads) {
  ModelOptions model = three_layers({1, 2, 3});
  model.layers[1].options.attention.head_windows = {4, 6};
  const auto heads = [&](const ModelStateOptions& state) {
    return nha::layer_attention_options(model, state, 1).head_windows;
  };
  EXPECT_EQ(heads({}), (std::vector<Index>{4, 6}));
  EXPECT_TRUE(heads({.windows = {7}}).empty());
  EXPECT_EQ(windows_of(model, {.windows = {7}}), (std::vector<Index>{7, 7, 7}));
  EXPECT_EQ(heads({.windows = {7}, .head_windows = {{}, {8, 9}, {}}}), (std::vector<Index>{8, 9}));
  EXPECT_TRUE(heads({.head_windows = {{1, 2}, {}, {}}}).empty());
}

TEST(ModelOptions, OtherOptionsOfTheOperatorStay) {
  ModelOptions model = three_layers();
  model.layers[1].options.attention.softmax_scale = 3.0;
  model.layers[1].options.attention.empty_slots = nha::EmptySlots::masked;
  const nha::AttentionOptions options = nha::layer_attention_options(model, {.windows = {2}}, 1);
  EXPECT_EQ(options,
            (nha::AttentionOptions{
                .window = 2, .softmax_scale = 3.0, .empty_slots = nha::EmptySlots::masked}));
}

TEST(ModelOptions, ListsOfTheWrongLengthAreRefused) {
  const auto refuses = [](const ModelStateOptions& state, const std::string& message) {
    NHA_EXPECT_ERROR(nha::layer_attention_options(three_layers(), state, 0), ArgumentError,
                     message);
  };
  refuses({.windows = {1, 2}}, "windows has 2 entries; expected one for each of 3 layers, one, or");
  refuses({.windows = {-1}}, "window is -1; expected 0 or more");
  refuses({.head_windows = {{1, 2}}}, "head_windows has 1 entries; expected one for each of 3");
  refuses({.head_windows = {{1}, {}, {}}},
          "head_windows has 1 entries; expected one for each of 2");
}

TEST(ModelOptions, AWindowThatTheDelayOfTheWeightsDoesNotFitIsRefused) {
  ModelOptions model = three_layers();
  model.layers[0].options.attention.slot_delay = 3;
  EXPECT_EQ(nha::layer_attention_options(model, {.windows = {3}}, 0).window, 3);
  NHA_EXPECT_ERROR(nha::layer_attention_options(model, {.windows = {2}}, 0), ArgumentError,
                   "slot_delay is 3; expected 0 to the window, 2");
}

TEST(ModelOptions, SizesOutOfRangeAreNamed) {
  nha::validate(three_layers());
  const auto refuses = [](auto change, const std::string& message) {
    ModelOptions options = three_layers();
    change(options);
    NHA_EXPECT_ERROR(nha::validate(options), ArgumentError, message);
  };
  refuses([](ModelOptions& o) { o.vocabulary = 0; }, "vocabulary is 0; expected 1 to");
  refuses([](ModelOptions& o) { o.layers.clear(); }, "number of layers is 0; expected 1 to");
  refuses([](ModelOptions& o) { o.intermediate = 0; }, "intermediate is 0");
  refuses([](ModelOptions& o) { o.layers[2].shape.key_dim = 0; }, "key_dim is 0");
  refuses([](ModelOptions& o) { o.norm_eps = -1; }, "norm_eps is -1; expected 0 or more");
  refuses([](ModelOptions& o) { o.layers[1].options.rope_theta = 0; }, "rope_theta is 0");
  refuses([](ModelOptions& o) { o.layers[2].shape.hidden = 6; },
          "hidden of layer 2 is 6; expected that of layer 0, 4");
  NHA_EXPECT_ERROR(nha::repeat(-1, {}), ArgumentError, "count of repeat is -1");
}

}  // namespace
