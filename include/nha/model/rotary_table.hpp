// SPDX-License-Identifier: MIT
// The cosines and sines that rotate the window's queries and keys, for the positions of one call.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/nn/rotary.hpp>
#include <nha/nn/token_batch.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// Cosines and sines of the positions of a batch of tokens, [rows, key_dim / 2] each.
template <std::floating_point T>
struct RotaryTable {
  TensorView<T, Dynamic, Dynamic> cosine, sine;
  double* frequencies;  // [key_dim / 2]

  static RotaryTable take(Arena& cursor, Index key_dim, Index rows) noexcept {
    const Index half = key_dim / 2;
    T* cosine = cursor.take<T>(rows * half);
    T* sine = cursor.take<T>(rows * half);
    return {{cosine, {rows, half}}, {sine, {rows, half}}, cursor.take<double>(half)};
  }
  /// Fills in the positions that follow the tokens that the sequences of the state have seen.
  void fill(const TokenBatch& tokens, const LayerState<T>& state, double theta) const {
    const Index half = cosine.extent(1);
    rotary_frequencies(theta, 2 * half, frequencies);
    for (Index n = 0; n < tokens.sequences(); ++n)
      for (Index i = 0; i < tokens.count(n); ++i) {
        const Index row = tokens.first_row(n) + i;
        rotary_row(state.tokens_seen(n) + i, frequencies, half, &cosine(row, 0), &sine(row, 0));
      }
  }
};

/// The tables of a model: one for each pair of rope_theta and key_dim among its layers, so that
/// equal layers share one. It holds no numbers; those lie in memory that a call takes.
class RotaryTables {
 public:
  explicit RotaryTables(const std::vector<LayerSpec>& layers) {
    for (const LayerSpec& layer : layers) {
      const Kind kind{layer.options.rope_theta, layer.shape.key_dim};
      const auto place = std::find(kinds_.begin(), kinds_.end(), kind);
      of_layer_.push_back(static_cast<std::size_t>(place - kinds_.begin()));
      if (place == kinds_.end()) kinds_.push_back(kind);
    }
  }

  /// Takes memory for the tables of `rows` tokens, one after another.
  template <std::floating_point T>
  std::byte* take(Arena& cursor, Index rows) const noexcept {
    return cursor.take<std::byte>(static_cast<Index>(end<T>(kinds_.size(), rows)));
  }
  /// Fills in all tables in memory that take() has given.
  template <std::floating_point T>
  void fill(std::byte* memory, const TokenBatch& tokens, const LayerState<T>& state) const {
    for (std::size_t kind = 0; kind < kinds_.size(); ++kind)
      table<T>(memory, kind, tokens.rows()).fill(tokens, state, kinds_[kind].theta);
  }
  /// The table of layer n.
  template <std::floating_point T>
  RotaryTable<T> of_layer(std::byte* memory, Index n, Index rows) const noexcept {
    return table<T>(memory, of_layer_[static_cast<std::size_t>(n)], rows);
  }

 private:
  struct Kind {
    double theta;
    Index key_dim;
    bool operator==(const Kind&) const = default;
  };

  /// Bytes of the tables before number `kind`.
  template <class T>
  std::size_t end(std::size_t kind, Index rows) const noexcept {
    Arena sizes(nullptr);
    for (std::size_t k = 0; k < kind; ++k) RotaryTable<T>::take(sizes, kinds_[k].key_dim, rows);
    return sizes.used();
  }
  template <class T>
  RotaryTable<T> table(std::byte* memory, std::size_t kind, Index rows) const noexcept {
    Arena cursor(memory + end<T>(kind, rows));
    return RotaryTable<T>::take(cursor, kinds_[kind].key_dim, rows);
  }

  std::vector<Kind> kinds_;
  std::vector<std::size_t> of_layer_;
};

NHA_ISA_NAMESPACE_END
