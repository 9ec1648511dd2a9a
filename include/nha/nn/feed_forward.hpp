// SPDX-License-Identifier: MIT
// The feed-forward layer of a decoder block: SwiGLU, W_down (silu(W_gate x) * (W_up x)); and back
// through it.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/keep.hpp>
#include <nha/nn/linear.hpp>
#include <nha/nn/linear_backward.hpp>
#include <nha/nn/named_weights.hpp>
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
  /// Their numbers may change between calls, their shapes may not.
  FeedForwardWeights<T>& weights() noexcept { return weights_; }

  /// Scratch memory of one call, each part [rows, intermediate]: W_gate x, W_up x and their product
  /// after the silu, which takes the place of the gate unless that is kept.
  struct Activations {
    T *gate, *up, *product;
  };
  Activations take_activations(Arena& cursor, Index rows,
                               Keep keep = Keep::nothing) const noexcept {
    T* gate = cursor.take<T>(rows * intermediate_);
    T* up = cursor.take<T>(rows * intermediate_);
    return {gate, up, keep == Keep::nothing ? gate : cursor.take<T>(rows * intermediate_)};
  }

  /// y = W_down (silu(W_gate x) * (W_up x)); x and y are [rows, hidden], y may be x. `a` is from
  /// take_activations() of this layer for the same number of rows, which is not checked. The result
  /// is the same whatever is kept.
  /// @throws ArgumentError if the shapes do not fit.
  void forward(const ConstRows& x, const Rows& y, const Activations& a,
               ExecutorRef executor = kSerial) const {
    const Rows gate(a.gate, {x.extent(0), intermediate_});
    const Rows up(a.up, gate.extents());
    const Rows product(a.product, gate.extents());
    linear(x, weights_.gate_proj, gate, executor);
    linear(x, weights_.up_proj, up, executor);
    silu_times(a.gate, a.up, a.product, gate.size());
    linear(product, weights_.down_proj, y, executor);
  }

  /// Scratch memory of backward(), each part [rows, intermediate].
  struct BackwardScratch {
    T *d_gate, *d_up;
  };
  BackwardScratch take_backward(Arena& cursor, Index rows) const noexcept {
    T* d_gate = cursor.take<T>(rows * intermediate_);
    return {d_gate, cursor.take<T>(rows * intermediate_)};
  }

  /// Back through forward(): from dy to dx, both [rows, hidden], and to the gradients of the
  /// weights, which are added to. dx and each of the gradients may be empty: it is then not wanted.
  /// dx and dy may be the same rows, which must not overlap x.
  ///
  /// x is what forward() was given, not overwritten since. `a` is what forward() left in
  /// activations taken with Keep::for_backward. `scratch` is from take_backward() for the same
  /// number of rows. Only the shapes are checked.
  /// @throws ArgumentError if the shapes do not fit.
  void backward(const ConstRows& x, const ConstRows& dy, const Activations& a, const Rows& dx,
                FeedForwardWeights<T>& gradients, const BackwardScratch& scratch,
                ExecutorRef executor = kSerial) const {
    const Index rows = x.extent(0);
    const Index hidden = weights_.gate_proj.extent(1);
    detail::check_matrix("x of FeedForward::backward", x, rows, hidden);
    detail::check_matrix("dy of FeedForward::backward", dy, rows, hidden);
    if (!dx.empty()) detail::check_matrix("dx of FeedForward::backward", dx, rows, hidden);
    const Rows d_gate_proj = gradients.gate_proj.view();
    const Rows d_up_proj = gradients.up_proj.view();
    const Rows d_down_proj = gradients.down_proj.view();
    check_gradient("gradient of gate_proj", d_gate_proj, intermediate_, hidden);
    check_gradient("gradient of up_proj", d_up_proj, intermediate_, hidden);
    check_gradient("gradient of down_proj", d_down_proj, hidden, intermediate_);
    const ConstRows product(a.product, {rows, intermediate_});
    const Rows d_gate(scratch.d_gate, product.extents());
    const Rows d_up(scratch.d_up, product.extents());
    const bool below = !dx.empty() || !d_gate_proj.empty() || !d_up_proj.empty();
    linear_backward(product, weights_.down_proj, dy, below ? d_gate : Rows(), d_down_proj,
                    executor);
    if (!below) return;
    silu_times_backward(a.gate, a.up, scratch.d_gate, scratch.d_gate, scratch.d_up, product.size());
    linear_backward(x, weights_.gate_proj, d_gate, dx, d_gate_proj, executor);
    linear_backward(x, weights_.up_proj, d_up, dx, d_up_proj, executor, InputGradient::added);
  }

 private:
  static void check_gradient(const char* name, const Rows& gradient, Index rows, Index columns) {
    if (!gradient.empty()) detail::check_matrix(name, gradient, rows, columns);
  }

  Index intermediate_;
  FeedForwardWeights<T> weights_;
};

NHA_ISA_NAMESPACE_END
