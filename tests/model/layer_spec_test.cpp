// SPDX-License-Identifier: MIT
#include <nha/model/layer_spec.hpp>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"

namespace {

nha::LayerSpec good_layer() {
  return {
      .shape = {
          .hidden = 16, .query_heads = 4, .kv_heads = 2, .key_dim = 4, .value_dim = 4, .slots = 8}};
}

TEST(LayerSpec, IsValidatedInItsShapeAndItsOptions) {
  nha::validate(good_layer());
  nha::LayerSpec layer = good_layer();
  layer.shape.hidden = 0;
  NHA_EXPECT_ERROR(nha::validate(layer), nha::ArgumentError, "hidden");
  layer = good_layer();
  layer.options.gate_divisor = 0;
  NHA_EXPECT_ERROR(nha::validate(layer), nha::ArgumentError, "gate_divisor");
  layer = good_layer();
  layer.options.attention.head_windows = {1, 2, 3};
  NHA_EXPECT_ERROR(nha::validate(layer), nha::ArgumentError, "head_windows has 3");
}

TEST(LayerSpec, IsRepeated) {
  const auto layers = nha::repeat(3, good_layer());
  ASSERT_EQ(layers.size(), 3u);
  for (const nha::LayerSpec& layer : layers) EXPECT_EQ(layer, good_layer());
  EXPECT_TRUE(nha::repeat(0, good_layer()).empty());
  NHA_EXPECT_ERROR(nha::repeat(-1, good_layer()), nha::ArgumentError, "count of repeat is -1");
}

}  // namespace
