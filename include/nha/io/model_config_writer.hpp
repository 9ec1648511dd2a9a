// SPDX-License-Identifier: MIT
// ModelOptions written as a config.json of the plain layout, which model_config.hpp reads back.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/io/model_config.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/model_options.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A JSON object with one key in each line, in the order in which they are put.
class ConfigText {
 public:
  void put(const char* key, const nlohmann::json& value) {
    text_ += text_.empty() ? "{\n " : ",\n ";
    text_ += nlohmann::json(key).dump() + ": " + value.dump();
  }
  template <class Value, std::size_t Count>
  void put_name(const char* key, Value value, const ConfigName<Value> (&names)[Count]) {
    const auto* found = std::find_if(std::begin(names), std::end(names),
                                     [&](const auto& entry) { return entry.value == value; });
    check_argument(found != std::end(names), key, " is ", static_cast<int>(value), "; expected ",
                   name_list(names));
    put(key, found->name);
  }
  void put_windows(const char* key, const std::vector<Index>& windows) {
    if (windows.empty()) return;
    check_argument(windows.size() <= kLongestConfigList, key, " has ", windows.size(),
                   " entries; a configuration has at most ", kLongestConfigList);
    for (const Index window : windows) check_size(key, window, 0);
    put(key, windows);
  }
  std::string finish() && { return std::move(text_) + "\n}\n"; }

 private:
  std::string text_;
};

}  // namespace detail

/// The options as the text of a config.json of ConfigLayout::plain: parse_model_config() gives the
/// same options back, every number to its last bit. The same options always give the same text.
///
/// A configuration cannot say everything: windows are at most kLargestSize tokens, `windows` and
/// `head_windows` have at most 32768 entries, and convolution_bias is false without a convolution.
/// @throws ArgumentError naming the first option that is out of range or that a configuration
///   cannot say.
inline std::string model_config_text(const ModelOptions& options) {
  validate(options);
  const LayerShape& shape = options.shape;
  const LayerOptions& layer = options.layer;
  const AttentionOptions& attention = layer.attention;
  check_size("window", attention.window, 0);
  check_argument(
      !layer.convolution_bias || layer.convolution_kernel_size > 0,
      "convolution_bias is true and convolution_kernel_size 0, which a configuration cannot "
      "say");
  detail::ConfigText text;
  text.put("model_type", "nha");
  text.put("vocab_size", options.vocabulary);
  text.put("hidden_size", shape.hidden);
  text.put("num_hidden_layers", options.layers);
  text.put("num_heads", shape.query_heads);
  text.put("num_kv_heads", shape.kv_heads);
  if (shape.key_dim == shape.value_dim) {
    text.put("head_dim", shape.key_dim);
  } else {
    text.put("key_dim", shape.key_dim);
    text.put("value_dim", shape.value_dim);
  }
  text.put("num_slots", shape.slots);
  text.put("intermediate_size", options.intermediate);
  text.put("window_size", attention.window);
  text.put_windows("windows", options.windows);
  text.put_windows("head_windows", attention.head_windows);
  if (attention.slot_delay) text.put("slot_delay", *attention.slot_delay);
  if (attention.softmax_scale) text.put("scale", *attention.softmax_scale);
  text.put_name("empty_slots", attention.empty_slots, detail::kEmptySlotsNames);
  text.put_name("feature_map", layer.feature_map, detail::kFeatureMapNames);
  text.put_name("value_activation", layer.value_activation, detail::kValueActivationNames);
  text.put_name("output_form", layer.output, detail::kOutputFormNames);
  text.put("gate_logit_normalizer", layer.gate_divisor);
  text.put("gate_bias", layer.gate_bias);
  text.put("rope_theta", layer.rope_theta);
  text.put("norm_eps", options.norm_eps);
  text.put("output_norm_eps", layer.output_norm_eps);
  text.put("use_short_conv", layer.convolution_kernel_size > 0);
  if (layer.convolution_kernel_size > 0) {
    text.put("conv_size", layer.convolution_kernel_size);
    text.put("conv_bias", layer.convolution_bias);
  }
  text.put("tie_word_embeddings", options.tied_head);
  // What states of the model will be asked: that each layer's window suits the other options.
  for (std::size_t n = 0; n < options.windows.size(); ++n)
    layer_attention_options(options, {}, static_cast<Index>(n));
  return std::move(text).finish();
}

NHA_ISA_NAMESPACE_END
