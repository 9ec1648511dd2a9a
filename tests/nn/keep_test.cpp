// SPDX-License-Identifier: MIT
#include <nha/nn/keep.hpp>

#include <nha/model/block.hpp>
#include <nha/nn/feed_forward.hpp>

#include "support/random_model.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <vector>

namespace {

using nha::Index;
using nha::Keep;
using nha::Tensor;

class KeepTest : public testing::Test {
 protected:
  static constexpr Index kRows = 16, kHidden = 5, kInner = 7;

  /// Bytes of scratch memory that a call takes; y is what it computes.
  std::size_t run(Keep keep, Tensor<float, 2>& y) const {
    nha::Arena sizes(nullptr);
    layer.take_activations(sizes, kRows, keep);
    nha::Buffer memory(sizes.used());
    nha::Arena cursor(memory.data());
    layer.forward(x, y.view(), layer.take_activations(cursor, kRows, keep));
    return sizes.used();
  }

  nha::FeedForward<float> layer{kHidden,
                                kInner,
                                {nha_test::random_tensor<float, 2>({kInner, kHidden}, 1),
                                 nha_test::random_tensor<float, 2>({kInner, kHidden}, 2),
                                 nha_test::random_tensor<float, 2>({kHidden, kInner}, 3)}};
  Tensor<float, 2> x = nha_test::random_tensor<float, 2>({kRows, kHidden}, 4);
};

TEST_F(KeepTest, ChangesTheMemoryTakenAndNoBitOfTheResult) {
  Tensor<float, 2> y(x.extents()), y_keeping(x.extents());
  const std::size_t bytes = run(Keep::nothing, y);
  EXPECT_EQ(run(Keep::for_backward, y_keeping), bytes + kRows * kInner * sizeof(float));
  for (Index i = 0; i < y.size(); ++i) EXPECT_EQ(y.data()[i], y_keeping.data()[i]);
}

/// A block of a model with these options, run once over 2 sequences of 9 tokens.
struct BlockRun {
  std::size_t bytes;
  Tensor<float, 2> y;
  Tensor<float, 3> slot_share;
  nha::LayerState<float> state;
};
BlockRun run_block(const nha::ModelOptions& options, Keep keep) {
  const nha::TokenBatch tokens{2, 9};
  const nha::LayerSpec& layer = options.layers.front();
  const nha::DecoderBlock<float> block(
      layer, options.intermediate, options.norm_eps,
      std::move(nha_test::random_model_weights<float>(options, 2).layers.front()));
  const auto sections = [&](nha::Arena& cursor) {
    const auto table = nha::RotaryTable<float>::take(cursor, layer.shape.key_dim, tokens.rows());
    return std::pair(table, block.take_activations(cursor, tokens.rows(), keep));
  };
  nha::Arena sizes(nullptr);
  sections(sizes);
  nha::Buffer memory(sizes.used());
  nha::Arena cursor(memory.data());
  const auto [table, activations] = sections(cursor);
  BlockRun run{sizes.used(),
               nha_test::random_tensor<float, 2>({tokens.rows(), layer.shape.hidden}, 3),
               Tensor<float, 3>({2, 9, layer.shape.query_heads}), block.attention().make_state(2)};
  table.fill(tokens, run.state, layer.options.rope_theta);
  nha::Workspace kernel;
  block.run(run.y.view(), tokens, table, run.state, activations, kernel, run.slot_share.view(), {},
            nha::Serial{});
  return run;
}

TEST(KeepOfBlocks, ChangesTheMemoryTakenAndNoBitOfTheResult) {
  std::vector<nha::LayerOptions> layers = {nha::nha_v1(3), nha::nha_v2(4), nha::gsa()};
  layers.push_back(nha_test::convolving());
  layers.back().convolution_bias = true;
  layers.back().gate_bias = true;
  layers.back().feature_map = nha::FeatureMap::t2r;
  layers.push_back(nha::nha_v1(3));
  layers.back().output = nha::OutputForm::plain;
  layers.back().value_activation = nha::ValueActivation::none;
  for (std::size_t n = 0; n < layers.size(); ++n) {
    const nha::ModelOptions options = nha_test::small_model(layers[n]);
    const BlockRun plain = run_block(options, Keep::nothing);
    const BlockRun keeping = run_block(options, Keep::for_backward);
    EXPECT_GT(keeping.bytes, plain.bytes) << n;
    for (Index i = 0; i < plain.y.size(); ++i)
      ASSERT_EQ(plain.y.data()[i], keeping.y.data()[i]) << n;
    for (Index i = 0; i < plain.slot_share.size(); ++i)
      ASSERT_EQ(plain.slot_share.data()[i], keeping.slot_share.data()[i]) << n;
    EXPECT_TRUE(plain.state == keeping.state) << n;
  }
}

}  // namespace
