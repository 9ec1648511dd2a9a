// SPDX-License-Identifier: MIT
#include <nha/model/block.hpp>

#include <gtest/gtest.h>

#include <utility>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::DecoderBlock;
using nha::DecoderBlockWeights;
using nha::LayerState;
using nha::ModelOptions;
using nha::Tensor;
using nha::TokenBatch;

constexpr Index kBlockTokens = 9;

class DecoderBlockTest : public testing::Test {
 protected:
  DecoderBlockTest() {
    options.norm_eps = 0.25;  // large enough to be seen
    weights = std::move(random_model_weights<double>(options).layers.front());
  }
  DecoderBlock<double> make(const DecoderBlockWeights<double>& from) const {
    return DecoderBlock<double>(options.layers.front(), options.intermediate, options.norm_eps,
                                from);
  }
  /// Runs a block over x in place, with scratch memory of its own.
  static void run(const DecoderBlock<double>& block, LayerState<double>& state,
                  Tensor<double, 2>& x) {
    const Index rows = x.extent(0);
    const auto sections = [&](nha::Arena& cursor) {
      const auto table =
          nha::RotaryTable<double>::take(cursor, block.attention().shape().key_dim, rows);
      return std::pair(table, block.take_activations(cursor, rows));
    };
    nha::Arena sizes(nullptr);
    sections(sizes);
    nha::Buffer scratch(sizes.used());
    nha::Arena cursor(scratch.data());
    const auto taken = sections(cursor);
    const TokenBatch tokens{1, rows};
    taken.first.fill(tokens, state, block.attention().options().rope_theta);
    nha::Workspace kernel;
    block.run(x.view(), tokens, taken.first, state, taken.second, kernel, {}, {}, nha::Serial());
  }

  ModelOptions options = small_model(nha::nha_v1(3));
  DecoderBlockWeights<double> weights;
};

TEST_F(DecoderBlockTest, AddsAttentionAndFeedForwardOfTheNormedStream) {
  const DecoderBlock<double> block = make(weights);
  const Index hidden = options.hidden();
  const auto x = random_tensor<double, 2>({kBlockTokens, hidden}, 4);
  Tensor<double, 2> found = x;
  LayerState<double> state = block.attention().make_state();
  run(block, state, found);

  Tensor<double, 2> expected = x, normed({kBlockTokens, hidden}), update({kBlockTokens, hidden});
  const auto add = [&] {
    for (Index i = 0; i < expected.size(); ++i) expected.data()[i] += update.data()[i];
  };
  nha::rms_norm(expected, weights.attn_norm, options.norm_eps, normed.view());
  LayerState<double> other = block.attention().make_state();
  nha::LayerWorkspace workspace;
  block.attention().forward(normed, TokenBatch{1, kBlockTokens}, other, update.view(), workspace);
  add();
  nha::rms_norm(expected, weights.mlp_norm, options.norm_eps, normed.view());
  Tensor<double, 2> gate({kBlockTokens, options.intermediate}),
      up({kBlockTokens, options.intermediate});
  block.feed_forward().forward(normed, update.view(), {gate.data(), up.data(), gate.data()});
  add();
  EXPECT_LT(largest_difference(found, expected), 1e-13);
  EXPECT_EQ(state.tokens_seen(0), kBlockTokens);
}

TEST_F(DecoderBlockTest, UpdatesOfZeroLeaveTheStreamAsItWas) {
  weights.attn.o_proj = Tensor<double, 2>(weights.attn.o_proj.extents());
  weights.mlp.down_proj = Tensor<double, 2>(weights.mlp.down_proj.extents());
  const DecoderBlock<double> block = make(weights);
  const auto x = random_tensor<double, 2>({kBlockTokens, options.hidden()}, 4);
  Tensor<double, 2> found = x;
  LayerState<double> state = block.attention().make_state();
  run(block, state, found);
  EXPECT_EQ(largest_difference(found, x), 0);
}

TEST_F(DecoderBlockTest, WeightsThatDoNotFitAreNamed) {
  const auto refuses = [&](auto change, const char* message) {
    DecoderBlockWeights<double> wrong = weights;
    change(wrong);
    NHA_EXPECT_ERROR(make(wrong), nha::ArgumentError, message);
  };
  refuses([](auto& w) { w.attn_norm = Tensor<double, 1>({5}); },
          "weight attn_norm.weight is [5]; expected [12]");
  refuses([](auto& w) { w.mlp_norm = {}; }, "weight mlp_norm.weight is [0]; expected [12]");
  refuses(
      [](auto& w) {
        w.attn.q_proj = Tensor<double, 2>({12, 24});
      },
      "weight q_proj.weight is [12, 24]; expected [24, 12]");
  refuses([](auto& w) { w.mlp.up_proj = {}; }, "weight up_proj.weight is [0, 0]");
}

}  // namespace
