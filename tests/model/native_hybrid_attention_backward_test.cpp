// SPDX-License-Identifier: MIT
#include <nha/model/native_hybrid_attention_backward.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "support/directional_derivative.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

/// A layer, tokens for it and a loss: the sum of its outputs times fixed numbers.
struct LayerProblem {
  nha::LayerShape shape;
  nha::LayerOptions options;
  std::vector<std::int64_t> cu_seqlens = {};
  Index batch = 2, tokens = 9;

  nha::AttentionWeights<double> weights =
      nha_test::random_attention_weights<double>(shape, options, 3);
  nha::Tensor<double, 2> x = nha_test::random_tensor<double, 2>({batch * tokens, shape.hidden}, 4);
  nha::Tensor<double, 2> dy = nha_test::random_tensor<double, 2>({batch * tokens, shape.hidden}, 5);
  nha::Tensor<double, 3> d_lse =
      nha_test::random_tensor<double, 3>({batch, tokens, shape.query_heads}, 6);
  nha::Tensor<double, 3> d_share =
      nha_test::random_tensor<double, 3>({batch, tokens, shape.query_heads}, 7);

  nha::TokenBatch token_batch() const { return {batch, tokens, cu_seqlens}; }
  Index sequences() const { return token_batch().sequences(); }

  /// Activations of one call, kept.
  struct Kept {
    nha::Buffer memory;
    nha::RotaryTable<double> table;
    nha::NativeHybridAttention<double>::Activations activations;
    nha::Tensor<double, 2> y;
  };
  Kept run(const nha::NativeHybridAttention<double>& layer) const {
    const auto sections = [&](nha::Arena& cursor) {
      const auto table = nha::RotaryTable<double>::take(cursor, shape.key_dim, batch * tokens);
      return std::pair(table,
                       layer.take_activations(cursor, batch * tokens, nha::Keep::for_backward));
    };
    nha::Arena sizes(nullptr);
    sections(sizes);
    nha::Buffer memory(sizes.used());
    nha::Arena cursor(memory.data());
    const auto [table, activations] = sections(cursor);
    auto state = layer.make_state(sequences());
    table.fill(token_batch(), state, options.rope_theta);
    nha::Tensor<double, 2> y(x.extents());
    nha::Workspace kernel;
    layer.run(x, token_batch(), table, state, y.view(), activations, kernel,
              layer.per_head(activations.slot_share, token_batch()), {}, nha::Serial{});
    return {std::move(memory), table, activations, std::move(y)};
  }
  double loss() const {
    const nha::NativeHybridAttention<double> layer(shape, options, weights);
    const Kept kept = run(layer);
    double sum = 0;
    for (Index i = 0; i < kept.y.size(); ++i) sum += kept.y.data()[i] * dy.data()[i];
    for (Index i = 0; i < d_lse.size(); ++i) {
      sum += kept.activations.lse[i] * d_lse.data()[i];
      sum += kept.activations.slot_share[i] * d_share.data()[i];
    }
    return sum;
  }
  /// The gradient of the loss; of the weights it is added to `gradients`.
  nha::Tensor<double, 2> backward(nha::AttentionWeights<double>& gradients) {
    const nha::NativeHybridAttention<double> layer(shape, options, weights);
    const nha::NativeHybridAttentionBackward<double> back(layer);
    const Kept kept = run(layer);
    nha::Arena sizes(nullptr);
    back.take_scratch(sizes, batch * tokens);
    nha::Buffer memory(sizes.used());
    nha::Arena cursor(memory.data());
    const auto scratch = back.take_scratch(cursor, batch * tokens);
    nha::Tensor<double, 2> dx(x.extents());
    nha::Workspace kernel;
    back.run(x, token_batch(), kept.table, layer.make_state(sequences()), kept.activations,
             {.y = dy, .lse = d_lse, .slot_share = d_share}, dx.view(), gradients, scratch, kernel,
             nha::Serial{});
    return dx;
  }
};

void expect_gradients(LayerProblem problem) {
  nha::AttentionWeights<double> gradients;
  nha::visit_attention_weights(problem.shape, problem.options, "", gradients,
                               [](const std::string&, auto& tensor, const auto& extents) {
                                 tensor = std::remove_reference_t<decltype(tensor)>(extents);
                               });
  const nha::Tensor<double, 2> dx = problem.backward(gradients);
  const auto loss = [&] { return problem.loss(); };
  nha_test::expect_directional_derivative("x", problem.x.values(), dx.values(), loss);
  std::vector<std::span<const double>> found;
  nha::visit_attention_weights(problem.shape, problem.options, "", gradients,
                               [&](const std::string&, const auto& tensor, const auto&) {
                                 found.push_back(tensor.values());
                               });
  std::size_t n = 0;
  nha::visit_attention_weights(problem.shape, problem.options, "", problem.weights,
                               [&](const std::string& name, auto& tensor, const auto&) {
                                 nha_test::expect_directional_derivative(name, tensor.values(),
                                                                         found[n++], loss);
                               });
}

nha::LayerShape grouped_heads() {
  return {.hidden = 10, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3};
}

TEST(NativeHybridAttentionBackward, DerivativesOfThePublishedLayers) {
  expect_gradients({grouped_heads(), nha::nha_v1(3)});
  expect_gradients({grouped_heads(), nha::nha_v2(4)});
  expect_gradients({grouped_heads(), nha::gsa()});
}
TEST(NativeHybridAttentionBackward, DerivativesOfEveryFeatureMap) {
  for (const auto map : {nha::FeatureMap::relu, nha::FeatureMap::t2r}) {
    nha::LayerOptions options = nha::nha_v2(3);
    options.feature_map = map;
    expect_gradients({grouped_heads(), options});
  }
}
TEST(NativeHybridAttentionBackward, DerivativesOfShortConvolutionsAndGateBias) {
  nha::LayerOptions options = nha::nha_v2(3);
  options.convolution_kernel_size = 3;
  options.convolution_bias = true;
  options.gate_bias = true;
  expect_gradients({grouped_heads(), options});
}
TEST(NativeHybridAttentionBackward, DerivativesOfPlainValuesAndOutputs) {
  nha::LayerOptions options = nha::nha_v1(3);
  options.value_activation = nha::ValueActivation::none;
  options.output = nha::OutputForm::plain;
  options.attention.empty_slots = nha::EmptySlots::mass_corrected;
  expect_gradients({grouped_heads(), options});
}
TEST(NativeHybridAttentionBackward, DerivativesOfAWindowWithoutSlots) {
  nha::LayerShape shape = grouped_heads();
  shape.slots = 0;
  expect_gradients({shape, nha::nha_v1(4)});
}
TEST(NativeHybridAttentionBackward, DerivativesOfPackedSequences) {
  nha::LayerOptions options = nha::nha_v2(3);
  options.convolution_kernel_size = 2;
  expect_gradients({.shape = grouped_heads(),
                    .options = options,
                    .cu_seqlens = {0, 4, 5, 12},
                    .batch = 1,
                    .tokens = 12});
}
TEST(NativeHybridAttentionBackward, WeightGradientsOfCallsAddUp) {
  LayerProblem problem{grouped_heads(), nha::nha_v1(3)};
  nha::AttentionWeights<double> once, twice;
  for (auto* gradients : {&once, &twice})
    nha::visit_attention_weights(problem.shape, problem.options, "", *gradients,
                                 [](const std::string&, auto& tensor, const auto& extents) {
                                   tensor = std::remove_reference_t<decltype(tensor)>(extents);
                                 });
  problem.backward(once);
  problem.backward(twice);
  problem.backward(twice);
  for (Index i = 0; i < once.f_proj.size(); ++i)
    EXPECT_NEAR(twice.f_proj.data()[i], 2 * once.f_proj.data()[i], 1e-12);
}

}  // namespace
