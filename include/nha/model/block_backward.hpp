// SPDX-License-Identifier: MIT
// Backward of a decoder block: the steps of DecoderBlock::run, last to first.
#pragma once

#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/block.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/native_hybrid_attention_backward.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/nn/token_batch.hpp>
#include <nha/parallel/executor.hpp>

#include <concepts>
#include <cstddef>

NHA_ISA_NAMESPACE_BEGIN

/// Goes back through one call of a block that has kept its activations (Keep::for_backward) and
/// began with empty convolutions. Checks nothing: the model has.
template <std::floating_point T>
class DecoderBlockBackward {
 public:
  using Attention = NativeHybridAttentionBackward<T>;
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using ConstRows = TensorView<const T, Dynamic, Dynamic>;

  explicit DecoderBlockBackward(const DecoderBlock<T>& block) noexcept
      : block_(block), attention_(block.attention()) {}

  const Attention& attention() const noexcept { return attention_; }

  /// Scratch memory of one call; blocks of one model can share it.
  struct Scratch {
    T* normed;
    typename Attention::Scratch attention;
    typename FeedForward<T>::BackwardScratch feed_forward;
  };
  Scratch take_scratch(Arena& cursor, Index rows) const noexcept {
    Scratch s{};
    s.normed = cursor.take<T>(rows * block_.attention().shape().hidden);
    s.attention = attention_.take_scratch(cursor, rows);
    s.feed_forward = block_.feed_forward().take_backward(cursor, rows);
    return s;
  }

  /// Replaces dx [rows, hidden], the gradient of the block's output, by that of its input, and adds
  /// to the gradients of the weights.
  /// @param a what the call has kept
  /// @param lse, slot_share cotangents of these, or nothing
  template <Executor E>
  void run(const Rows& dx, const TokenBatch& tokens, const RotaryTable<T>& table,
           const LayerState<T>& state_before, const typename DecoderBlock<T>::Activations& a,
           const typename Attention::PerQuery& lse, const typename Attention::PerQuery& slot_share,
           DecoderBlockWeights<T>& gradients, const Scratch& s, Workspace& kernel,
           E&& executor) const {
    const auto weights = block_.weights();
    const auto rows = [&](T* data) { return Rows(data, dx.extents()); };
    const Rows d_normed = rows(s.normed);
    block_.feed_forward().backward(rows(a.feed_forward_normed), dx, a.feed_forward, d_normed,
                                   gradients.mlp, s.feed_forward, executor);
    add_norm(rows(a.feed_forward_input), weights.mlp_norm, d_normed, gradients.mlp_norm, dx);
    attention_.run(rows(a.attention_normed), tokens, table, state_before, a.attention,
                   {.y = dx, .lse = lse, .slot_share = slot_share}, d_normed, gradients.attn,
                   s.attention, kernel, executor);
    add_norm(rows(a.attention_input), weights.attn_norm, d_normed, gradients.attn_norm, dx);
  }

 private:
  /// Goes back through a norm, whose input also went past it.
  void add_norm(const ConstRows& x, const Tensor<T, 1>& weight, const Rows& d_normed,
                Tensor<T, 1>& gradient, const Rows& dx) const {
    rms_norm_backward(x, weight, block_.norm_eps(), d_normed, d_normed, gradient.view());
    for (Index i = 0; i < dx.size(); ++i) dx.data()[i] += d_normed.data()[i];
  }

  const DecoderBlock<T>& block_;
  Attention attention_;
};

NHA_ISA_NAMESPACE_END
