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
#include <nha/model/rotary_table.hpp>
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

  /// Replaces dx [rows, hidden], the gradient of the block's output, by that of its input where
  /// that is wanted. Adds to the gradients of the weights. An empty gradient is not wanted, and
  /// nothing is computed that only it would need.
  /// @param a what the call has kept
  /// @param lse, slot_share cotangents of these, or nothing
  /// @param input_wanted whether the gradient of the input is; if not, dx is used up
  void run(const Rows& dx, const TokenBatch& tokens, const RotaryTable<T>& table,
           const LayerState<T>& state_before, const typename DecoderBlock<T>::Activations& a,
           const typename Attention::PerHead& lse, const typename Attention::PerHead& slot_share,
           bool input_wanted, DecoderBlockWeights<T>& gradients, const Scratch& s,
           Workspace& kernel, ExecutorRef executor) const {
    const auto weights = block_.weights();
    const auto rows = [&](T* data) { return Rows(data, dx.extents()); };
    const Rows d_normed = rows(s.normed);
    const auto of_norm = [&](bool wanted) { return wanted ? d_normed : Rows(); };
    // What lies before the norm of the feed-forward layer, and before that of the attention.
    const bool attention_wanted =
        input_wanted || has_any(gradients.attn) || detail::any_present(gradients.attn_norm);

    const Rows d_feed_forward =
        of_norm(attention_wanted || detail::any_present(gradients.mlp_norm));
    block_.feed_forward().backward(rows(a.feed_forward_normed), dx, a.feed_forward, d_feed_forward,
                                   gradients.mlp, s.feed_forward, executor);
    add_norm(rows(a.feed_forward_input), weights.mlp_norm, d_feed_forward, gradients.mlp_norm,
             attention_wanted, dx);
    if (!attention_wanted) return;
    const Rows d_attention = of_norm(input_wanted || detail::any_present(gradients.attn_norm));
    attention_.run(rows(a.attention_normed), tokens, table, state_before, a.attention,
                   {.y = dx, .lse = lse, .slot_share = slot_share}, d_attention, gradients.attn,
                   s.attention, kernel, executor);
    add_norm(rows(a.attention_input), weights.attn_norm, d_attention, gradients.attn_norm,
             input_wanted, dx);
  }

 private:
  /// Goes back through a norm, whose input also went past it.
  /// @param d_normed empty where nothing is wanted
  void add_norm(const ConstRows& x, const Tensor<T, 1>& weight, const Rows& d_normed,
                Tensor<T, 1>& gradient, bool input_wanted, const Rows& dx) const {
    if (d_normed.empty()) return;
    rms_norm_backward(x, weight, block_.norm_eps(), d_normed, input_wanted ? d_normed : Rows(),
                      gradient.view());
    if (!input_wanted) return;
    for (Index i = 0; i < dx.size(); ++i) dx.data()[i] += d_normed.data()[i];
  }

  const DecoderBlock<T>& block_;
  Attention attention_;
};

NHA_ISA_NAMESPACE_END
