// SPDX-License-Identifier: MIT
// The short convolution that some layers put over q, k and v: causal, a few taps, each channel for
// itself, then silu; and the inputs it must remember between calls.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/layer/activation.hpp>
#include <nha/layer/token_batch.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The newest inputs of a short convolution, for each sequence: a value, as AttentionState is.
/// It keeps taps - 1 inputs, and max_rollback more so that tokens can be taken back.
template <std::floating_point T>
class ConvolutionState {
 public:
  ConvolutionState(Index batch, Index channels, Index taps, Index max_rollback = 0,
                   std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : max_rollback_(max_rollback),
        inputs_({batch, taps - 1 + max_rollback, channels}, memory),
        positions_(static_cast<std::size_t>(batch)) {}

  Index batch() const noexcept { return inputs_.extent(0); }
  Index channels() const noexcept { return inputs_.extent(2); }
  Index max_rollback() const noexcept { return max_rollback_; }
  std::size_t bytes() const noexcept {
    return inputs_.values().size_bytes() + positions_.size() * sizeof(Position);
  }
  std::int64_t tokens_seen(Index sequence) const { return at(sequence).seen; }

  void reset() noexcept {
    for (Index n = 0; n < batch(); ++n) reset(n);
  }
  void reset(Index sequence) noexcept { at(sequence) = {}; }

  /// Copies one sequence to a place of a state of the same sizes (but for the batch).
  /// @throws ArgumentError if a sequence does not exist or the states do not match.
  void fork(Index from, ConvolutionState& target, Index to) const {
    check_sequence(from);
    target.check_sequence(to);
    check_argument(same_layer(target), "target of fork is a convolution state of other sizes");
    target.at(to) = at(from);
    const auto rows = inputs_.view()[from];
    if (!rows.empty()) std::copy_n(rows.data(), rows.size(), target.inputs_.view()[to].data());
  }
  bool same_layer(const ConvolutionState& other) const noexcept {
    return channels() == other.channels() && inputs_.extent(1) == other.inputs_.extent(1) &&
           max_rollback_ == other.max_rollback_;
  }

  /// Takes back the newest `tokens` tokens of a sequence, exactly.
  /// @throws ArgumentError if the sequence has not that many, or they lie further back than
  ///   max_rollback from the furthest position it has reached.
  void rollback(Index sequence, Index tokens) {
    check_sequence(sequence);
    Position& position = at(sequence);
    check_argument(tokens >= 0 && tokens <= position.seen - position.oldest_reachable,
                   "tokens to roll back is ", tokens, "; the convolution keeps ", max_rollback_,
                   " and can now go back ", position.seen - position.oldest_reachable);
    position.seen -= tokens;
  }

  /// Whether two states would treat every future token alike: the same inputs to the bit. How far
  /// back they can go is not compared.
  friend bool operator==(const ConvolutionState& a, const ConvolutionState& b) {
    if (a.batch() != b.batch() || a.channels() != b.channels() || a.kept() != b.kept())
      return false;
    for (Index n = 0; n < a.batch(); ++n) {
      if (a.tokens_seen(n) != b.tokens_seen(n)) return false;
      for (std::int64_t t = a.oldest_input(n); t < a.tokens_seen(n); ++t)
        if (a.channels() > 0 &&
            std::memcmp(a.input(n, t), b.input(n, t),
                        static_cast<std::size_t>(a.channels()) * sizeof(T)) != 0)
          return false;
    }
    return true;
  }

  /// How many inputs a later one needs: taps - 1.
  Index kept() const noexcept { return inputs_.extent(1) - max_rollback_; }
  /// The first of the newest tokens whose inputs a later one needs.
  std::int64_t oldest_input(Index sequence) const noexcept {
    return std::max<std::int64_t>(0, at(sequence).seen - kept());
  }
  /// Makes a sequence one of `tokens_seen` tokens whose newest inputs the caller then fills in; it
  /// can be rolled back to here and no further.
  void begin_history(Index sequence, std::int64_t tokens_seen) noexcept {
    at(sequence) = {tokens_seen, tokens_seen};
  }

  /// The input of an earlier token that is still kept, for the convolution: `token` is at least
  /// tokens_seen - taps + 1.
  const T* input(Index sequence, std::int64_t token) const noexcept {
    return inputs_.data() + offset(sequence, token);
  }
  T* input(Index sequence, std::int64_t token) noexcept {
    return inputs_.data() + offset(sequence, token);
  }
  /// Puts `count` new inputs [count, channels] behind those seen.
  void append(Index sequence, const T* rows, Index count) noexcept {
    Position& position = at(sequence);
    const Index kept = std::min(count, inputs_.extent(1));
    for (Index i = count - kept; i < count; ++i)
      std::copy_n(rows + i * channels(), channels(),
                  inputs_.data() + offset(sequence, position.seen + i));
    position.seen += count;
    position.oldest_reachable = std::max(position.oldest_reachable, position.seen - max_rollback_);
  }

 private:
  struct Position {
    std::int64_t seen = 0;
    std::int64_t oldest_reachable = 0;  // position up to which rollback() can go back
  };
  Index offset(Index sequence, std::int64_t token) const noexcept {
    const Index capacity = inputs_.extent(1);
    return (sequence * capacity + static_cast<Index>(token % capacity)) * channels();
  }
  Position& at(Index sequence) noexcept { return positions_[static_cast<std::size_t>(sequence)]; }
  const Position& at(Index sequence) const noexcept {
    return positions_[static_cast<std::size_t>(sequence)];
  }
  void check_sequence(Index sequence) const {
    check_argument(sequence >= 0 && sequence < batch(), "sequence is ", sequence,
                   "; expected 0 to ", batch() - 1);
  }

  Index max_rollback_;
  Tensor<T, 3> inputs_;  // [batch, ring of taps - 1 + max_rollback, channels]
  std::vector<Position> positions_;
};

/// y[t][c] = silu(bias[c] + sum_i weight[c][i] * x[t - taps + 1 + i][c]) for each sequence, inputs
/// before its first being 0: x and y [rows, channels], contiguous and not overlapping; weight
/// [channels, taps]; bias [channels] or empty. Continues from the state and moves it on.
/// @throws ArgumentError if the shapes do not fit.
template <std::floating_point T>
void short_convolution(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                       const TokenBatch& tokens,
                       std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                       std::type_identity_t<TensorView<const T, Dynamic>> bias,
                       ConvolutionState<T>& state, TensorView<T, Dynamic, Dynamic> y) {
  const Index channels = state.channels();
  const Index taps = weight.extent(1);
  validate(tokens, state.batch());
  check_argument(
      x.extent(0) == tokens.rows() && x.extent(1) == channels && y.extents() == x.extents(),
      "x and y of short_convolution must be [", tokens.rows(), ", ", channels, "]");
  check_argument(weight.extent(0) == channels, "weight of short_convolution has ", weight.extent(0),
                 " channels; expected ", channels);
  for (Index n = 0; n < tokens.sequences(); ++n) {
    const Index first = tokens.first_row(n);
    const Index count = tokens.count(n);
    const std::int64_t seen = state.tokens_seen(n);
    for (Index t = 0; t < count; ++t) {
      T* out = y.data() + (first + t) * channels;
      for (Index c = 0; c < channels; ++c) out[c] = bias.empty() ? T{0} : bias(c);
      for (Index i = 0; i < taps; ++i) {
        const Index source = t - taps + 1 + i;
        if (seen + source < 0) continue;
        const T* in =
            source >= 0 ? x.data() + (first + source) * channels : state.input(n, seen + source);
        for (Index c = 0; c < channels; ++c) out[c] += weight(c, i) * in[c];
      }
      silu(out, channels);
    }
    state.append(n, x.data() + first * channels, count);
  }
}

NHA_ISA_NAMESPACE_END
