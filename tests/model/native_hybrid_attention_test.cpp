// SPDX-License-Identifier: MIT
#include <nha/model/native_hybrid_attention.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "model/direct_layer.hpp"
#include "support/expect_error.hpp"
#include "support/random_model.hpp"
#include "support/run_model.hpp"
#include "support/watching_memory.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::ArgumentError;
using nha::AttentionWeights;
using nha::LayerOptions;
using nha::LayerShape;
using nha::LayerState;
using nha::LayerWorkspace;
using nha::NativeHybridAttention;
using nha::Tensor;
using nha::TokenBatch;

constexpr LayerShape kShape = {
    .hidden = 10, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3};
constexpr Index kTokens = 20;

struct Setting {
  std::string name;
  LayerOptions options;
};
std::vector<Setting> settings() {
  std::vector<Setting> all = {{"nha_v1", nha::nha_v1(3)},
                              {"nha_v2", nha::nha_v2(4)},
                              {"gsa", nha::gsa()},
                              {"window beyond the text", nha::nha_v1(40)}};
  LayerOptions options = nha::nha_v1(5);
  options.attention.slot_delay = 2;
  options.attention.empty_slots = nha::EmptySlots::masked;
  options.feature_map = nha::FeatureMap::t2r;
  options.convolution_kernel_size = 4;
  options.convolution_bias = true;
  options.gate_divisor = 2;
  options.rope_theta = 100;
  all.push_back({"t2r, convolutions, masked", options});
  options = nha::nha_v2(1);
  options.feature_map = nha::FeatureMap::relu;
  options.value_activation = nha::ValueActivation::none;
  options.output = nha::OutputForm::plain;
  options.convolution_kernel_size = 2;
  all.push_back({"relu, plain output", options});
  options = nha::nha_v1();
  options.attention.head_windows = {0, 6};
  options.output_norm_eps = 0.5;
  all.push_back({"windows of heads", options});
  options = nha::nha_v1(3);
  options.gate_bias = true;
  all.push_back({"bias of the gates", options});
  return all;
}

template <class T>
AttentionWeights<T> rounded(const AttentionWeights<double>& from, const LayerOptions& options) {
  AttentionWeights<T> to = random_attention_weights<T>(kShape, options);
  std::vector<double> values;
  const auto collect = [&](const std::string&, const auto& weight, const auto&) {
    values.insert(values.end(), weight.values().begin(), weight.values().end());
  };
  nha::visit_attention_weights(kShape, options, "", from, collect);
  auto next = values.begin();
  const auto fill = [&](const std::string&, auto& weight, const auto&) {
    for (T& value : weight.values()) value = static_cast<T>(*next++);
  };
  nha::visit_attention_weights(kShape, options, "", to, fill);
  return to;
}

/// A layer's results for tokens x [T, hidden] of one sequence.
template <class T>
struct LayerRun {
  Tensor<T, 2> y{Tensor<T, 2>({kTokens, kShape.hidden})};
  Tensor<T, 3> slot_share{Tensor<T, 3>({1, kTokens, kShape.query_heads})};
};
template <class T>
LayerRun<T> run_layer(const NativeHybridAttention<T>& layer, LayerState<T>& state,
                      const Tensor<T, 2>& x, Index piece) {
  LayerRun<T> run;
  LayerWorkspace workspace;
  for (Index t = 0; t < kTokens; t += piece) {
    const Index count = std::min(piece, kTokens - t);
    layer.forward(x.view().template slice<0>(t, count), TokenBatch{1, count}, state,
                  run.y.view().template slice<0>(t, count), workspace,
                  run.slot_share.view().template slice<1>(t, count));
  }
  return run;
}

template <class T>
void expect_direct_evaluation(double tolerance) {
  const auto x = random_tensor<T, 2>({kTokens, kShape.hidden}, 5);
  Matrix plain_x(kTokens, std::vector<double>(static_cast<std::size_t>(kShape.hidden)));
  for (Index t = 0; t < kTokens; ++t)
    for (Index c = 0; c < kShape.hidden; ++c)
      plain_x[static_cast<std::size_t>(t)][static_cast<std::size_t>(c)] = x(t, c);
  for (const auto& [name, options] : settings()) {
    const auto weights = random_attention_weights<double>(kShape, options, 3);
    DirectLayer direct(kShape, options, weights);
    const Matrix expected = direct.run(plain_x);
    const NativeHybridAttention<T> layer(kShape, options, rounded<T>(weights, options));
    for (Index piece : {Index{1}, Index{3}, Index{7}, kTokens}) {
      SCOPED_TRACE(name + " in pieces of " + std::to_string(piece));
      LayerState<T> state = layer.make_state();
      const LayerRun<T> run = run_layer(layer, state, x, piece);
      for (Index t = 0; t < kTokens; ++t) {
        const auto row = static_cast<std::size_t>(t);
        for (Index c = 0; c < kShape.hidden; ++c)
          ASSERT_NEAR(run.y(t, c), expected[row][static_cast<std::size_t>(c)], tolerance) << t;
        for (Index h = 0; h < kShape.query_heads; ++h)
          ASSERT_NEAR(run.slot_share(0, t, h), direct.slot_share[row][static_cast<std::size_t>(h)],
                      tolerance);
      }
      EXPECT_EQ(state.tokens_seen(0), kTokens);
    }
  }
}

TEST(NativeHybridAttention, EqualsADirectEvaluationInPiecesOfAnyLength) {
  expect_direct_evaluation<double>(1e-11);
}

TEST(NativeHybridAttention, EqualsADirectEvaluationInFloat) {
  expect_direct_evaluation<float>(2e-4);
}

TEST(NativeHybridAttention, PackedSequencesAndRowsOfABatchEqualSeparateOnes) {
  const auto x = random_tensor<double, 2>({kTokens, kShape.hidden}, 5);
  for (const auto& [name, options] : settings()) {
    SCOPED_TRACE(name);
    const NativeHybridAttention<double> layer(kShape, options,
                                              random_attention_weights<double>(kShape, options));
    const auto separate = [&](Index first, Index count) {
      LayerState<double> state = layer.make_state();
      LayerWorkspace workspace;
      Tensor<double, 2> y({count, kShape.hidden});
      layer.forward(x.view().slice<0>(first, count), TokenBatch{1, count}, state, y.view(),
                    workspace);
      return y;
    };
    const auto rows = [&](const Tensor<double, 2>& y, Index first, Index count) {
      return y.values().subspan(static_cast<std::size_t>(first * kShape.hidden),
                                static_cast<std::size_t>(count * kShape.hidden));
    };
    Tensor<double, 2> y({kTokens, kShape.hidden});
    LayerWorkspace workspace;

    const std::vector<std::int64_t> cu = {0, 9, 9, 10, 20};
    LayerState<double> packed = layer.make_state(4);
    layer.forward(x, TokenBatch{1, kTokens, cu}, packed, y.view(), workspace);
    EXPECT_LT(largest_difference(rows(y, 0, 9), separate(0, 9).values()), 1e-12);
    EXPECT_LT(largest_difference(rows(y, 9, 1), separate(9, 1).values()), 1e-12);
    EXPECT_LT(largest_difference(rows(y, 10, 10), separate(10, 10).values()), 1e-12);
    EXPECT_EQ(packed.tokens_seen(1), 0);

    LayerState<double> batch = layer.make_state(2);
    layer.forward(x, TokenBatch{2, 10}, batch, y.view(), workspace);
    EXPECT_LT(largest_difference(rows(y, 0, 10), separate(0, 10).values()), 1e-12);
    EXPECT_LT(largest_difference(rows(y, 10, 10), separate(10, 10).values()), 1e-12);
  }
}

TEST(NativeHybridAttention, StatesOfOtherWindowsUseTheSameWeights) {
  LayerOptions options = nha::nha_v1(3);
  const auto weights = random_attention_weights<double>(kShape, options);
  const NativeHybridAttention<double> layer(kShape, options, weights);
  const auto x = random_tensor<double, 2>({kTokens, kShape.hidden}, 5);
  options.attention.window = 9;
  const NativeHybridAttention<double> wider(kShape, options, weights);
  LayerState<double> state(kShape, options);
  LayerState<double> wide = wider.make_state();
  LayerState<double> narrow = layer.make_state();
  const auto y = run_layer(layer, state, x, kTokens).y;
  EXPECT_EQ(largest_difference(y, run_layer(wider, wide, x, kTokens).y), 0);
  EXPECT_GT(largest_difference(y, run_layer(layer, narrow, x, kTokens).y), 1e-3);
}

TEST(NativeHybridAttention, ALargeBiasOfTheGatesKeepsTheSlotsAsTheyBegan) {
  LayerOptions options = nha::nha_v1(3);
  options.gate_bias = true;
  const auto x = random_tensor<double, 2>({kTokens, kShape.hidden}, 5);
  auto weights = random_attention_weights<double>(kShape, options, 3);
  const auto slots_after = [&](double bias) {
    std::fill(weights.f_proj_bias.values().begin(), weights.f_proj_bias.values().end(), bias);
    const NativeHybridAttention<double> layer(kShape, options, weights);
    LayerState<double> state = layer.make_state();
    run_layer(layer, state, x, kTokens);
    double largest = 0;
    for (Index h = 0; h < kShape.kv_heads; ++h)
      for (Index m = 0; m < kShape.slots; ++m)
        for (Index d = 0; d < kShape.value_dim; ++d)
          largest = std::max(largest, std::abs(state.attention().slot_v(0, h)(m, d)));
    return largest;
  };
  EXPECT_LT(slots_after(40), 1e-12);
  EXPECT_GT(slots_after(0), 1e-2);
}

TEST(NativeHybridAttention, LayersMayHaveNoSlots) {
  LayerShape shape = kShape;
  shape.slots = 0;
  for (Index window : {0, 4}) {
    const LayerOptions options = nha::nha_v1(window);
    const auto weights = random_attention_weights<double>(shape, options);
    const NativeHybridAttention<double> layer(shape, options, weights);
    const auto x = random_tensor<double, 2>({kTokens, kShape.hidden}, 5);
    LayerState<double> all = layer.make_state(), steps = layer.make_state();
    const auto y = run_layer(layer, all, x, kTokens);
    EXPECT_LT(largest_difference(y.y, run_layer(layer, steps, x, 1).y), 1e-12);
    EXPECT_EQ(y.slot_share(0, 19, 0), 0);
    // With nothing to read the operator gives 0, and silu, norm and projection keep it.
    EXPECT_EQ(y.y(19, 0) == 0, window == 0);
  }
}

// --- Errors
// ----------------------------------------------------------------------------------------

class LayerErrors : public testing::Test {
 protected:
  /// Expects that a call fails with the message and leaves the state alone.
  void refuses(const Tensor<float, 2>& in, const TokenBatch& tokens, LayerState<float>& of,
               Tensor<float, 2>& out, const std::string& message) {
    NHA_EXPECT_ERROR(layer.forward(in, tokens, of, out.view(), workspace), ArgumentError, message);
    EXPECT_EQ(of.tokens_seen(0), 0);
  }

  LayerOptions options = nha::nha_v1(3);
  NativeHybridAttention<float> layer{kShape, options,
                                     random_attention_weights<float>(kShape, options)};
  LayerState<float> state = layer.make_state(2);
  LayerWorkspace workspace;
  Tensor<float, 2> x{Tensor<float, 2>({4, kShape.hidden})};
  Tensor<float, 2> y{Tensor<float, 2>({4, kShape.hidden})};
};

TEST_F(LayerErrors, ShapesThatDoNotFitAreRefused) {
  refuses(x, {2, 3}, state, y, "x of the layer is [4, 10]; expected [6, 10]");
  refuses(x, {1, 4}, state, y, "the tokens are of 1 sequences; the state holds 2");
  Tensor<float, 2> narrow({4, kShape.hidden - 1});
  refuses(x, {2, 2}, state, narrow, "y of the layer is [4, 9]; expected [4, 10]");
  Tensor<float, 3> share({2, 2, 3});
  NHA_EXPECT_ERROR(layer.forward(x, {2, 2}, state, y.view(), workspace, share.view()),
                   ArgumentError, "slot_share must be [2, 2, 4]");
  Tensor<float, 2> wide({4, 2 * kShape.hidden});
  const nha::TensorView<float, nha::Dynamic, nha::Dynamic> every_other(
      wide.data(), {4, kShape.hidden}, {2 * kShape.hidden, 2});
  NHA_EXPECT_ERROR(layer.forward(every_other, {2, 2}, state, y.view(), workspace), ArgumentError,
                   "x of the layer has stride 2 along its last axis");
}

TEST_F(LayerErrors, MissingDataIsRefused) {
  const nha::TensorView<float, nha::Dynamic, nha::Dynamic> none(nullptr, {4, kShape.hidden});
  NHA_EXPECT_ERROR(layer.forward(none, {2, 2}, state, y.view(), workspace), ArgumentError,
                   "x of the layer has no data");
  NHA_EXPECT_ERROR(layer.forward(x, {2, 2}, state, none, workspace), ArgumentError,
                   "y of the layer has no data");
}

TEST_F(LayerErrors, StatesOfOtherLayersAreRefused) {
  LayerShape shape = kShape;
  shape.slots = 4;
  LayerState<float> other(shape, options, 2);
  refuses(x, {2, 2}, other, y, "the state is that of a layer of another shape");
  LayerOptions convolving = options;
  convolving.convolution_kernel_size = 4;
  LayerState<float> with_convolutions(kShape, convolving, 2);
  refuses(x, {2, 2}, with_convolutions, y, "the state is that of a layer of another shape");
  // The kernel size counts too: this state keeps one input less.
  const NativeHybridAttention<float> four(kShape, convolving,
                                          random_attention_weights<float>(kShape, convolving));
  convolving.convolution_kernel_size = 3;
  LayerState<float> three(kShape, convolving, 2);
  NHA_EXPECT_ERROR(four.forward(x, {2, 2}, three, y.view(), workspace), ArgumentError,
                   "the state is that of a layer of another shape");
}

TEST_F(LayerErrors, OutputsWhoseElementsShareMemoryAreRefusedBeforeTheStateMoves) {
  using Rows = nha::TensorView<float, nha::Dynamic, nha::Dynamic>;
  LayerOptions convolving = options;
  convolving.convolution_kernel_size = 4;
  const NativeHybridAttention<float> convolution(
      kShape, convolving, random_attention_weights<float>(kShape, convolving));
  LayerState<float> one = convolution.make_state();
  const LayerState<float> before = one;
  Tensor<float, 1> share({kShape.query_heads});
  const NativeHybridAttention<float>::PerHead repeated(share.data(), {1, 4, kShape.query_heads},
                                                       {0, 0, 1});
  NHA_EXPECT_ERROR(convolution.forward(x, {1, 4}, one, y.view(), workspace, repeated),
                   ArgumentError, "slot_share has stride 0 along axis 1");
  EXPECT_TRUE(one == before);
  const Rows overlapping(y.data(), y.extents(), {3, 1});
  NHA_EXPECT_ERROR(convolution.forward(x, {1, 4}, one, overlapping, workspace), ArgumentError,
                   "y of the layer has stride 3 between its rows");
  EXPECT_TRUE(one == before);
}

TEST_F(LayerErrors, MemoryIsReservedBeforeTheStateMoves) {
  LayerOptions convolving = options;
  convolving.convolution_kernel_size = 4;
  const NativeHybridAttention<float> convolution(
      kShape, convolving, random_attention_weights<float>(kShape, convolving));
  LayerState<float> one = convolution.make_state();
  const LayerState<float> before = one;
  WatchingMemory memory([&] { return one == before; });
  LayerWorkspace watched{nha::Workspace(&memory), nha::Workspace(&memory)};
  convolution.forward(x, {1, 4}, one, y.view(), watched);
  EXPECT_EQ(one.tokens_seen(0), 4);
  EXPECT_EQ(memory.allocations(), 2);
  EXPECT_TRUE(memory.always());
}

TEST_F(LayerErrors, WeightsThatDoNotFitTheOptionsAreRefused) {
  auto weights = random_attention_weights<float>(kShape, options);
  weights.g_norm = Tensor<float, 1>({5});
  NHA_EXPECT_ERROR(NativeHybridAttention<float>(kShape, options, weights), ArgumentError,
                   "weight g_norm.weight is [5]; expected [20]");
}

TEST_F(LayerErrors, ABiasOfTheGatesIsThereExactlyWhereTheOptionsAskForIt) {
  const auto without = random_attention_weights<float>(kShape, options);
  EXPECT_EQ(without.f_proj_bias.size(), 0);
  options.gate_bias = true;
  NHA_EXPECT_ERROR(NativeHybridAttention<float>(kShape, options, without), ArgumentError,
                   "weight f_proj.bias is [0]; expected [6]");
}

TEST_F(LayerErrors, NaNStaysInItsSequence) {
  x(1, 0) = std::numeric_limits<float>::quiet_NaN();  // of the first sequence
  layer.forward(x, {2, 2}, state, y.view(), workspace);
  for (Index c = 0; c < kShape.hidden; ++c) {
    EXPECT_TRUE(std::isnan(y(1, c)));
    EXPECT_FALSE(std::isnan(y(2, c)));
    EXPECT_FALSE(std::isnan(y(3, c)));
  }
}

TEST_F(LayerErrors, NoTokensAreNoError) {
  Tensor<float, 2> none({0, kShape.hidden});
  layer.forward(none, {2, 0}, state, none.view(), workspace);
  EXPECT_EQ(state.tokens_seen(1), 0);
}

}  // namespace
