// SPDX-License-Identifier: MIT
// LanguageModelState: everything a model remembers of a batch of sequences, as one value.
//
// Saving and loading it is in model/state_archive.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/model_options.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The states of all layers. They always move together: a layer can be looked at, but not changed
/// alone. Copy the state to continue a text in two ways. Its size does not depend on how long the
/// text is.
template <std::floating_point T>
class LanguageModelState {
 public:
  /// @throws ArgumentError if a size or option is out of range.
  LanguageModelState(const ModelOptions& model, const ModelStateOptions& options,
                     std::pmr::memory_resource* memory = std::pmr::get_default_resource()) {
    validate(model);
    layers_.reserve(model.layers.size());
    for (Index n = 0; n < model.layer_count(); ++n) {
      LayerSpec layer = model.layers[static_cast<std::size_t>(n)];
      layer.options.attention = layer_attention_options(model, options, n);
      layers_.emplace_back(layer.shape, layer.options, options.batch, options.max_rollback, memory);
    }
  }

  Index layers() const noexcept { return static_cast<Index>(layers_.size()); }
  const LayerState<T>& layer(Index n) const noexcept {
    return layers_[static_cast<std::size_t>(n)];
  }

  Index batch() const noexcept { return layers_.front().batch(); }
  std::int64_t tokens_seen(Index sequence) const { return layers_.front().tokens_seen(sequence); }
  /// Bytes of all layers together; the same for every number of tokens.
  std::size_t bytes() const noexcept {
    std::size_t total = 0;
    for (const auto& layer : layers_) total += layer.bytes();
    return total;
  }

  /// Whether two states would treat every future token alike, to the bit.
  friend bool operator==(const LanguageModelState& a, const LanguageModelState& b) {
    return a.layers_ == b.layers_;
  }

  /// Forgets everything.
  void reset() noexcept {
    for (auto& layer : layers_) layer.reset();
  }
  /// Forgets one sequence.
  /// @throws ArgumentError if there is no such sequence.
  void reset(Index sequence) {
    for (auto& layer : layers_) layer.reset(sequence);
  }

  /// Copies one sequence to a place of another state of the same model, or of this one. The states
  /// may differ in batch only.
  /// @throws ArgumentError if a sequence does not exist or the states do not match; the target is
  ///   then as it was.
  void fork(Index from, LanguageModelState& target, Index to) const {
    check_argument(layers() == target.layers(), "target of fork is the state of a model with ",
                   target.layers(), " layers; expected ", layers());
    for (Index n = 0; n < layers(); ++n)
      check_argument(layer(n).same_layer(target.layer(n)), "target of fork differs in layer ", n,
                     ": another shape, window or max_rollback");
    for (std::size_t n = 0; n < layers_.size(); ++n) layers_[n].fork(from, target.layers_[n], to);
  }

  /// Takes back the newest `tokens` tokens of a sequence, as if they had never been.
  /// @throws ArgumentError as AttentionState::rollback; nothing has then changed.
  void rollback(Index sequence, Index tokens) {
    for (auto& layer : layers_) layer.rollback(sequence, tokens);
  }

 private:
  friend detail::StateParts;

  std::vector<LayerState<T>> layers_;
};

NHA_ISA_NAMESPACE_END
