// SPDX-License-Identifier: MIT
#include <nha/model/block_backward.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <span>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include "support/directional_derivative.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

/// Calls visit(name, values) for the weights of a block.
template <class Weights, class Visit>
void visit_block(const nha::ModelOptions& options, Weights& weights, Visit&& visit) {
  const auto one = [&](const std::string& name, auto& tensor, const auto&) {
    visit(name, tensor.values());
  };
  visit("attn_norm", weights.attn_norm.values());
  const nha::LayerSpec& layer = options.layers.front();
  nha::visit_attention_weights(layer.shape, layer.options, "attn.", weights.attn, one);
  visit("mlp_norm", weights.mlp_norm.values());
  nha::visit_feed_forward_weights(options.hidden(), options.intermediate, "mlp.", weights.mlp, one);
}

/// A block, tokens for it and a loss: the sum of all it computes times fixed numbers.
struct BlockProblem {
  nha::ModelOptions options;
  Index batch = 2, tokens = 7;

  nha::DecoderBlockWeights<double> weights =
      std::move(nha_test::random_model_weights<double>(options, 3).layers.front());
  nha::Tensor<double, 2> x =
      nha_test::random_tensor<double, 2>({batch * tokens, options.hidden()}, 4);
  nha::Tensor<double, 2> dy = nha_test::random_tensor<double, 2>(x.extents(), 5);
  nha::Tensor<double, 3> d_lse =
      nha_test::random_tensor<double, 3>({batch, tokens, options.most_query_heads()}, 6);
  nha::Tensor<double, 3> d_share = nha_test::random_tensor<double, 3>(d_lse.extents(), 7);

  /// The loss; with gradients, adds to them and writes that of x to dx.
  double run(nha::DecoderBlockWeights<double>* gradients = nullptr,
             nha::Tensor<double, 2>* dx = nullptr) const {
    constexpr double kNormEps = 0.25;  // large enough to be seen
    const nha::LayerSpec& layer = options.layers.front();
    const nha::DecoderBlock<double> block(layer, options.intermediate, kNormEps, weights);
    const nha::DecoderBlockBackward<double> back(block);
    const nha::TokenBatch of{batch, tokens};
    const auto sections = [&](nha::Arena& cursor) {
      const auto table = nha::RotaryTable<double>::take(cursor, layer.shape.key_dim, of.rows());
      return std::tuple(table, block.take_activations(cursor, of.rows(), nha::Keep::for_backward),
                        back.take_scratch(cursor, of.rows()));
    };
    nha::Arena sizes(nullptr);
    sections(sizes);
    nha::Buffer memory(sizes.used());
    nha::Arena cursor(memory.data());
    const auto [table, kept, scratch] = sections(cursor);
    auto state = block.attention().make_state(batch);
    const auto empty = state;
    table.fill(of, state, layer.options.rope_theta);
    nha::Tensor<double, 2> y = x;
    nha::Workspace kernel;
    block.run(y.view(), of, table, state, kept, kernel,
              block.attention().per_head(kept.attention.slot_share, of), {}, nha::Serial{});
    double sum = 0;
    for (Index i = 0; i < y.size(); ++i) sum += y.data()[i] * dy.data()[i];
    for (Index i = 0; i < d_lse.size(); ++i) {
      sum += kept.attention.lse[i] * d_lse.data()[i];
      sum += kept.attention.slot_share[i] * d_share.data()[i];
    }
    if (gradients == nullptr) return sum;
    *dx = dy;
    auto lse = d_lse, share = d_share;
    back.run(dx->view(), of, table, empty, kept, lse.view(), share.view(), true, *gradients,
             scratch, kernel, nha::Serial{});
    return sum;
  }
  nha::DecoderBlockWeights<double> zeros() const {
    nha::DecoderBlockWeights<double> gradients = weights;
    visit_block(options, gradients, [](const std::string&, std::span<double> values) {
      std::fill(values.begin(), values.end(), 0.0);
    });
    return gradients;
  }
};

void expect_block_gradients(BlockProblem problem) {
  auto gradients = problem.zeros();
  nha::Tensor<double, 2> dx;
  problem.run(&gradients, &dx);
  const auto loss = [&] { return problem.run(); };
  nha_test::expect_directional_derivative("x", problem.x.values(), dx.values(), loss);
  std::vector<std::span<double>> found;
  visit_block(problem.options, gradients,
              [&](const std::string&, std::span<double> values) { found.push_back(values); });
  std::size_t n = 0;
  visit_block(problem.options, problem.weights,
              [&](const std::string& name, std::span<double> values) {
                nha_test::expect_directional_derivative(name, values, found[n++], loss);
              });
  EXPECT_EQ(n, found.size());
}

TEST(DecoderBlockBackward, DerivativesOfTheStreamAndAllWeights) {
  expect_block_gradients({nha_test::small_model(nha::nha_v1(3))});
  expect_block_gradients({nha_test::small_model(nha::nha_v2(4))});
}
TEST(DecoderBlockBackward, DerivativesWithConvolutionsAndGateBias) {
  nha::LayerOptions layer = nha_test::convolving();
  layer.convolution_bias = true;
  layer.gate_bias = true;
  expect_block_gradients({nha_test::small_model(layer)});
}
TEST(DecoderBlockBackward, DerivativesOfASingleToken) {
  // Nothing has left the window yet, so neither x nor any weight has a say in the slots.
  BlockProblem problem{.options = nha_test::small_model(nha::nha_v1(3)), .batch = 1, .tokens = 1};
  auto gradients = problem.zeros();
  nha::Tensor<double, 2> dx;
  problem.run(&gradients, &dx);
  nha_test::expect_directional_derivative("x", problem.x.values(), dx.values(),
                                          [&] { return problem.run(); });
  for (const double value : gradients.attn.f_proj.values()) EXPECT_EQ(value, 0);
}
TEST(DecoderBlockBackward, AddsToTheGradientsOfWeights) {
  const BlockProblem problem{nha_test::small_model(nha::nha_v2(3))};
  auto once = problem.zeros(), twice = problem.zeros();
  nha::Tensor<double, 2> dx, dx_again;
  problem.run(&once, &dx);
  problem.run(&twice, &dx_again);
  problem.run(&twice, &dx_again);
  for (Index i = 0; i < dx.size(); ++i) EXPECT_EQ(dx.data()[i], dx_again.data()[i]);
  std::vector<std::span<double>> expected;
  visit_block(problem.options, once,
              [&](const std::string&, std::span<double> values) { expected.push_back(values); });
  std::size_t n = 0;
  visit_block(problem.options, twice, [&](const std::string& name, std::span<double> values) {
    for (std::size_t i = 0; i < values.size(); ++i)
      ASSERT_NEAR(values[i], 2 * expected[n][i], 1e-12) << name;
    ++n;
  });
}

}  // namespace
