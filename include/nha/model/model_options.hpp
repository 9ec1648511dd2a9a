// SPDX-License-Identifier: MIT
// What a language model of Native Hybrid Attention layers is.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_spec.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Sizes and options of a model:
///
///     ModelOptions{.vocabulary = 256, .intermediate = 384, .layers = repeat(4, spec)}
struct ModelOptions {
  /// Number of different tokens.
  Index vocabulary = 0;
  /// Channels inside the SwiGLU layers.
  Index intermediate = 0;
  /// One entry for each layer, first to last. All have the same shape.hidden.
  std::vector<LayerSpec> layers = {};
  /// Added to the mean square in the norms of the residual stream.
  double norm_eps = 1e-5;
  /// The output projection is the embedding matrix.
  bool tied_head = false;

  NHA_INLINE friend bool operator==(const ModelOptions&, const ModelOptions&) = default;

  /// Channels of the residual stream; 0 without layers.
  NHA_INLINE Index hidden() const noexcept {
    return layers.empty() ? 0 : layers.front().shape.hidden;
  }
  NHA_INLINE Index layer_count() const noexcept { return static_cast<Index>(layers.size()); }
  /// Query heads of the layer that has most; 0 without layers.
  NHA_INLINE Index most_query_heads() const noexcept {
    Index most = 0;
    for (const LayerSpec& layer : layers) most = std::max(most, layer.shape.query_heads);
    return most;
  }
};

/// How to make the state of a model. Each state of a model may have other windows.
struct ModelStateOptions {
  Index batch = 1;
  /// W of each layer, or one for all, in place of all windows of the model, those of its heads too.
  /// Empty: what the model says.
  std::vector<Index> windows = {};
  /// For each layer the window of each key/value head, in place of `windows`. A layer with no
  /// entries keeps its one window. Empty: what the model says where `windows` is empty too;
  /// otherwise no layer has windows for each head.
  std::vector<std::vector<Index>> head_windows = {};
  /// How many tokens rollback() can take back.
  Index max_rollback = 0;

  NHA_INLINE friend bool operator==(const ModelStateOptions&, const ModelStateOptions&) = default;
};

/// @throws ArgumentError naming the first option that is out of range, or the layer whose hidden
///   size differs.
inline void validate(const ModelOptions& options) {
  check_size("vocabulary", options.vocabulary, 1);
  check_size("number of layers", options.layer_count(), 1);
  check_size("intermediate", options.intermediate, 1);
  for (const LayerSpec& layer : options.layers) {
    validate(layer);
    check_argument(layer.shape.hidden == options.hidden(), "hidden of layer ",
                   &layer - options.layers.data(), " is ", layer.shape.hidden,
                   "; expected that of layer 0, ", options.hidden());
  }
  check_argument(std::isfinite(options.norm_eps) && options.norm_eps >= 0, "norm_eps is ",
                 options.norm_eps, "; expected 0 or more");
}

/// The operator's options of one layer for a state.
/// @throws ArgumentError if the number of windows is not that of the layers, or a window is out of
///   range.
inline AttentionOptions layer_attention_options(const ModelOptions& model,
                                                const ModelStateOptions& state, Index layer) {
  const std::size_t layers = model.layers.size();
  const auto n = static_cast<std::size_t>(layer);
  check_argument(state.windows.size() <= 1 || state.windows.size() == layers, "windows has ",
                 state.windows.size(), " entries; expected one for each of ", layers,
                 " layers, one, or none");
  check_argument(state.head_windows.empty() || state.head_windows.size() == layers,
                 "head_windows has ", state.head_windows.size(),
                 " entries; expected one for each of ", layers, " layers, or none");
  LayerSpec spec = model.layers[n];
  AttentionOptions& options = spec.options.attention;
  if (!state.windows.empty()) {
    options.window = state.windows[state.windows.size() == 1 ? 0 : n];
    options.head_windows.clear();
  }
  if (!state.head_windows.empty()) options.head_windows = state.head_windows[n];
  validate(spec);
  return options;
}

NHA_ISA_NAMESPACE_END
