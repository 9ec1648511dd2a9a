// SPDX-License-Identifier: MIT
// The keys of a config.json that say what a layer is, read into a LayerSpec. Also the names and
// limits that reader and writer of configurations share.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/names.hpp>
#include <nha/core/options.hpp>
#include <nha/io/config_values.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_spec.hpp>

#include <cmath>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

NHA_NAMESPACE_BEGIN

/// Whose layer a config.json describes. The published ones share their keys but not what they mean:
/// one ignores feature_map, the other counts the window without the current token.
enum class ConfigLayout {
  /// Found from the file: gsa where model_type says so, plain where it has the key empty_slots,
  /// which no published configuration has. Otherwise the file does not say, which is an error.
  automatic,
  /// Keys mean what the options of this library mean: W = window_size, slot_delay W unless given,
  /// scale Dk^-1/2 unless given, feature_map as given.
  ///
  /// Further keys say what published layers all have alike. They are key_dim and value_dim (else
  /// head_dim), num_slots 0, head_windows (one for each key/value head), value_activation,
  /// output_form, output_norm_eps (else norm_eps) and gate_bias.
  ///
  /// Where layers differ in their windows alone, `windows` has one for each. Where they differ in
  /// more, `layers` has an object for each. It holds the keys in which the layer differs from the
  /// rest of the file; null means left out.
  plain,
  nha_v1,
  nha_v2,
  gsa,
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline constexpr Named<FeatureMap> kFeatureMapNames[] = {{"identity", FeatureMap::identity},
                                                         {"swish", FeatureMap::swish},
                                                         {"relu", FeatureMap::relu},
                                                         {"t2r", FeatureMap::t2r}};
inline constexpr Named<ValueActivation> kValueActivationNames[] = {{"none", ValueActivation::none},
                                                                   {"silu", ValueActivation::silu}};
inline constexpr Named<OutputForm> kOutputFormNames[] = {{"plain", OutputForm::plain},
                                                         {"silu_norm", OutputForm::silu_norm}};

/// The keys that an entry of `layers` may have.
inline constexpr std::string_view kLayerKeys[] = {
    "num_heads",   "num_kv_heads", "head_dim",         "key_dim",        "value_dim",
    "num_slots",   "window_size",  "head_windows",     "slot_delay",     "scale",
    "empty_slots", "feature_map",  "value_activation", "output_form",    "gate_logit_normalizer",
    "gate_bias",   "rope_theta",   "output_norm_eps",  "use_short_conv", "conv_size",
    "conv_bias",   "expand_k",     "expand_v"};

/// A list of windows, one for each of `count` of `what`; empty where left out.
inline std::vector<Index> read_config_windows(const ConfigValues& values, const char* key,
                                              Index count, const char* what) {
  std::vector<Index> windows = values.sizes(key);
  check_format(windows.empty() || static_cast<Index>(windows.size()) == count, values.source(),
               ": ", key, " has ", windows.size(), " entries; expected one for each of ", count,
               " ", what);
  check_format(windows.size() <= kLongestConfigList, values.source(), ": ", key, " has ",
               windows.size(), " entries; expected at most ", kLongestConfigList);
  return windows;
}

/// Reads the keys of a layer; each that is there is checked, whether or not it matters.
class LayerConfigReader {
 public:
  /// @param layout not automatic
  LayerConfigReader(const ConfigValues& values, ConfigLayout layout)
      : values_(values), layout_(layout) {}

  /// @param norm_eps of the model
  NHA_COLD LayerSpec read(double norm_eps) const {
    LayerSpec layer;
    layer.shape = read_shape();
    layer.options = read_options(layer.shape, norm_eps);
    return layer;
  }

  /// What validate() will ask of the options, in the words of the file.
  /// @throws FormatError
  void check_spec(const LayerSpec& spec) const {
    const LayerShape& shape = spec.shape;
    const LayerOptions& layer = spec.options;
    const AttentionOptions& attention = layer.attention;
    for (Index head = 0; head < shape.kv_heads; ++head) {
      const auto [window, delay] = head_options(attention, head);
      check(delay <= window, "the slot delay is ", delay, "; expected 0 to the window, ", window);
      if (attention.head_windows.empty()) break;
    }
    const double scale = attention.softmax_scale.value_or(1.0);
    check(std::isfinite(scale) && scale > 0, "scale is ", scale, "; expected a positive number");
    check(layer.gate_divisor > 0, "gate_logit_normalizer is ", layer.gate_divisor,
          "; expected a positive number");
    check(layer.rope_theta > 0, "rope_theta is ", layer.rope_theta, "; expected a positive number");
    for (const char* key : {"norm_eps", "output_norm_eps"})
      check(values_.number(key, 0.0) >= 0, key, " is negative");
    check(layer.convolution_kernel_size <= kMostKernelSize, "conv_size is ",
          layer.convolution_kernel_size, "; expected 1 to ", kMostKernelSize);
    check(!has_window(attention) || shape.key_dim % 2 == 0, "the head dimension is ", shape.key_dim,
          "; the rotary embedding of the window needs an even number");
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    check_format(ok, values_.source(), ": ", parts...);
  }

  /// Head dimensions are head_dim where given; in published from-scratch layers the hidden size
  /// times expand_k (expand_v), cut into query heads.
  LayerShape read_shape() const {
    LayerShape shape;
    shape.hidden = values_.needed_size("hidden_size");
    shape.query_heads = values_.needed_size("num_heads");
    shape.kv_heads = values_.size("num_kv_heads", shape.query_heads);
    check(shape.query_heads % shape.kv_heads == 0, "num_heads is ", shape.query_heads,
          "; expected a multiple of num_kv_heads, ", shape.kv_heads);
    const bool plain = layout_ == ConfigLayout::plain;
    shape.key_dim = read_head_dim(plain ? "key_dim" : "head_dim", "expand_k", shape);
    shape.value_dim = read_head_dim(plain ? "value_dim" : "head_dim", "expand_v", shape);
    shape.slots = values_.size("num_slots", shape.key_dim, plain ? 0 : 1);
    return shape;
  }
  Index read_head_dim(const char* own, const char* expand, const LayerShape& shape) const {
    if (values_.has(own)) return values_.needed_size(own);
    if (values_.has("head_dim")) return values_.needed_size("head_dim");
    const double factor = values_.number(expand, 1.0);
    const double width = std::floor(static_cast<double>(shape.hidden) * factor);
    check(width >= 1 && width <= kLargestSize && static_cast<Index>(width) % shape.query_heads == 0,
          "hidden_size times ", expand, " is ", width, "; expected a multiple of num_heads, ",
          shape.query_heads);
    return static_cast<Index>(width) / shape.query_heads;
  }

  LayerOptions read_options(const LayerShape& shape, double norm_eps) const {
    const Index window = values_.size("window_size", 64, 0);
    LayerOptions layer = layout_ == ConfigLayout::gsa      ? gsa()
                         : layout_ == ConfigLayout::nha_v2 ? nha_v2(window + 1)
                                                           : nha_v1(window);
    if (layout_ != ConfigLayout::nha_v1)
      layer.feature_map = read_name(
          "feature_map", layout_ == ConfigLayout::plain ? "identity" : "swish", kFeatureMapNames);
    if (layout_ == ConfigLayout::nha_v2)
      layer.attention.slot_delay = values_.size("gsa_kv_shift", 0, 0);
    if (layout_ == ConfigLayout::plain) {
      if (values_.has("slot_delay")) layer.attention.slot_delay = values_.size("slot_delay", 0, 0);
      if (values_.has("scale")) layer.attention.softmax_scale = values_.number("scale", 1.0);
      layer.attention.head_windows =
          read_config_windows(values_, "head_windows", shape.kv_heads, "key/value heads");
      layer.attention.empty_slots = read_name("empty_slots", "participate", kEmptySlotsNames);
      layer.value_activation = read_name("value_activation", "silu", kValueActivationNames);
      layer.output = read_name("output_form", "silu_norm", kOutputFormNames);
      layer.gate_bias = values_.flag("gate_bias", false);
      layer.output_norm_eps = values_.number("output_norm_eps", norm_eps);
    }
    layer.gate_divisor = values_.number("gate_logit_normalizer", 8.0);
    layer.rope_theta = values_.number("rope_theta", 10000.0);
    if (values_.flag("use_short_conv", false)) {
      layer.convolution_kernel_size = values_.size("conv_size", 4);
      layer.convolution_bias = values_.flag("conv_bias", false);
    }
    return layer;
  }

  template <class Value, std::size_t Count>
  Value read_name(const char* key, const char* otherwise,
                  const Named<Value> (&names)[Count]) const {
    const std::string text = values_.text(key, otherwise);
    const std::optional<Value> found = find_value(names, text);
    check(found.has_value(), key, " is '", printable(text), "'; expected ", name_list(names));
    return *found;
  }
  const ConfigValues& values_;
  ConfigLayout layout_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
