// SPDX-License-Identifier: MIT
#include <nha/model/layer_state.hpp>
#include <nha/model/native_hybrid_attention.hpp>

#include <gtest/gtest.h>

#include <cstddef>

#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::LayerOptions;
using nha::LayerShape;
using nha::LayerState;
using nha::LayerWorkspace;
using nha::NativeHybridAttention;
using nha::Tensor;
using nha::TokenBatch;

constexpr LayerShape kStateShape = {
    .hidden = 6, .query_heads = 4, .kv_heads = 2, .key_dim = 4, .value_dim = 3, .slots = 2};

/// A layer with short convolutions, so that both parts of its state matter.
class LayerStateTest : public testing::Test {
 protected:
  /// Outputs of tokens [first, first + count) given to every sequence of the state.
  Tensor<double, 2> run(LayerState<double>& state, Index first, Index count) {
    const Index batch = state.batch();
    Tensor<double, 2> in({batch * count, kStateShape.hidden}),
        out({batch * count, kStateShape.hidden});
    for (Index r = 0; r < in.extent(0); ++r)
      for (Index c = 0; c < kStateShape.hidden; ++c) in(r, c) = x(first + r % count, c);
    LayerWorkspace workspace;
    layer.forward(in, TokenBatch{batch, count}, state, out.view(), workspace);
    return out;
  }

  Tensor<double, 2> x = random_tensor<double, 2>({30, kStateShape.hidden}, 2);
  NativeHybridAttention<double> layer{kStateShape, convolving(),
                                      random_attention_weights<double>(kStateShape, convolving())};
};

// Slots and convolutions that were changed one by one would no longer be in step.
template <class State>
concept HandsOutSlots = requires(State& state) {
  state.attention().reset();
};
template <class State>
concept HandsOutConvolutions = requires(State& state) {
  state.convolutions().front().reset();
};
static_assert(!HandsOutSlots<LayerState<double>> && !HandsOutConvolutions<LayerState<double>>);

TEST_F(LayerStateTest, CopiesContinueIndependently) {
  LayerState<double> state = layer.make_state();
  run(state, 0, 7);
  LayerState<double> copy = state;
  EXPECT_TRUE(copy == state);
  const auto expected = run(state, 7, 5);
  EXPECT_FALSE(copy == state);
  run(state, 20, 5);
  EXPECT_EQ(largest_difference(run(copy, 7, 5), expected), 0);
}

TEST_F(LayerStateTest, ComparisonSeesBothParts) {
  LayerState<double> a = layer.make_state(), b = layer.make_state();
  run(a, 0, 5);
  run(b, 0, 5);
  EXPECT_TRUE(a == b);
  // Other keys: the convolution of the keys has other inputs, and so have slots and window.
  const auto changed_keys = [&](Index input) {
    auto weights = random_attention_weights<double>(kStateShape, convolving());
    weights.k_proj(0, input) += 1;
    return NativeHybridAttention<double>(kStateShape, convolving(), weights);
  };
  LayerState<double> c = layer.make_state();
  LayerWorkspace workspace;
  Tensor<double, 2> in({5, kStateShape.hidden}), out(in.extents());
  for (Index r = 0; r < in.extent(0); ++r)
    for (Index i = 0; i < kStateShape.hidden; ++i) in(r, i) = x(r, i);
  changed_keys(2).forward(in, TokenBatch{1, 5}, c, out.view(), workspace);
  EXPECT_FALSE(a.attention() == c.attention());
  EXPECT_FALSE(a.convolutions() == c.convolutions());
  EXPECT_FALSE(a == c);
}

TEST_F(LayerStateTest, ForkCopiesOneSequence) {
  LayerState<double> single = layer.make_state();
  run(single, 0, 9);
  LayerState<double> batch = layer.make_state(3);
  run(batch, 3, 2);
  single.fork(0, batch, 1);
  EXPECT_EQ(batch.tokens_seen(0), 2);
  EXPECT_EQ(batch.tokens_seen(1), 9);
  batch.fork(1, batch, 2);
  const auto expected = run(single, 9, 4);
  const auto found = run(batch, 9, 4);
  for (Index row : {4, 8})  // of sequences 1 and 2
    for (Index t = 0; t < 4; ++t)
      for (Index c = 0; c < kStateShape.hidden; ++c)
        ASSERT_NEAR(found(row + t, c), expected(t, c), 1e-14);
}

TEST_F(LayerStateTest, RollbackTakesTokensBack) {
  LayerState<double> state = layer.make_state(1, 6), other = layer.make_state(1, 6);
  for (Index t = 0; t < 12; ++t) run(state, t, 1);
  for (Index t = 20; t < 25; ++t) run(state, t, 1);
  state.rollback(0, 5);
  EXPECT_EQ(state.tokens_seen(0), 12);
  for (Index t = 0; t < 12; ++t) run(other, t, 1);
  EXPECT_TRUE(state == other);
  EXPECT_EQ(largest_difference(run(state, 12, 3), run(other, 12, 3)), 0);
}

TEST_F(LayerStateTest, RollbackBeyondTheLimitChangesNothing) {
  LayerState<double> state = layer.make_state(1, 2);
  for (Index t = 0; t < 5; ++t) run(state, t, 1);
  const LayerState<double> before = state;
  NHA_EXPECT_ERROR(state.rollback(0, 3), ArgumentError, "tokens to roll back is 3");
  NHA_EXPECT_ERROR(state.rollback(0, 6), ArgumentError, "tokens to roll back is 6");
  NHA_EXPECT_ERROR(state.rollback(1, 1), ArgumentError, "sequence is 1");
  EXPECT_TRUE(state == before);
}

TEST_F(LayerStateTest, ResetForgetsAllOrOne) {
  LayerState<double> state = layer.make_state(2);
  const LayerState<double> empty = state;
  const auto expected = run(state, 0, 4);
  state.reset(1);
  EXPECT_EQ(state.tokens_seen(0), 4);
  EXPECT_EQ(state.tokens_seen(1), 0);
  const auto found = run(state, 0, 4);
  for (Index c = 0; c < kStateShape.hidden; ++c) EXPECT_NEAR(found(7, c), expected(7, c), 1e-14);
  state.reset();
  EXPECT_TRUE(state == empty);
  NHA_EXPECT_ERROR(state.reset(2), ArgumentError, "sequence is 2");
}

TEST_F(LayerStateTest, ForksOnlyToStatesOfTheSameLayer) {
  const auto refuses = [](const LayerShape& shape, const LayerOptions& options, Index rollback) {
    const LayerState<double> source(kStateShape, convolving());
    LayerState<double> target(shape, options, 2, rollback);
    EXPECT_FALSE(source.same_layer(target));
    NHA_EXPECT_ERROR(source.fork(0, target, 0), ArgumentError, "target of fork is the state of");
  };
  refuses(kStateShape, convolving(), 1);
  refuses(kStateShape, nha::nha_v1(3), 0);
  LayerShape shape = kStateShape;
  shape.slots = 3;
  refuses(shape, convolving(), 0);
  LayerOptions options = convolving();
  options.convolution_kernel_size = 3;
  refuses(kStateShape, options, 0);
  options = convolving();
  options.attention.window = 4;
  refuses(kStateShape, options, 0);

  LayerState<double> source = layer.make_state(), target = layer.make_state(2);
  EXPECT_TRUE(source.same_layer(target));
  NHA_EXPECT_ERROR(source.fork(1, target, 0), ArgumentError, "sequence is 1");
  NHA_EXPECT_ERROR(source.fork(0, target, 2), ArgumentError, "sequence is 2");
}

TEST_F(LayerStateTest, AnEmptySequenceIsOneOfTheSameLayer) {
  LayerState<double> state = layer.make_state(3, 4);
  run(state, 0, 5);
  LayerState<double> single = state.empty_sequence();
  EXPECT_EQ(single.batch(), 1);
  EXPECT_EQ(single.tokens_seen(0), 0);
  EXPECT_TRUE(single.same_layer(state));
  EXPECT_TRUE(single == layer.make_state(1, 4));
  state.fork(2, single, 0);
  EXPECT_EQ(single.tokens_seen(0), 5);
}

TEST_F(LayerStateTest, OptionsThatDoNotFitTheShapeAreRefused) {
  const auto refuses = [](const LayerShape& shape, const LayerOptions& options,
                          const char* message) {
    NHA_EXPECT_ERROR(LayerState<double>(shape, options), ArgumentError, message);
  };
  LayerShape odd = kStateShape;
  odd.key_dim = 5;
  refuses(odd, nha::nha_v1(3), "key_dim is 5; the rotary embedding of the window needs an even");
  EXPECT_EQ(LayerState<double>(odd, nha::gsa()).attention().shape().key_dim, 5);
  LayerShape no_width = kStateShape;
  no_width.hidden = 0;
  refuses(no_width, nha::nha_v1(3), "hidden is 0");
  LayerOptions options = convolving();
  options.convolution_kernel_size = -1;
  refuses(kStateShape, options, "convolution_kernel_size is -1");
}

TEST_F(LayerStateTest, BytesCountTheConvolutions) {
  LayerState<double> state = layer.make_state();
  const std::size_t empty = state.bytes();
  // Of q, k and v together, the newest 3 inputs.
  const std::size_t inputs = (16 + 8 + 6) * 3 * sizeof(double);
  EXPECT_GE(empty, state.attention().bytes() + inputs);
  EXPECT_LE(empty, state.attention().bytes() + inputs + 3 * 64);
  run(state, 0, 30);
  EXPECT_EQ(state.bytes(), empty);
  const LayerState<double> plain(kStateShape, nha::nha_v1(3));
  EXPECT_FALSE(plain.has_convolutions());
  EXPECT_EQ(plain.bytes(), plain.attention().bytes());
}

}  // namespace
