// SPDX-License-Identifier: MIT
// The weights of a layer, a block and a model, with the name and shape each has in a checkpoint.
//
// visit_model_weights() is the one list of them: reading a checkpoint, checking shapes and counting
// parameters all walk it.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/model_options.hpp>
#include <nha/nn/named_weights.hpp>

#include <concepts>
#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Weights of a Native Hybrid Attention layer; linear ones are [out, in]. Those that the layer's
/// options do not ask for stay empty.
template <std::floating_point T>
struct AttentionWeights {
  Tensor<T, 2> q_proj, k_proj, v_proj;
  Tensor<T, 2> f_proj;       ///< forget gates: row h * M + m is slot m of key/value head h
  Tensor<T, 1> f_proj_bias;  ///< of LayerOptions::gate_bias
  Tensor<T, 2> o_proj;
  Tensor<T, 1> g_norm;                        ///< of OutputForm::silu_norm
  Tensor<T, 2> feature_map;                   ///< of FeatureMap::t2r
  Tensor<T, 3> q_conv1d, k_conv1d, v_conv1d;  ///< [channels, 1, kernel size]
  Tensor<T, 1> q_conv_bias, k_conv_bias, v_conv_bias;
};

template <std::floating_point T>
struct DecoderBlockWeights {
  Tensor<T, 1> attn_norm;
  AttentionWeights<T> attn;
  Tensor<T, 1> mlp_norm;
  FeedForwardWeights<T> mlp;
};

/// Whether any of the tensors is there. Of gradients: whether any is wanted.
template <std::floating_point T>
bool has_any(const AttentionWeights<T>& w) noexcept {
  return detail::any_present(w.q_proj, w.k_proj, w.v_proj, w.f_proj, w.f_proj_bias, w.o_proj,
                             w.g_norm, w.feature_map, w.q_conv1d, w.k_conv1d, w.v_conv1d,
                             w.q_conv_bias, w.k_conv_bias, w.v_conv_bias);
}
template <std::floating_point T>
bool has_any(const DecoderBlockWeights<T>& w) noexcept {
  return detail::any_present(w.attn_norm, w.mlp_norm) || has_any(w.attn) || has_any(w.mlp);
}

/// References to the weights of a block that lie elsewhere, under the names of DecoderBlockWeights.
template <class Vector, class Attention, class FeedForward>
struct DecoderBlockWeightRefs {
  Vector& attn_norm;
  Attention& attn;
  Vector& mlp_norm;
  FeedForward& mlp;
};

template <std::floating_point T>
struct LanguageModelWeights {
  Tensor<T, 2> embeddings;  ///< [vocabulary, hidden]
  std::vector<DecoderBlockWeights<T>> layers;
  Tensor<T, 1> norm;
  Tensor<T, 2> head;  ///< [vocabulary, hidden]; empty where it is tied to the embeddings
};

/// Calls visit(name, tensor, extents) for each weight of a layer with these options. The arguments
/// are its name in a checkpoint, the tensor, and the extents it must have.
template <class Weights, class Visit>
NHA_COLD void visit_attention_weights(const LayerShape& shape, const LayerOptions& options,
                                      const std::string& prefix, Weights& weights, Visit&& visit) {
  using Sizes1 = Tensor<float, 1>::Sizes;
  using Sizes2 = Tensor<float, 2>::Sizes;
  using Sizes3 = Tensor<float, 3>::Sizes;
  const Index q = shape.query_heads * shape.key_dim;
  const Index k = shape.kv_heads * shape.key_dim;
  const Index v = shape.kv_heads * shape.value_dim;
  const Index o = shape.query_heads * shape.value_dim;
  visit(prefix + "q_proj.weight", weights.q_proj, Sizes2{q, shape.hidden});
  visit(prefix + "k_proj.weight", weights.k_proj, Sizes2{k, shape.hidden});
  visit(prefix + "v_proj.weight", weights.v_proj, Sizes2{v, shape.hidden});
  if (shape.slots > 0) {
    const Index gates = shape.kv_heads * shape.slots;
    visit(prefix + "f_proj.weight", weights.f_proj, Sizes2{gates, shape.hidden});
    if (options.gate_bias) visit(prefix + "f_proj.bias", weights.f_proj_bias, Sizes1{gates});
  }
  visit(prefix + "o_proj.weight", weights.o_proj, Sizes2{shape.hidden, o});
  if (options.output == OutputForm::silu_norm)
    visit(prefix + "g_norm.weight", weights.g_norm, Sizes1{o});
  if (options.feature_map == FeatureMap::t2r)
    visit(prefix + "feature_map.layer.weight", weights.feature_map,
          Sizes2{shape.key_dim, shape.key_dim});
  const Index kernel_size = options.convolution_kernel_size;
  if (kernel_size == 0) return;
  visit(prefix + "q_conv1d.weight", weights.q_conv1d, Sizes3{q, 1, kernel_size});
  visit(prefix + "k_conv1d.weight", weights.k_conv1d, Sizes3{k, 1, kernel_size});
  visit(prefix + "v_conv1d.weight", weights.v_conv1d, Sizes3{v, 1, kernel_size});
  if (!options.convolution_bias) return;
  visit(prefix + "q_conv1d.bias", weights.q_conv_bias, Sizes1{q});
  visit(prefix + "k_conv1d.bias", weights.k_conv_bias, Sizes1{k});
  visit(prefix + "v_conv1d.bias", weights.v_conv_bias, Sizes1{v});
}

/// The same for a whole model whose parts lie anywhere. `block(n)` returns something with the
/// members of DecoderBlockWeights for block n.
template <class Matrix, class Block, class Vector, class Visit>
NHA_COLD void visit_model_weights(const ModelOptions& options, Matrix& embeddings, Block&& block,
                                  Vector& norm, Matrix& head, Visit&& visit) {
  using Sizes1 = Tensor<float, 1>::Sizes;
  using Sizes2 = Tensor<float, 2>::Sizes;
  const Index hidden = options.hidden();
  visit(std::string("model.embeddings.weight"), embeddings, Sizes2{options.vocabulary, hidden});
  for (Index n = 0; n < options.layer_count(); ++n) {
    const LayerSpec& spec = options.layers[static_cast<std::size_t>(n)];
    auto&& layer = block(n);
    const std::string prefix = "model.layers." + std::to_string(n) + ".";
    visit(prefix + "attn_norm.weight", layer.attn_norm, Sizes1{hidden});
    visit_attention_weights(spec.shape, spec.options, prefix + "attn.", layer.attn, visit);
    visit(prefix + "mlp_norm.weight", layer.mlp_norm, Sizes1{hidden});
    visit_feed_forward_weights(hidden, options.intermediate, prefix + "mlp.", layer.mlp, visit);
  }
  visit(std::string("model.norm.weight"), norm, Sizes1{hidden});
  if (!options.tied_head)
    visit(std::string("lm_head.weight"), head, Sizes2{options.vocabulary, hidden});
}

/// The same for the weights of a whole model; weights.layers must have as many entries as
/// options.layers.
template <class Weights, class Visit>
NHA_COLD void visit_weights(const ModelOptions& options, Weights& weights, Visit&& visit) {
  visit_model_weights(
      options, weights.embeddings,
      [&](Index n) -> auto& { return weights.layers[static_cast<std::size_t>(n)]; }, weights.norm,
      weights.head, visit);
}

namespace detail {

/// That all weights of a model are there.
/// @throws ArgumentError naming the first that is not, or has another shape.
template <std::floating_point T>
void check_weights(const ModelOptions& options, const LanguageModelWeights<T>& weights) {
  check_argument(weights.layers.size() == options.layers.size(), "the weights are of ",
                 weights.layers.size(), " layers; expected ", options.layers.size());
  nha::visit_weights(options, weights, CheckWeights());
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
