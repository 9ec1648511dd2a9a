// SPDX-License-Identifier: MIT
// What a Native Hybrid Attention layer is: its shape, its options, and the published presets.
//
// The options are independent of each other; a preset is a function that fills them in. A layout
// that comes later is one more such function. Where it computes something new, there is one more
// option.
#pragma once

#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/nn/options.hpp>

#include <cmath>

NHA_ISA_NAMESPACE_BEGIN

/// What is done to values.
enum class ValueActivation { none, silu };

/// What is done to the heads' outputs before the output projection.
enum class OutputForm {
  plain,      ///< nothing: W_o o
  silu_norm,  ///< W_o RMSNorm(silu(o)), the norm over all heads together
};

/// Sizes of a layer.
struct LayerShape {
  /// Channels of the residual stream.
  Index hidden = 0;
  /// Query heads: rows of q_proj / key_dim. A multiple of kv_heads.
  Index query_heads = 1;
  Index kv_heads = 1;
  Index key_dim = 64;
  Index value_dim = 64;
  Index slots = 64;

  NHA_INLINE friend bool operator==(const LayerShape&, const LayerShape&) = default;
};

/// Options of a layer. Those of the operator (window, slot_delay, scale, empty_slots) may be chosen
/// anew for each state; the others belong to the weights.
struct LayerOptions {
  AttentionOptions attention = {};
  FeatureMap feature_map = FeatureMap::identity;
  ValueActivation value_activation = ValueActivation::silu;
  OutputForm output = OutputForm::silu_norm;
  /// g = log_sigmoid(W_f x + b_f) / gate_divisor.
  double gate_divisor = 8;
  /// Whether there is a b_f. No published layer has it; it lets slots begin with a long memory.
  bool gate_bias = false;
  double rope_theta = 10000;
  /// Added to the mean square in the output norm.
  double output_norm_eps = 1e-5;
  /// Of a causal depthwise convolution, followed by silu, over q, k and v; 0: there is none.
  Index convolution_kernel_size = 0;
  bool convolution_bias = false;

  NHA_INLINE friend bool operator==(const LayerOptions&, const LayerOptions&) = default;
};

/// The from-scratch layer behind the paper's tables. Queries and keys meet the slots raw, logits
/// are scaled by Dk^-1/2. A token enters the slots when it leaves the window.
inline LayerOptions nha_v1(Index window = 64) {
  LayerOptions options;
  options.attention.window = window;
  return options;
}

/// The newest published from-scratch layer. Queries and keys of the slots go through swish, the
/// scale is 1, and a token enters the slots at once. `window` counts the current token; the
/// published configurations name one less.
inline LayerOptions nha_v2(Index window = 64) {
  LayerOptions options;
  options.attention.window = window;
  options.attention.slot_delay = 0;
  options.attention.softmax_scale = 1.0;
  options.feature_map = FeatureMap::swish;
  return options;
}

/// Gated Slot Attention: the slots alone.
inline LayerOptions gsa() {
  return nha_v2(0);
}

/// Shape of the state of a layer.
inline AttentionShape attention_shape(const LayerShape& shape, Index batch) {
  return {.batch = batch,
          .kv_heads = shape.kv_heads,
          .key_dim = shape.key_dim,
          .value_dim = shape.value_dim,
          .slots = shape.slots};
}

/// @throws ArgumentError naming the first size that is out of range.
inline void validate(const LayerShape& shape) {
  check_size("hidden", shape.hidden, 1);
  validate(attention_shape(shape, 1));
  check_argument(shape.query_heads >= 1 && shape.query_heads <= kLargestSize &&
                     shape.query_heads % shape.kv_heads == 0,
                 "query_heads is ", shape.query_heads, "; expected a multiple of the ",
                 shape.kv_heads, " key/value heads");
}

/// @throws ArgumentError naming the first option that is out of range for the shape.
inline void validate(const LayerOptions& options, const LayerShape& shape) {
  validate(options.attention, shape.kv_heads);
  const auto positive = [](const char* name, double value) {
    check_argument(std::isfinite(value) && value > 0, name, " is ", value,
                   "; expected a positive number");
  };
  positive("gate_divisor", options.gate_divisor);
  positive("rope_theta", options.rope_theta);
  check_argument(std::isfinite(options.output_norm_eps) && options.output_norm_eps >= 0,
                 "output_norm_eps is ", options.output_norm_eps, "; expected 0 or more");
  check_argument(
      options.convolution_kernel_size >= 0 && options.convolution_kernel_size <= kMostKernelSize,
      "convolution_kernel_size is ", options.convolution_kernel_size, "; expected 0 to ",
      kMostKernelSize);
  check_argument(!has_window(options.attention) || shape.key_dim % 2 == 0, "key_dim is ",
                 shape.key_dim, "; the rotary embedding of the window needs an even number");
}

NHA_ISA_NAMESPACE_END
