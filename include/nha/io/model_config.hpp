// SPDX-License-Identifier: MIT
// The config.json of a model, published or of this library's own, read into ModelOptions.
//
// The JSON itself is read in config_values.hpp, the keys of a layer in layer_config.hpp. Writing
// the plain layout is in model_config_writer.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/describe.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/io/config_values.hpp>
#include <nha/io/layer_config.hpp>
#include <nha/io/mapped_file.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/model_options.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iterator>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Reads the keys of a configuration; each that is there is checked, whether or not it matters.
class ModelConfigReader {
 public:
  explicit ModelConfigReader(const ConfigValues& values) : values_(values) {}

  NHA_COLD ModelOptions read(ConfigLayout layout) {
    layout = resolve(layout);
    ModelOptions options;
    options.vocabulary = values_.needed_size("vocab_size");
    const Index layers = values_.needed_size("num_hidden_layers");
    check(layers <= kMostConfigLayers, "num_hidden_layers is ", layers, "; expected at most ",
          kMostConfigLayers);
    const LayerConfigReader reader(values_, layout);
    options.norm_eps = values_.number("norm_eps", layout == ConfigLayout::gsa ? 1e-6 : 1e-5);
    const LayerSpec layer = reader.read(options.norm_eps);
    options.intermediate = read_intermediate(layer.shape.hidden);
    options.tied_head = values_.flag("tie_word_embeddings", false);
    reader.check_spec(layer);
    check_head_windows(layer.options.attention.head_windows.size() *
                       static_cast<std::size_t>(layers));
    options.layers = repeat(layers, layer);
    if (layout == ConfigLayout::nha_v1) widen_block_windows(options);
    if (layout == ConfigLayout::plain) {
      const std::vector<Index> windows = read_config_windows(values_, "windows", layers, "layers");
      for (std::size_t n = 0; n < windows.size(); ++n) {
        options.layers[n].options.attention.window = windows[n];
        reader.check_spec(options.layers[n]);
      }
      if (values_.has("layers")) read_layers(options);
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

  /// Two thirds of hidden_ratio * hidden, rounded up to a multiple of 256, unless given.
  Index read_intermediate(Index hidden) const {
    if (values_.has("intermediate_size")) return values_.needed_size("intermediate_size");
    const double width =
        std::floor(static_cast<double>(hidden) * values_.number("hidden_ratio", 4.0) * 2 / 3);
    check(width >= 1 && width <= kLargestSize, "hidden_ratio makes intermediate_size ", width,
          "; expected 1 to ", kLargestSize);
    return (static_cast<Index>(width) + 255) / 256 * 256;
  }

  static void check_layer_keys(const ConfigValues& values) {
    for (const std::string& key : values.keys())
      check_format(std::ranges::find(kLayerKeys, key) != std::end(kLayerKeys), values.source(),
                   " has the key '", printable(key), "', which is not one of a layer");
  }
  void check_head_windows(std::size_t entries) const {
    check(entries <= kMostConfigHeadWindows, "head_windows of all layers have ", entries,
          " entries; expected at most ", kMostConfigHeadWindows);
  }

  /// Layers that differ from what the rest of the file says.
  NHA_COLD void read_layers(ModelOptions& options) const {
    const std::size_t count = values_.object_count("layers");
    check(count == options.layers.size(), "layers has ", count,
          " entries; expected one for each of ", options.layers.size(), " layers");
    check(!values_.has("windows"), "has both windows and layers; expected one of them");
    std::size_t head_windows = 0;
    for (std::size_t n = 0; n < count; ++n) {
      const ConfigValues values(values_, "layers", n);
      check_layer_keys(values);
      const LayerConfigReader reader(values, ConfigLayout::plain);
      options.layers[n] = reader.read(options.norm_eps);
      reader.check_spec(options.layers[n]);
      head_windows += options.layers[n].options.attention.head_windows.size();
      check_head_windows(head_windows);
    }
  }

  /// In nha_v1 the layers whose number is transformer_idx modulo block_size have a window of 2048.
  void widen_block_windows(ModelOptions& options) const {
    if (!values_.has("block_size") || !values_.has("transformer_idx")) return;
    const Index block = values_.size("block_size", 1);
    const Index which = values_.size("transformer_idx", 0, 0);
    check(which < block, "transformer_idx is ", which, "; expected 0 to block_size - 1, ",
          block - 1);
    constexpr Index kWideWindow = 2048;
    for (Index n = which; n < options.layer_count(); n += block)
      options.layers[static_cast<std::size_t>(n)].options.attention.window = kWideWindow;
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
  check_format(file.bytes().size() <= kLongestConfig, detail::printable(path), ": ",
               file.bytes().size(), " bytes; expected a configuration of at most ", kLongestConfig);
  const std::string_view text(reinterpret_cast<const char*>(file.bytes().data()),
                              file.bytes().size());
  return parse_model_config(text, layout, path);
}

NHA_ISA_NAMESPACE_END
