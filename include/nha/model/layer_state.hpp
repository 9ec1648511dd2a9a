// SPDX-License-Identifier: MIT
// LayerState: everything a Native Hybrid Attention layer remembers, the operator's state and that
// of its short convolutions, as one value.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/nn/short_convolution.hpp>

#include <array>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <memory_resource>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {
struct StateParts;
}

/// State of a layer for a batch of sequences. Copies, moves, compares, forks, rolls back.
///
/// Its parts can be looked at, but not changed one by one: they have always seen the same tokens.
template <std::floating_point T>
class LayerState {
 public:
  /// @throws ArgumentError if a size or option is out of range.
  NHA_COLD LayerState(const LayerShape& shape, const LayerOptions& options, Index batch = 1,
                      Index max_rollback = 0,
                      std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : attention_(checked_shape(shape, options, batch), options.attention, max_rollback, memory) {
    if (options.convolution_kernel_size == 0) return;
    convolutions_.reserve(3);
    for (Index channels : convolution_channels(shape))
      convolutions_.emplace_back(batch, channels, options.convolution_kernel_size, max_rollback,
                                 memory);
  }

  /// Channels of the convolutions over q, k and v of a layer that has them.
  static std::array<Index, 3> convolution_channels(const LayerShape& shape) noexcept {
    return {shape.query_heads * shape.key_dim, shape.kv_heads * shape.key_dim,
            shape.kv_heads * shape.value_dim};
  }

  /// Slots and windows.
  const AttentionState<T>& attention() const noexcept { return attention_; }
  /// Inputs of the convolutions over q, k and v, in that order; empty where the layer has none.
  const std::vector<ConvolutionState<T>>& convolutions() const noexcept { return convolutions_; }

  /// An empty state of one sequence of the same layer, that sequences can be forked from and to.
  LayerState empty_sequence() const {
    AttentionShape shape = attention_.shape();
    shape.batch = 1;
    LayerState state(AttentionState<T>(shape, attention_.options(), attention_.max_rollback()));
    for (const auto& convolution : convolutions_)
      state.convolutions_.emplace_back(1, convolution.channels(), convolution.kept() + 1,
                                       convolution.max_rollback());
    return state;
  }

  /// Whether two states would treat every future token alike, to the bit.
  friend bool operator==(const LayerState& a, const LayerState& b) {
    return a.attention_ == b.attention_ && a.convolutions_ == b.convolutions_;
  }

  /// Whether this is the state of a layer of these sizes and with such a convolution, whatever its
  /// windows are. The rest was checked when the state was made.
  bool is_of(const LayerShape& shape, Index convolution_kernel_size) const noexcept {
    if (attention_.shape() != attention_shape(shape, batch())) return false;
    if (convolutions_.empty()) return convolution_kernel_size == 0;
    return convolutions_.front().kept() + 1 == convolution_kernel_size &&
           convolutions_.front().channels() == convolution_channels(shape).front();
  }

  bool has_convolutions() const noexcept { return !convolutions_.empty(); }
  Index batch() const noexcept { return attention_.shape().batch; }
  std::int64_t tokens_seen(Index sequence) const { return attention_.tokens_seen(sequence); }
  std::size_t bytes() const noexcept {
    std::size_t total = attention_.bytes();
    for (const auto& convolution : convolutions_) total += convolution.bytes();
    return total;
  }

  void reset() noexcept {
    attention_.reset();
    for (auto& convolution : convolutions_) convolution.reset();
  }
  /// @throws ArgumentError if there is no such sequence.
  void reset(Index sequence) {
    attention_.reset(sequence);
    for (auto& convolution : convolutions_) convolution.reset(sequence);
  }

  /// Copies one sequence to a place of another state of the same layer, or of this one.
  /// @throws ArgumentError if a sequence does not exist or the states do not match.
  void fork(Index from, LayerState& target, Index to) const {
    check_argument(same_layer(target),
                   "target of fork is the state of another layer, or has other "
                   "windows or another max_rollback");
    attention_.fork(from, target.attention_, to);
    for (std::size_t i = 0; i < convolutions_.size(); ++i)
      convolutions_[i].fork(from, target.convolutions_[i], to);
  }
  /// Whether sequences can be copied between the states.
  bool same_layer(const LayerState& other) const {
    AttentionShape shape = other.attention_.shape();
    shape.batch = batch();
    if (attention_.shape() != shape || attention_.options() != other.attention_.options() ||
        attention_.max_rollback() != other.attention_.max_rollback() ||
        convolutions_.size() != other.convolutions_.size())
      return false;
    for (std::size_t i = 0; i < convolutions_.size(); ++i)
      if (!convolutions_[i].same_layer(other.convolutions_[i])) return false;
    return true;
  }

  /// Takes back the newest `tokens` tokens of a sequence.
  /// @throws ArgumentError as AttentionState::rollback; nothing has then changed.
  void rollback(Index sequence, Index tokens) {
    attention_.rollback(sequence, tokens);
    for (auto& convolution : convolutions_) convolution.rollback(sequence, tokens);
  }

 private:
  friend detail::StateParts;

  static AttentionShape checked_shape(const LayerShape& shape, const LayerOptions& options,
                                      Index batch) {
    validate(shape);
    validate(options, shape);
    return attention_shape(shape, batch);
  }
  explicit LayerState(AttentionState<T> attention) : attention_(std::move(attention)) {}

  AttentionState<T> attention_;
  std::vector<ConvolutionState<T>> convolutions_;
};

namespace detail {

/// The one way to the parts of a state that can be changed. It is for the code that moves all parts
/// on together: layers, models and the archive.
struct StateParts {
  template <class T>
  static AttentionState<T>& attention(LayerState<T>& state) noexcept {
    return state.attention_;
  }
  template <class T>
  static std::vector<ConvolutionState<T>>& convolutions(LayerState<T>& state) noexcept {
    return state.convolutions_;
  }
  /// @param state a LanguageModelState
  template <class State>
  static auto& layer(State& state, Index n) noexcept {
    return state.layers_[static_cast<std::size_t>(n)];
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
