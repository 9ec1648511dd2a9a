// SPDX-License-Identifier: MIT
// The feed-forward layer of a decoder block: SwiGLU, W_down (silu(W_gate x) * (W_up x)).
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/layer/activation.hpp>
#include <nha/layer/linear.hpp>
#include <nha/layer/weights.hpp>
#include <nha/parallel/executor.hpp>

#include <concepts>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// SwiGLU: each token for itself, nothing remembered.
template <std::floating_point T>
class FeedForward {
 public:
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using ConstRows = TensorView<const T, Dynamic, Dynamic>;

  /// @throws ArgumentError if a weight does not fit the sizes.
  FeedForward(Index hidden, Index intermediate, FeedForwardWeights<T> weights)
      : intermediate_(intermediate), weights_(std::move(weights)) {
    visit_feed_forward_weights(hidden, intermediate, "", weights_, detail::CheckWeights());
  }

  const FeedForwardWeights<T>& weights() const noexcept { return weights_; }

  /// Scratch memory of one call.
  struct Activations {
    T *gate, *up;
  };
  Activations take_activations(SectionCursor& cursor, Index rows) const noexcept {
    T* gate = cursor.take<T>(rows * intermediate_);
    return {gate, cursor.take<T>(rows * intermediate_)};
  }

  /// y = W_down (silu(W_gate x) * (W_up x)); x and y are [rows, hidden], y may be x. `a` is from
  /// take_activations() of this layer for the same number of rows, which is not checked.
  /// @throws ArgumentError if the shapes do not fit.
  template <Executor E = const Serial>
  void forward(const ConstRows& x, const Rows& y, const Activations& a,
               E&& executor = Serial{}) const {
    const Rows gate(a.gate, {x.extent(0), intermediate_});
    const Rows up(a.up, {x.extent(0), intermediate_});
    linear(x, weights_.gate_proj, gate, executor);
    linear(x, weights_.up_proj, up, executor);
    silu_times(a.gate, a.up, gate.size());
    linear(gate, weights_.down_proj, y, executor);
  }

 private:
  Index intermediate_;
  FeedForwardWeights<T> weights_;
};

NHA_ISA_NAMESPACE_END
