// SPDX-License-Identifier: MIT
// The models that are compared.
#pragma once

#include "../common/display.hpp"
#include "command_line.hpp"

#include <nha/core/index.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/model_options.hpp>
#include <nha/model/state.hpp>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace recall {

/// One model: all it is but its weights.
struct Contestant {
  std::string key;   // what the command line calls it
  std::size_t look;  // its colour in the picture, whichever others are there
  std::string name;
  std::string memory;  // in words
  nha::ModelOptions model;
};

/// What a model remembers of one sequence.
inline std::size_t state_bytes(const nha::ModelOptions& model) {
  return nha::LanguageModelState<float>(model, {}).bytes();
}

/// The same for readers: "37.0 KiB".
inline std::string shown_state(const nha::ModelOptions& model) {
  return examples_common::memory_size(static_cast<Index>(state_bytes(model)));
}

/// The smallest size, 1 or more, with which bytes(size) is at least `least`; bytes does not fall.
template <class Bytes>
Index smallest_size(std::size_t least, Bytes&& bytes) {
  Index enough = 1;
  while (bytes(enough) < least) enough *= 2;
  Index too_small = enough / 2;
  while (enough - too_small > 1) {
    const Index middle = too_small + (enough - too_small) / 2;
    (bytes(middle) < least ? too_small : enough) = middle;
  }
  return enough;
}

inline nha::ModelOptions model_options(const Options& options, Index slots, Index window) {
  const Index head = options.width / options.heads;
  nha::LayerSpec layer{.shape = {.hidden = options.width,
                                 .query_heads = options.heads,
                                 .kv_heads = options.heads,
                                 .key_dim = head,
                                 .value_dim = head,
                                 .slots = slots},
                       .options = nha::nha_v1(window)};
  layer.options.attention.empty_slots = options.empty_slots;
  layer.options.gate_divisor = options.gate_divisor;
  layer.options.gate_bias = true;
  layer.options.convolution_kernel_size = options.convolution;
  return {.vocabulary = options.task.vocabulary(),
          .intermediate = 2 * options.width,
          .layers = nha::repeat(options.layers, layer)};
}

/// The hybrid; a window alone and slots alone, each as small as makes the state at least as large
/// as the hybrid's; and full attention, whose state holds all tokens. They differ in nothing but
/// slots and window, and in the weights that make the gates of the slots. Those that options.models
/// names.
inline std::vector<Contestant> contestants(const Options& options) {
  const auto number = [](Index n) { return std::to_string(n); };
  const nha::ModelOptions hybrid = model_options(options, options.slots, options.window);
  const std::size_t bytes = state_bytes(hybrid);
  const Index window = smallest_size(
      bytes, [&](Index size) { return state_bytes(model_options(options, 0, size)); });
  const Index slots = smallest_size(
      bytes, [&](Index size) { return state_bytes(model_options(options, size, 0)); });
  std::vector<Contestant> all{
      {"nha", 0, "NHA", number(options.slots) + " slots, W = " + number(options.window), hybrid},
      {"window", 1, "window only", "W = " + number(window), model_options(options, 0, window)},
      {"slots", 2, "slots only", number(slots) + " slots", model_options(options, slots, 0)},
      {"full", 3, "full attention", "all " + number(options.task.tokens) + " tokens",
       model_options(options, 0, options.task.tokens)}};
  std::erase_if(all, [&](const Contestant& contestant) {
    const auto& chosen = options.models;
    return std::find(chosen.begin(), chosen.end(), contestant.key) == chosen.end();
  });
  return all;
}

/// The place of the hybrid among them; their number if it is not there.
inline std::size_t place_of_hybrid(const std::vector<Contestant>& contestants) {
  const auto is_hybrid = [](const Contestant& contestant) { return contestant.key == "nha"; };
  return static_cast<std::size_t>(std::find_if(contestants.begin(), contestants.end(), is_hybrid) -
                                  contestants.begin());
}

}  // namespace recall
