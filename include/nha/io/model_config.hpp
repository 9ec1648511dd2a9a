// SPDX-License-Identifier: MIT
// The config.json of a model, published or of this library's own, read into ModelOptions.
//
// The JSON itself is read in config_values.hpp; this header knows what the keys mean. Writing the
// plain layout is in model_config_writer.hpp.
#pragma once

#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/io/config_values.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/model_options.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

NHA_NAMESPACE_BEGIN

/// Whose layer a config.json describes. The published ones share their keys but not what they mean:
/// one ignores feature_map, the other counts the window without the current token.
enum class ConfigLayout {
  /// Found from the file: gsa where model_type says so, plain where it has the key empty_slots,
  /// which no published configuration has; otherwise the file does not say, which is an error.
  automatic,
  /// Keys mean what the options of this library mean: W = window_size, slot_delay W unless given,
  /// scale Dk^-1/2 unless given, feature_map as given. Further keys say what published layers all
  /// have alike: key_dim and value_dim (else head_dim), num_slots 0, windows (one for each layer),
  /// head_windows (one for each key/value head), value_activation, output_form, output_norm_eps
  /// (else norm_eps), gate_bias.
  plain,
  nha_v1,
  nha_v2,
  gsa,
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The names that an option has in a configuration.
template <class Value>
struct ConfigName {
  std::string_view name;
  Value value;
};
inline constexpr ConfigName<FeatureMap> kFeatureMapNames[] = {{"identity", FeatureMap::identity},
                                                              {"swish", FeatureMap::swish},
                                                              {"relu", FeatureMap::relu},
                                                              {"t2r", FeatureMap::t2r}};
inline constexpr ConfigName<EmptySlots> kEmptySlotsNames[] = {
    {"participate", EmptySlots::participate},
    {"masked", EmptySlots::masked},
    {"mass_corrected", EmptySlots::mass_corrected}};
inline constexpr ConfigName<ValueActivation> kValueActivationNames[] = {
    {"none", ValueActivation::none}, {"silu", ValueActivation::silu}};
inline constexpr ConfigName<OutputForm> kOutputFormNames[] = {{"plain", OutputForm::plain},
                                                              {"silu_norm", OutputForm::silu_norm}};

/// "identity, swish, relu or t2r".
template <class Value, std::size_t Count>
std::string name_list(const ConfigName<Value> (&names)[Count]) {
  std::string out;
  for (std::size_t n = 0; n < Count; ++n) {
    if (n > 0) out += n + 1 < Count ? ", " : " or ";
    out += names[n].name;
  }
  return out;
}

/// Longest list that is read from a configuration or written to one: entries of windows and of
/// head_windows.
inline constexpr std::size_t kLongestConfigList = std::size_t{1} << 15;
/// Longest configuration that is read, in bytes.
inline constexpr std::size_t kLongestConfig = std::size_t{1} << 20;

/// Reads the keys of a configuration; each that is there is checked, whether or not it matters.
class ModelConfigReader {
 public:
  explicit ModelConfigReader(const ConfigValues& values) : values_(values) {}

  ModelOptions read(ConfigLayout layout) {
    layout = resolve(layout);
    ModelOptions options;
    options.vocabulary = values_.needed_size("vocab_size");
    options.layers = values_.needed_size("num_hidden_layers");
    options.shape = read_shape(layout);
    options.intermediate = read_intermediate(options.shape.hidden);
    options.norm_eps = values_.number("norm_eps", layout == ConfigLayout::gsa ? 1e-6 : 1e-5);
    options.tied_head = values_.flag("tie_word_embeddings", false);
    options.layer = read_layer(layout, options);
    if (layout == ConfigLayout::nha_v1) options.windows = read_block_windows(options);
    if (layout == ConfigLayout::plain)
      options.windows = read_windows("windows", options.layers, "layers");
    check_layer(options.layer, options.shape);
    for (LayerOptions layer = options.layer; const Index window : options.windows) {
      layer.attention.window = window;
      check_layer(layer, options.shape);
    }
    check_supported();
    return options;
  }

 private:
  template <class... Parts>
  void check(bool ok, const Parts&... parts) const {
    check_format(ok, values_.source(), ": ", parts...);
  }

  ConfigLayout resolve(ConfigLayout layout) const {
    const std::string type = values_.text("model_type", "nha");
    check(type == "nha" || type == "gsa", "model_type is '", printable(type),
          "'; expected nha or gsa");
    if (layout != ConfigLayout::automatic) return layout;
    if (type == "gsa") return ConfigLayout::gsa;
    check(values_.has("empty_slots"),
          "the file does not say which published layer it describes, and they differ: choose "
          "ConfigLayout::nha_v1 or nha_v2 (or add the key empty_slots, for plain)");
    return ConfigLayout::plain;
  }

  /// Head dimensions are head_dim where given; in published from-scratch layers the hidden size
  /// times expand_k (expand_v), cut into query heads.
  LayerShape read_shape(ConfigLayout layout) const {
    LayerShape shape;
    shape.hidden = values_.needed_size("hidden_size");
    shape.query_heads = values_.needed_size("num_heads");
    shape.kv_heads = values_.size("num_kv_heads", shape.query_heads);
    check(shape.query_heads % shape.kv_heads == 0, "num_heads is ", shape.query_heads,
          "; expected a multiple of num_kv_heads, ", shape.kv_heads);
    const bool plain = layout == ConfigLayout::plain;
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

  /// Two thirds of hidden_ratio * hidden, rounded up to a multiple of 256, unless given.
  Index read_intermediate(Index hidden) const {
    if (values_.has("intermediate_size")) return values_.needed_size("intermediate_size");
    const double width =
        std::floor(static_cast<double>(hidden) * values_.number("hidden_ratio", 4.0) * 2 / 3);
    check(width >= 1 && width <= kLargestSize, "hidden_ratio makes intermediate_size ", width,
          "; expected 1 to ", kLargestSize);
    return (static_cast<Index>(width) + 255) / 256 * 256;
  }

  LayerOptions read_layer(ConfigLayout layout, const ModelOptions& options) const {
    const Index window = values_.size("window_size", 64, 0);
    LayerOptions layer = layout == ConfigLayout::gsa      ? gsa()
                         : layout == ConfigLayout::nha_v2 ? nha_v2(window + 1)
                                                          : nha_v1(window);
    if (layout != ConfigLayout::nha_v1)
      layer.feature_map = read_name(
          "feature_map", layout == ConfigLayout::plain ? "identity" : "swish", kFeatureMapNames);
    if (layout == ConfigLayout::nha_v2)
      layer.attention.slot_delay = values_.size("gsa_kv_shift", 0, 0);
    if (layout == ConfigLayout::plain) {
      if (values_.has("slot_delay")) layer.attention.slot_delay = values_.size("slot_delay", 0, 0);
      if (values_.has("scale")) layer.attention.softmax_scale = values_.number("scale", 1.0);
      layer.attention.head_windows =
          read_windows("head_windows", options.shape.kv_heads, "key/value heads");
      layer.attention.empty_slots = read_name("empty_slots", "participate", kEmptySlotsNames);
      layer.value_activation = read_name("value_activation", "silu", kValueActivationNames);
      layer.output = read_name("output_form", "silu_norm", kOutputFormNames);
      layer.gate_bias = values_.flag("gate_bias", false);
      layer.output_norm_eps = values_.number("output_norm_eps", options.norm_eps);
    }
    layer.gate_divisor = values_.number("gate_logit_normalizer", 8.0);
    layer.rope_theta = values_.number("rope_theta", 10000.0);
    if (values_.flag("use_short_conv", false)) {
      layer.convolution_kernel_size = values_.size("conv_size", 4);
      layer.convolution_bias = values_.flag("conv_bias", false);
    }
    return layer;
  }

  /// What validate() will ask of the options, in the words of the file.
  void check_layer(const LayerOptions& layer, const LayerShape& shape) const {
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
    check(layer.convolution_kernel_size <= 64, "conv_size is ", layer.convolution_kernel_size,
          "; expected 1 to 64");
    check(!has_window(attention) || shape.key_dim % 2 == 0, "the head dimension is ", shape.key_dim,
          "; the rotary embedding of the window needs an even number");
  }

  template <class Value, std::size_t Count>
  Value read_name(const char* key, const char* otherwise,
                  const ConfigName<Value> (&names)[Count]) const {
    const std::string text = values_.text(key, otherwise);
    const auto* found = std::find_if(std::begin(names), std::end(names),
                                     [&](const auto& entry) { return entry.name == text; });
    check(found != std::end(names), key, " is '", printable(text), "'; expected ",
          name_list(names));
    return found->value;
  }
  std::vector<Index> read_windows(const char* key, Index count, const char* what) const {
    std::vector<Index> windows = values_.sizes(key);
    check(windows.empty() || static_cast<Index>(windows.size()) == count, key, " has ",
          windows.size(), " entries; expected one for each of ", count, " ", what);
    check(windows.size() <= kLongestConfigList, key, " has ", windows.size(),
          " entries; expected at most ", kLongestConfigList);
    return windows;
  }

  /// In nha_v1 the layers whose number is transformer_idx modulo block_size have a window of 2048.
  std::vector<Index> read_block_windows(const ModelOptions& options) const {
    if (!values_.has("block_size") || !values_.has("transformer_idx")) return {};
    const Index block = values_.size("block_size", 1);
    const Index which = values_.size("transformer_idx", 0, 0);
    check(which < block, "transformer_idx is ", which, "; expected 0 to block_size - 1, ",
          block - 1);
    check(options.layers <= kMostLayers, "num_hidden_layers is ", options.layers,
          "; expected at most ", kMostLayers);
    constexpr Index kWideWindow = 2048;
    std::vector<Index> windows;
    for (Index n = 0; n < options.layers; ++n)
      windows.push_back(n % block == which ? kWideWindow : options.layer.attention.window);
    return windows;
  }

  /// Keys that would change what the layer computes in a way it cannot.
  void check_supported() const {
    const std::string activation = values_.text("hidden_act", "swish");
    check(activation == "swish" || activation == "silu", "hidden_act is '", printable(activation),
          "'; expected swish or silu");
    check(!values_.flag("use_output_gate", false),
          "use_output_gate is true, which is not supported");
    check(values_.flag("use_norm", true), "use_norm is false, which is not supported");
    for (const char* key : {"attn", "rope_scaling"})
      check(!values_.has(key), key, " is given, which is not supported");
  }

  static constexpr Index kMostLayers = 1 << 16;

  const ConfigValues& values_;
};

}  // namespace detail

/// Reads the text of a config.json. Keys that say nothing about what is computed are ignored.
/// @param source what error messages begin with
/// @throws FormatError naming the key if the text is not valid JSON, or a key is missing, twice
///   there, of another type or out of range.
inline ModelOptions parse_model_config(std::string_view text,
                                       ConfigLayout layout = ConfigLayout::automatic,
                                       std::string_view source = "config") {
  const ConfigValues values(text, source);
  return detail::ModelConfigReader(values).read(layout);
}

/// Reads a config.json.
/// @throws FormatError naming the file, as parse_model_config.
inline ModelOptions load_model_config(const std::string& path,
                                      ConfigLayout layout = ConfigLayout::automatic) {
  const MappedFile file(path);
  check_format(file.bytes().size() <= detail::kLongestConfig, detail::printable(path), ": ",
               file.bytes().size(), " bytes; expected a configuration of at most ",
               detail::kLongestConfig);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  return parse_model_config(text, layout, path);
}

NHA_ISA_NAMESPACE_END
