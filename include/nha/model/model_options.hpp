// SPDX-License-Identifier: MIT
// What a language model of Native Hybrid Attention layers is.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/model/layer_options.hpp>

#include <cmath>
#include <cstddef>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Sizes and options of a model. All layers share `shape` and `layer`, except that each may have
/// its own window.
struct ModelOptions {
  /// Number of different tokens.
  Index vocabulary = 0;
  Index layers = 0;
  /// Channels inside the SwiGLU layers.
  Index intermediate = 0;
  LayerShape shape = {};
  LayerOptions layer = {};
  /// W of each layer; empty: all layers have layer.attention.window. Where layer.attention has
  /// head_windows, all layers have those instead.
  std::vector<Index> windows = {};
  /// Added to the mean square in the norms of the residual stream.
  double norm_eps = 1e-5;
  /// The output projection is the embedding matrix.
  bool tied_head = false;

  NHA_INLINE friend bool operator==(const ModelOptions&, const ModelOptions&) = default;
};

/// How to make the state of a model; every state of a model may have other windows.
struct ModelStateOptions {
  Index batch = 1;
  /// W of each layer, or one for all, in place of all windows of the model, those of its heads too;
  /// empty: what the model says.
  std::vector<Index> windows = {};
  /// For each layer the window of each key/value head, in place of `windows`; a layer with no
  /// entries keeps its one window. Empty: where `windows` is empty too what the model says, else no
  /// layer has windows for each head.
  std::vector<std::vector<Index>> head_windows = {};
  /// How many tokens rollback() can take back.
  Index max_rollback = 0;

  NHA_INLINE friend bool operator==(const ModelStateOptions&, const ModelStateOptions&) = default;
};

/// @throws ArgumentError naming the first option that is out of range.
inline void validate(const ModelOptions& options) {
  check_size("vocabulary", options.vocabulary, 1);
  check_size("layers", options.layers, 1);
  check_size("intermediate", options.intermediate, 1);
  validate(options.shape);
  validate(options.layer, options.shape);
  check_argument(
      options.windows.empty() || options.windows.size() == static_cast<std::size_t>(options.layers),
      "windows has ", options.windows.size(), " entries; expected one for each of ", options.layers,
      " layers, or none");
  check_argument(std::isfinite(options.norm_eps) && options.norm_eps >= 0, "norm_eps is ",
                 options.norm_eps, "; expected 0 or more");
}

/// The operator's options of one layer for a state.
/// @throws ArgumentError if the number of windows is not that of the layers, or a window is out of
///   range.
inline AttentionOptions layer_attention_options(const ModelOptions& model,
                                                const ModelStateOptions& state, Index layer) {
  const auto layers = static_cast<std::size_t>(model.layers);
  const auto n = static_cast<std::size_t>(layer);
  check_argument(state.windows.size() <= 1 || state.windows.size() == layers, "windows has ",
                 state.windows.size(), " entries; expected one for each of ", layers,
                 " layers, one, or none");
  check_argument(state.head_windows.empty() || state.head_windows.size() == layers,
                 "head_windows has ", state.head_windows.size(),
                 " entries; expected one for each of ", layers, " layers, or none");
  AttentionOptions options = model.layer.attention;
  if (!model.windows.empty()) options.window = model.windows[n];
  if (!state.windows.empty()) {
    options.window = state.windows[state.windows.size() == 1 ? 0 : n];
    options.head_windows.clear();
  }
  if (!state.head_windows.empty()) options.head_windows = state.head_windows[n];
  LayerOptions checked = model.layer;
  checked.attention = options;
  validate(checked, model.shape);
  return options;
}

NHA_ISA_NAMESPACE_END
