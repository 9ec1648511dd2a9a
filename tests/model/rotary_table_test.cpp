// SPDX-License-Identifier: MIT
#include <nha/model/rotary_table.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace {

using nha::Index;
using nha::LayerSpec;
using nha::RotaryTable;

LayerSpec rotary_layer(double theta, Index key_dim) {
  LayerSpec layer;
  layer.shape.hidden = 4;
  layer.shape.key_dim = key_dim;
  layer.options.rope_theta = theta;
  return layer;
}

TEST(RotaryTables, EqualLayersShareOneAndOthersHaveTheirOwn) {
  const std::vector<LayerSpec> layers = {rotary_layer(100, 6), rotary_layer(100, 4),
                                         rotary_layer(50, 6), rotary_layer(100, 6)};
  const nha::RotaryTables tables(layers);
  const nha::TokenBatch tokens{2, 3};
  const nha::LayerState<double> state(layers[0].shape, layers[0].options, 2);
  nha::Arena sizes(nullptr);
  tables.take<double>(sizes, tokens.rows());
  nha::Buffer memory(sizes.used());
  nha::Arena cursor(memory.data());
  std::byte* const taken = tables.take<double>(cursor, tokens.rows());
  tables.fill(taken, tokens, state);

  for (Index n = 0; n < 4; ++n) {
    const LayerSpec& layer = layers[static_cast<std::size_t>(n)];
    const RotaryTable<double> table = tables.of_layer<double>(taken, n, tokens.rows());
    const Index half = layer.shape.key_dim / 2;
    ASSERT_EQ(table.cosine.extent(0), tokens.rows());
    ASSERT_EQ(table.cosine.extent(1), half);
    for (Index row = 0; row < tokens.rows(); ++row)
      for (Index i = 0; i < half; ++i) {
        const double angle =
            static_cast<double>(row % 3) *
            std::pow(layer.options.rope_theta, -static_cast<double>(i) / static_cast<double>(half));
        EXPECT_NEAR(table.cosine(row, i), std::cos(angle), 1e-14) << n;
        EXPECT_NEAR(table.sine(row, i), std::sin(angle), 1e-14) << n;
      }
  }
  const auto cosine = [&](Index n) { return tables.of_layer<double>(taken, n, 6).cosine.data(); };
  EXPECT_EQ(cosine(0), cosine(3));
  EXPECT_NE(cosine(0), cosine(1));
  EXPECT_NE(cosine(0), cosine(2));
}

}  // namespace
