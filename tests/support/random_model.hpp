// SPDX-License-Identifier: MIT
// Random weights for layers and models of any options, and random tokens.
#pragma once

#include <nha/model/language_model.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace nha_test {

using nha::Index;

/// A visitor that makes each weight and fills it: matrices with numbers that keep activations near
/// 1, vectors (norms, biases) with numbers around 1.
template <class T>
struct RandomWeights {
  std::mt19937 random;

  template <int Rank>
  void operator()(const std::string&, nha::Tensor<T, Rank>& weight,
                  const typename nha::Tensor<T, Rank>::Sizes& extents) {
    weight = nha::Tensor<T, Rank>(extents);
    std::normal_distribution<double> normal;
    const double spread =
        Rank == 1 ? 0.2 : 1 / std::sqrt(static_cast<double>(extents[extents.size() - 1]));
    for (T& value : weight.values())
      value = static_cast<T>((Rank == 1 ? 1.0 : 0.0) + spread * normal(random));
  }
};

/// Options of a layer with short convolutions, whose state is more than slots and window.
inline nha::LayerOptions convolving(Index kernel_size = 4) {
  nha::LayerOptions options = nha::nha_v1(3);
  options.convolution_kernel_size = kernel_size;
  return options;
}

template <class T>
nha::AttentionWeights<T> random_attention_weights(const nha::LayerShape& shape,
                                                  const nha::LayerOptions& options,
                                                  std::uint32_t seed = 1) {
  nha::AttentionWeights<T> weights;
  RandomWeights<T> fill{std::mt19937(seed)};
  nha::visit_attention_weights(shape, options, "", weights, fill);
  return weights;
}

template <class T>
nha::LanguageModelWeights<T> random_model_weights(const nha::ModelOptions& options,
                                                  std::uint32_t seed = 1) {
  nha::LanguageModelWeights<T> weights;
  weights.layers.resize(options.layers.size());
  RandomWeights<T> fill{std::mt19937(seed)};
  nha::visit_weights(options, weights, fill);
  return weights;
}

template <class T>
nha::LanguageModel<T> random_model(const nha::ModelOptions& options, std::uint32_t seed = 1) {
  return nha::LanguageModel<T>(options, random_model_weights<T>(options, seed));
}

/// A small model with grouped queries.
inline nha::ModelOptions small_model(const nha::LayerOptions& layer = nha::nha_v2(5)) {
  const nha::LayerShape shape{
      .hidden = 12, .query_heads = 4, .kv_heads = 2, .key_dim = 6, .value_dim = 5, .slots = 3};
  return {.vocabulary = 11,
          .intermediate = 20,
          .layers = nha::repeat(2, {.shape = shape, .options = layer})};
}

/// Calls change(layer) for each layer.
template <class Change>
void change_layers(nha::ModelOptions& options, const Change& change) {
  for (nha::LayerSpec& layer : options.layers) change(layer);
}
/// Gives each layer its own window.
inline void set_windows(nha::ModelOptions& options, const std::vector<Index>& windows) {
  for (std::size_t n = 0; n < windows.size(); ++n)
    options.layers[n].options.attention.window = windows[n];
}

/// A model of three layers that differ in everything that layers may differ in.
inline nha::ModelOptions unlike_layers() {
  nha::ModelOptions options = small_model(nha::nha_v1(3));
  options.layers.push_back(options.layers.front());
  nha::LayerSpec& second = options.layers[1];
  second.shape = {
      .hidden = 12, .query_heads = 2, .kv_heads = 1, .key_dim = 4, .value_dim = 7, .slots = 5};
  second.options = nha::nha_v2(6);
  second.options.feature_map = nha::FeatureMap::t2r;
  second.options.rope_theta = 500;
  second.options.convolution_kernel_size = 3;
  second.options.gate_bias = true;
  nha::LayerSpec& third = options.layers[2];
  third.shape = {
      .hidden = 12, .query_heads = 6, .kv_heads = 3, .key_dim = 6, .value_dim = 3, .slots = 0};
  third.options.output = nha::OutputForm::plain;
  third.options.value_activation = nha::ValueActivation::none;
  third.options.attention.head_windows = {2, 9, 4};
  return options;
}

inline nha::Tensor<std::int32_t, 2> random_tokens(Index batch, Index count, Index vocabulary,
                                                  std::uint32_t seed = 1) {
  nha::Tensor<std::int32_t, 2> tokens({batch, count});
  std::mt19937 random(seed);
  for (std::int32_t& token : tokens.values())
    token = static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(vocabulary));
  return tokens;
}

template <class T, int Rank>
nha::Tensor<T, Rank> random_tensor(const typename nha::Tensor<T, Rank>::Sizes& extents,
                                   std::uint32_t seed = 1) {
  nha::Tensor<T, Rank> tensor(extents);
  std::mt19937 random(seed);
  std::normal_distribution<double> normal;
  for (T& value : tensor.values()) value = static_cast<T>(normal(random));
  return tensor;
}

}  // namespace nha_test
