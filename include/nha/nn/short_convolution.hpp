// SPDX-License-Identifier: MIT
// The short convolution that some layers put over q, k and v: causal, over a few tokens, each
// channel for itself, then silu; and the inputs it must remember between calls.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/transpose.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/options.hpp>
#include <nha/nn/token_batch.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory_resource>
#include <type_traits>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The newest inputs of a short convolution, for each sequence: a value, as AttentionState is.
/// It keeps kernel_size - 1 inputs, and max_rollback more so that tokens can be taken back.
template <std::floating_point T>
class ConvolutionState {
 public:
  /// @throws ArgumentError if a size is out of range.
  ConvolutionState(Index batch, Index channels, Index kernel_size, Index max_rollback = 0,
                   std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : max_rollback_(max_rollback),
        inputs_(checked_sizes(batch, channels, kernel_size, max_rollback), memory),
        positions_(static_cast<std::size_t>(batch)) {}

  Index batch() const noexcept { return inputs_.extent(0); }
  Index channels() const noexcept { return inputs_.extent(2); }
  Index max_rollback() const noexcept { return max_rollback_; }
  std::size_t bytes() const noexcept {
    return inputs_.values().size_bytes() + positions_.size() * sizeof(Position);
  }
  /// @throws ArgumentError if there is no such sequence.
  std::int64_t tokens_seen(Index sequence) const { return at(sequence).seen; }

  void reset() noexcept { std::fill(positions_.begin(), positions_.end(), Position{}); }
  /// @throws ArgumentError if there is no such sequence.
  void reset(Index sequence) { at(sequence) = {}; }

  /// Copies one sequence to a place of a state of the same sizes (but for the batch).
  /// @throws ArgumentError if a sequence does not exist or the states do not match.
  void fork(Index from, ConvolutionState& target, Index to) const {
    const Position& position = at(from);
    Position& target_position = target.at(to);
    check_argument(same_layer(target), "target of fork is a convolution state of other sizes");
    target_position = position;
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
        if (std::memcmp(a.input(n, t), b.input(n, t),
                        static_cast<std::size_t>(a.channels()) * sizeof(T)) != 0)
          return false;
    }
    return true;
  }

  /// How many inputs a later one needs: kernel_size - 1.
  Index kept() const noexcept { return inputs_.extent(1) - max_rollback_; }
  /// The first of the newest tokens whose inputs a later one needs.
  /// @throws ArgumentError if there is no such sequence.
  std::int64_t oldest_input(Index sequence) const {
    return std::max<std::int64_t>(0, at(sequence).seen - kept());
  }
  /// Makes a sequence one of `tokens_seen` tokens whose newest inputs the caller then fills in; it
  /// can be rolled back to here and no further.
  /// @throws ArgumentError if there is no such sequence or tokens_seen is negative.
  void begin_history(Index sequence, std::int64_t tokens_seen) {
    check_argument(tokens_seen >= 0, "tokens_seen is ", tokens_seen, "; expected 0 or more");
    at(sequence) = {tokens_seen, tokens_seen};
  }

  /// The input [channels] of one of the newest tokens: from oldest_input() to the last one seen.
  /// @throws ArgumentError if there is no such sequence or the token is none of these.
  const T* input(Index sequence, std::int64_t token) const {
    check_token(sequence, token);
    return inputs_.data() + offset(sequence, token);
  }
  T* input(Index sequence, std::int64_t token) {
    check_token(sequence, token);
    return inputs_.data() + offset(sequence, token);
  }
  /// Puts new inputs, rows [count, channels], behind those seen.
  /// @throws ArgumentError if there is no such sequence or the rows do not fit.
  void append(Index sequence, TensorView<const T, Dynamic, Dynamic> rows) {
    Position& position = at(sequence);
    const Index count = rows.extent(0);
    check_argument(rows.extent(1) == channels(), "rows to append have ", rows.extent(1),
                   " channels; expected ", channels());
    detail::check_rows("rows to append", rows);
    const Index kept = std::min(count, inputs_.extent(1));
    for (Index i = count - kept; i < count; ++i)
      std::copy_n(rows.data() + i * rows.stride(0), channels(),
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
  Position& at(Index sequence) {
    check_sequence(sequence);
    return positions_[static_cast<std::size_t>(sequence)];
  }
  const Position& at(Index sequence) const {
    check_sequence(sequence);
    return positions_[static_cast<std::size_t>(sequence)];
  }
  static typename Tensor<T, 3>::Sizes checked_sizes(Index batch, Index channels, Index kernel_size,
                                                    Index max_rollback) {
    check_size("batch", batch, 0);
    check_argument(channels >= 1 && channels <= kLargestSize * kLargestSize, "channels is ",
                   channels, "; expected 1 to ", kLargestSize * kLargestSize);
    check_argument(kernel_size >= 1 && kernel_size <= kMostKernelSize, "kernel_size is ",
                   kernel_size, "; expected 1 to ", kMostKernelSize);
    check_size("max_rollback", max_rollback, 0);
    check_bytes("the state of a convolution", static_cast<double>(batch) *
                                                  static_cast<double>(channels) *
                                                  static_cast<double>(kernel_size + max_rollback) *
                                                  static_cast<double>(sizeof(T)));
    return {batch, kernel_size - 1 + max_rollback, channels};
  }
  void check_sequence(Index sequence) const {
    check_argument(sequence >= 0 && sequence < batch(), "sequence is ", sequence,
                   "; expected 0 to ", batch() - 1);
  }
  void check_token(Index sequence, std::int64_t token) const {
    const std::int64_t oldest = oldest_input(sequence);
    const std::int64_t seen = at(sequence).seen;
    check_argument(token >= oldest && token < seen, "token is ", token,
                   "; the convolution keeps the inputs of ", oldest, " to ", seen - 1);
  }

  Index max_rollback_;
  Tensor<T, 3> inputs_;  // [batch, ring of kernel_size - 1 + max_rollback, channels]
  std::vector<Position> positions_;
};

namespace detail {

/// Weights of neighbouring channels, as many as fit. Stored as [channels, kernel size], they are
/// turned into a row for each place of the kernel, as vectors run along the channels.
template <class T>
class KernelTile {
 public:
  static constexpr Index kNumbers = 2048;
  static_assert(kNumbers >= kMostKernelSize);

  /// @param all [channels, kernel size], of which this takes those from `first` on
  KernelTile(const TensorView<const T, Dynamic, Dynamic>& all, Index first) noexcept
      : channel(first),
        kernel_size(all.extent(1)),
        channels(std::min(kNumbers / kernel_size, all.extent(0) - first)) {
    Index c = 0;
    if (kernel_size == 4 && all.has_contiguous_rows())
      for (; c + 4 <= channels; c += 4) {
        const T* const rows[4] = {&all(first + c, 0), &all(first + c + 1, 0),
                                  &all(first + c + 2, 0), &all(first + c + 3, 0)};
        cpu::simd::transpose_four(rows, weights_ + c, channels);
      }
    for (; c < channels; ++c)
      for (Index i = 0; i < kernel_size; ++i) weights_[i * channels + c] = all(first + c, i);
  }

  const Index channel, kernel_size, channels;
  /// The weights [channels] of a place of the kernel.
  const T* operator[](Index place) const noexcept { return weights_ + place * channels; }

 private:
  T weights_[kNumbers];
};

/// to[i] += a[i] * b[i] for `count` numbers.
template <class Arch, class T>
NHA_INLINE void add_products(const T* a, const T* b, T* to, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    cpu::simd::store(to + i, cpu::simd::fma(cpu::simd::load<V>(a + i), cpu::simd::load<V>(b + i),
                                            cpu::simd::load<V>(to + i)));
  for (; i < count; ++i) to[i] = cpu::simd::fma(a[i], b[i], to[i]);
}

/// The sums before the silu for one token and the channels of a tile: out[c] = bias[c] + sum_i
/// weight[c][i] * input(i)[c], where input(i) is the row of all channels that place i of the kernel
/// meets, or null before the sequence; c counts from the tile's first channel on.
template <class Arch, class T, class Input>
NHA_INLINE void convolve_token(const KernelTile<T>& tile, const TensorView<const T, Dynamic>& bias,
                               const Input& input, T* out) {
  for (Index c = 0; c < tile.channels; ++c) out[c] = bias.empty() ? T{0} : bias(tile.channel + c);
  for (Index i = 0; i < tile.kernel_size; ++i)
    if (const T* in = input(i); in != nullptr)
      add_products<Arch>(tile[i], in + tile.channel, out, tile.channels);
}

}  // namespace detail

/// y[t][c] = silu(bias[c] + sum_i weight[c][i] * x[t - kernel_size + 1 + i][c]) for each sequence,
/// inputs before its first being 0. x and y are [rows, channels] with contiguous rows and do not
/// overlap; weight is [channels, kernel size]; bias is [channels] or empty. Continues from the
/// state and moves it on.
/// @throws ArgumentError if the shapes do not fit each other or the state, or there is no data;
///   nothing has then been touched.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void short_convolution(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                       const TokenBatch& tokens,
                       std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                       std::type_identity_t<TensorView<const T, Dynamic>> bias,
                       ConvolutionState<T>& state, TensorView<T, Dynamic, Dynamic> y) {
  const Index channels = state.channels();
  const Index kernel_size = weight.extent(1);
  validate(tokens, state.batch());
  detail::check_matrix("x of short_convolution", x, tokens.rows(), channels);
  detail::check_matrix("y of short_convolution", y, tokens.rows(), channels);
  check_argument(weight.extent(0) == channels && kernel_size == state.kept() + 1,
                 "weight of short_convolution is [", weight.extent(0), ", ", kernel_size,
                 "]; the state is of [", channels, ", ", state.kept() + 1, "]");
  check_argument(weight.data() != nullptr, "weight of short_convolution has no data");
  check_argument(bias.empty() || bias.extent(0) == channels, "bias of short_convolution has ",
                 bias.extent(0), " entries; expected ", channels, " or none");
  check_argument(bias.empty() || bias.data() != nullptr, "bias of short_convolution has no data");
  for (Index channel = 0; channel < channels;) {
    const detail::KernelTile<T> tile(weight, channel);
    for (Index n = 0; n < tokens.sequences(); ++n) {
      const Index first = tokens.first_row(n);
      const std::int64_t seen = state.tokens_seen(n);
      for (Index t = 0; t < tokens.count(n); ++t) {
        T* out = y.data() + (first + t) * y.stride(0) + channel;
        const auto input = [&](Index i) -> const T* {
          const Index source = t - kernel_size + 1 + i;
          if (seen + source < 0) return nullptr;
          return source >= 0 ? x.data() + (first + source) * x.stride(0)
                             : std::as_const(state).input(n, seen + source);
        };
        detail::convolve_token<Arch>(tile, bias, input, out);
        silu<Arch>(out, tile.channels);
      }
    }
    channel += tile.channels;
  }
  for (Index n = 0; n < tokens.sequences(); ++n)
    state.append(n, x.template slice<0>(tokens.first_row(n), tokens.count(n)));
}

NHA_ISA_NAMESPACE_END
