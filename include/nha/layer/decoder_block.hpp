// SPDX-License-Identifier: MIT
// A decoder block: x + attention(RMSNorm(x)), then x + SwiGLU(RMSNorm(x)).
#pragma once

#include <nha/attention/prefill.hpp>
#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/layer/feed_forward.hpp>
#include <nha/layer/model_options.hpp>
#include <nha/layer/native_hybrid_attention.hpp>
#include <nha/layer/rms_norm.hpp>
#include <nha/layer/weights.hpp>
#include <nha/parallel/executor.hpp>

#include <concepts>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// One block of a model. `options` are the model's; its window is the state's matter.
template <std::floating_point T>
class DecoderBlock {
 public:
  using Rows = TensorView<T, Dynamic, Dynamic>;

  /// @throws ArgumentError if a weight does not fit the options.
  DecoderBlock(const ModelOptions& options, DecoderBlockWeights<T> weights)
      : norm_eps_(options.norm_eps),
        attention_norm_(std::move(weights.attn_norm)),
        attention_(options.shape, options.layer, std::move(weights.attn)),
        feed_forward_norm_(std::move(weights.mlp_norm)),
        feed_forward_(options.shape.hidden, options.intermediate, std::move(weights.mlp)) {
    const detail::CheckWeights check;
    check("attn_norm.weight", attention_norm_, {options.shape.hidden});
    check("mlp_norm.weight", feed_forward_norm_, {options.shape.hidden});
  }

  const NativeHybridAttention<T>& attention() const noexcept { return attention_; }
  const FeedForward<T>& feed_forward() const noexcept { return feed_forward_; }

  /// Scratch memory of one call; blocks of one model can share it.
  struct Activations {
    T* normed;
    T* update;
    typename NativeHybridAttention<T>::Activations attention;
    typename FeedForward<T>::Activations feed_forward;
  };
  Activations take_activations(SectionCursor& cursor, Index rows) const noexcept {
    Activations a{};
    a.normed = cursor.take<T>(rows * attention_.shape().hidden);
    a.update = cursor.take<T>(rows * attention_.shape().hidden);
    a.attention = attention_.take_activations(cursor, rows);
    a.feed_forward = feed_forward_.take_activations(cursor, rows);
    return a;
  }

  /// Replaces x [rows, hidden] by the block's output. Checks nothing: the model has.
  template <Executor E>
  void run(const Rows& x, const TokenBatch& tokens, const RotaryTable<T>& table,
           LayerState<T>& state, const Activations& a, Workspace& kernel,
           const typename NativeHybridAttention<T>::Share& slot_share,
           const PrefillOptions& algorithm, E&& executor) const {
    const Rows normed(a.normed, x.extents());
    const Rows update(a.update, x.extents());
    rms_norm(x, attention_norm_, norm_eps_, normed);
    attention_.run(normed, tokens, table, state, update, a.attention, kernel, slot_share, algorithm,
                   executor);
    add(update, x);
    rms_norm(x, feed_forward_norm_, norm_eps_, normed);
    feed_forward_.forward(normed, update, a.feed_forward, executor);
    add(update, x);
  }

 private:
  static void add(const Rows& update, const Rows& x) noexcept {
    for (Index i = 0; i < x.size(); ++i) x.data()[i] += update.data()[i];
  }

  double norm_eps_;
  Tensor<T, 1> attention_norm_;
  NativeHybridAttention<T> attention_;
  Tensor<T, 1> feed_forward_norm_;
  FeedForward<T> feed_forward_;
};

NHA_ISA_NAMESPACE_END
