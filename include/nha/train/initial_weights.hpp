// SPDX-License-Identifier: MIT
// The weights that training starts from, and weights of zeros for gradients.
//
// The defaults are those of the published implementation: _init_weights of
// nha_fla/models/nha/modeling_nha.py of github.com/JusenD/NHA. Linear, convolution and embedding
// weights are normal with deviation 0.02. Biases are 0, the weights of norms 1. What writes to the
// residual stream is drawn like all others.
#pragma once

#include <nha/config.hpp>
#include <nha/core/checksum.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/weights.hpp>
#include <nha/train/parameters.hpp>
#include <nha/train/random.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// What the two weights of a block that write to the residual stream, o_proj and down_proj, start
/// from. N is the number of layers, each of which writes twice.
enum class ResidualStart {
  as_others,       ///< normal as all weights: what is published for Native Hybrid Attention
  scaled_normal,   ///< the same divided by sqrt(2 N), as GPT-2's and, in early releases of
                   ///< flash-linear-attention, those of Gated Slot Attention
  scaled_uniform,  ///< uniform within 1 / sqrt(inputs) divided by sqrt(2 N): "rescale" there
  zero,            ///< each block starts as the identity: "zero" there
};

/// How the weights of a model are drawn.
struct InitialWeights {
  std::uint64_t seed = 0;
  /// Of linear, convolution and embedding weights.
  double standard_deviation = 0.02;
  /// Of the embeddings alone; empty: as the others. A block adds about the size of its weights
  /// times the root of their number of inputs to the residual stream. Much smaller embeddings drown
  /// in it, and tokens are then hard to tell apart.
  std::optional<double> embedding_standard_deviation = {};
  /// Of f_proj, which makes the gates; empty: as the others. Gates that differ from token to token
  /// and slot to slot from the start let the slots hold unlike things (examples/recall).
  std::optional<double> gate_standard_deviation = {};
  /// What a bias of f_proj starts from, for each slot; must be 0 without
  /// LayerOptions::gate_bias.
  double gate_bias = 0;
  ResidualStart residual = ResidualStart::as_others;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// Weights of the shapes that a model with these options has, all of them 0: what gradients are
/// added to. Those that `trains` (see AllWeights) does not choose stay empty: as gradients they are
/// not wanted, and their weights are frozen.
/// @throws ArgumentError if an option is out of range.
template <std::floating_point T, class Trains = AllWeights>
LanguageModelWeights<T> zero_weights(const ModelOptions& options, const Trains& trains = {}) {
  validate(options);
  LanguageModelWeights<T> weights;
  weights.layers.resize(options.layers.size());
  visit_weights(options, weights, [&](const std::string& name, auto& tensor, const auto& extents) {
    if (trains(std::string_view(name))) tensor = std::remove_reference_t<decltype(tensor)>(extents);
  });
  return weights;
}

namespace detail {

template <class T>
void fill_with(const Parameter<T>& parameter, double value) noexcept {
  for (T& x : parameter.values) x = static_cast<T>(value);
}
template <class T>
void fill_with_normal(const Parameter<T>& parameter, Random random, double deviation) noexcept {
  for (T& x : parameter.values) x = static_cast<T>(deviation * random.normal());
}

/// What a weight with this name starts from.
template <class T>
void start_weight(const Parameter<T>& parameter, const InitialWeights& initial, Index layers) {
  const std::string_view name = parameter.name;
  const Random random(initial.seed, kRandomWeights, fnv1a(std::as_bytes(std::span(name))));
  if (name.ends_with(".bias")) {
    fill_with(parameter, name.ends_with("f_proj.bias") ? initial.gate_bias : 0.0);
  } else if (parameter.shape.size() == 1) {
    fill_with(parameter, 1.0);  // a norm
  } else if (name.ends_with("f_proj.weight")) {
    fill_with_normal(parameter, random,
                     initial.gate_standard_deviation.value_or(initial.standard_deviation));
  } else if (name.ends_with("embeddings.weight")) {
    fill_with_normal(parameter, random,
                     initial.embedding_standard_deviation.value_or(initial.standard_deviation));
  } else if (initial.residual != ResidualStart::as_others &&
             (name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight"))) {
    const double scale = 1 / std::sqrt(2 * static_cast<double>(layers));
    if (initial.residual == ResidualStart::scaled_normal)
      fill_with_normal(parameter, random, initial.standard_deviation * scale);
    else if (initial.residual == ResidualStart::zero)
      fill_with(parameter, 0.0);
    else {
      const double bound = scale / std::sqrt(static_cast<double>(parameter.shape.back()));
      Random drawn = random;
      for (T& x : parameter.values) x = static_cast<T>(bound * (2 * drawn.uniform() - 1));
    }
  } else {
    fill_with_normal(parameter, random, initial.standard_deviation);
  }
}

}  // namespace detail

/// Weights to start training from. Each depends on the seed, its name and its shape alone. So
/// models that differ in one option start from the same numbers where they have the same weights.
/// How far it is the same on different machines: see Random::normal().
/// @throws ArgumentError if an option is out of range, a standard deviation is negative or not
///   finite, or gate_bias is not finite, or is not 0 and the model has no such bias.
template <std::floating_point T>
LanguageModelWeights<T> initial_weights(const ModelOptions& options,
                                        const InitialWeights& initial = {}) {
  const auto check_deviation = [](const char* name, double value) {
    check_argument(std::isfinite(value) && value >= 0, name, " is ", value, "; expected 0 or more");
  };
  check_deviation("standard_deviation", initial.standard_deviation);
  check_deviation("embedding_standard_deviation", initial.embedding_standard_deviation.value_or(0));
  check_deviation("gate_standard_deviation", initial.gate_standard_deviation.value_or(0));
  check_argument(std::isfinite(initial.gate_bias), "gate_bias is ", initial.gate_bias,
                 "; expected a finite number");
  const bool has_gate_bias = std::ranges::any_of(
      options.layers, [](const LayerSpec& layer) { return layer.options.gate_bias; });
  check_argument(initial.gate_bias == 0 || has_gate_bias, "gate_bias is ", initial.gate_bias,
                 "; expected 0, for the layers have no gate bias");
  LanguageModelWeights<T> weights = zero_weights<T>(options);
  for (const Parameter<T>& parameter : parameters(options, weights))
    detail::start_weight(parameter, initial, options.layer_count());
  return weights;
}

NHA_ISA_NAMESPACE_END
