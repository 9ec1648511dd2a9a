// SPDX-License-Identifier: MIT
// ModelOptions written as a config.json of the plain layout, which model_config.hpp reads back.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/names.hpp>
#include <nha/core/options.hpp>
#include <nha/io/layer_config.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/model_options.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The keys and values of a JSON object, in the order in which they are put.
class ConfigEntries {
 public:
  using Json = nlohmann::json;

  void put(std::string key, Json value) { entries_.emplace_back(std::move(key), std::move(value)); }
  template <class Value, std::size_t Count>
  void put_name(const char* key, Value value, const Named<Value> (&names)[Count]) {
    const std::optional<std::string_view> name = find_name(names, value);
    check_argument(name.has_value(), key, " is ", static_cast<int>(value), "; expected ",
                   name_list(names));
    put(key, *name);
  }
  void put_windows(const char* key, const std::vector<Index>& windows) {
    if (windows.empty()) return;
    check_argument(windows.size() <= kLongestConfigList, key, " has ", windows.size(),
                   " entries; a configuration has at most ", kLongestConfigList);
    for (const Index window : windows) check_size(key, window, 0);
    put(key, windows);
  }

  void put_all(const ConfigEntries& other) {
    entries_.insert(entries_.end(), other.entries_.begin(), other.entries_.end());
  }

  /// An object of the entries in which this one differs from another; null for what it has not.
  Json difference_from(const ConfigEntries& other) const {
    Json difference = Json::object();
    for (const auto& [key, value] : entries_)
      if (const Json* same = other.find(key); same == nullptr || *same != value)
        difference[key] = value;
    for (const auto& [key, value] : other.entries_)
      if (find(key) == nullptr) difference[key] = nullptr;
    return difference;
  }

  /// One key in each line.
  std::string text() const {
    std::string text;
    for (const auto& [key, value] : entries_) {
      text += text.empty() ? "{\n " : ",\n ";
      text += Json(key).dump() + ": " + value.dump();
    }
    return text + "\n}\n";
  }

 private:
  const Json* find(const std::string& key) const {
    for (const auto& entry : entries_)
      if (entry.first == key) return &entry.second;
    return nullptr;
  }

  std::vector<std::pair<std::string, Json>> entries_;
};

/// What a configuration says of a layer.
inline ConfigEntries layer_entries(const LayerSpec& spec) {
  const LayerShape& shape = spec.shape;
  const LayerOptions& layer = spec.options;
  const AttentionOptions& attention = layer.attention;
  check_size("window", attention.window, 0);
  check_argument(!layer.convolution_bias || layer.convolution_kernel_size > 0,
                 "convolution_bias is true and convolution_kernel_size 0, which a configuration "
                 "cannot say");
  ConfigEntries entries;
  entries.put("num_heads", shape.query_heads);
  entries.put("num_kv_heads", shape.kv_heads);
  if (shape.key_dim == shape.value_dim) {
    entries.put("head_dim", shape.key_dim);
  } else {
    entries.put("key_dim", shape.key_dim);
    entries.put("value_dim", shape.value_dim);
  }
  entries.put("num_slots", shape.slots);
  entries.put("window_size", attention.window);
  entries.put_windows("head_windows", attention.head_windows);
  if (attention.slot_delay) entries.put("slot_delay", *attention.slot_delay);
  if (attention.softmax_scale) entries.put("scale", *attention.softmax_scale);
  entries.put_name("empty_slots", attention.empty_slots, kEmptySlotsNames);
  entries.put_name("feature_map", layer.feature_map, kFeatureMapNames);
  entries.put_name("value_activation", layer.value_activation, kValueActivationNames);
  entries.put_name("output_form", layer.output, kOutputFormNames);
  entries.put("gate_logit_normalizer", layer.gate_divisor);
  entries.put("gate_bias", layer.gate_bias);
  entries.put("rope_theta", layer.rope_theta);
  entries.put("output_norm_eps", layer.output_norm_eps);
  entries.put("use_short_conv", layer.convolution_kernel_size > 0);
  if (layer.convolution_kernel_size > 0) {
    entries.put("conv_size", layer.convolution_kernel_size);
    entries.put("conv_bias", layer.convolution_bias);
  }
  return entries;
}

/// How the layers differ, beside what is said of the first: in nothing, in their windows alone, or
/// in more.
inline void put_differences(ConfigEntries& entries, const std::vector<LayerSpec>& layers,
                            const ConfigEntries& first) {
  std::vector<Index> windows;
  bool only_windows = true, all_equal = true;
  for (const LayerSpec& layer : layers) {
    LayerSpec same = layers.front();
    same.options.attention.window = layer.options.attention.window;
    windows.push_back(layer.options.attention.window);
    only_windows = only_windows && layer == same;
    all_equal = all_equal && layer == layers.front();
  }
  if (all_equal) return;
  if (only_windows) return entries.put_windows("windows", windows);
  auto list = nlohmann::json::array();
  for (const LayerSpec& layer : layers) list.push_back(layer_entries(layer).difference_from(first));
  entries.put("layers", std::move(list));
}

}  // namespace detail

/// The options as the text of a config.json of ConfigLayout::plain: parse_model_config() gives the
/// same options back, every number to its last bit. The same options always give the same text.
///
/// A configuration cannot say everything. Windows are at most kLargestSize tokens. There are at
/// most 65536 layers. A list of the windows of layers or of heads has at most 32768 entries. Those
/// of the heads of all layers together have at most 2^20. convolution_bias is false without a
/// convolution.
/// @throws ArgumentError naming the first option that is out of range or that a configuration
///   cannot say.
inline std::string model_config_text(const ModelOptions& options) {
  validate(options);
  check_argument(options.layer_count() <= kMostConfigLayers, "there are ", options.layer_count(),
                 " layers; a configuration has at most ", kMostConfigLayers);
  std::size_t head_windows = 0;
  for (const LayerSpec& layer : options.layers)
    head_windows += layer.options.attention.head_windows.size();
  check_argument(head_windows <= kMostConfigHeadWindows, "head_windows of all layers have ",
                 head_windows, " entries; a configuration has at most ", kMostConfigHeadWindows);
  const detail::ConfigEntries layer = detail::layer_entries(options.layers.front());
  detail::ConfigEntries entries;
  entries.put("model_type", "nha");
  entries.put("vocab_size", options.vocabulary);
  entries.put("hidden_size", options.hidden());
  entries.put("num_hidden_layers", options.layer_count());
  entries.put("intermediate_size", options.intermediate);
  entries.put("norm_eps", options.norm_eps);
  entries.put("tie_word_embeddings", options.tied_head);
  entries.put_all(layer);
  detail::put_differences(entries, options.layers, layer);
  return entries.text();
}

NHA_ISA_NAMESPACE_END
