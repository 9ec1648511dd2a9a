// SPDX-License-Identifier: MIT
// A decoder block: x + attention(RMSNorm(x)), then x + SwiGLU(RMSNorm(x)).
#pragma once

#include <nha/attention/prefill.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/layer_spec.hpp>
#include <nha/model/native_hybrid_attention.hpp>
#include <nha/model/rotary_table.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/feed_forward.hpp>
#include <nha/nn/keep.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// One block of a model. Its windows are the state's matter.
template <std::floating_point T>
class DecoderBlock {
 public:
  using Rows = TensorView<T, Dynamic, Dynamic>;

  /// @param intermediate, norm_eps as in ModelOptions
  /// @throws ArgumentError if a weight does not fit the options.
  NHA_COLD DecoderBlock(const LayerSpec& layer, Index intermediate, double norm_eps,
                        DecoderBlockWeights<T> weights)
      : norm_eps_(norm_eps),
        attention_norm_(std::move(weights.attn_norm)),
        attention_(layer.shape, layer.options, std::move(weights.attn)),
        feed_forward_norm_(std::move(weights.mlp_norm)),
        feed_forward_(layer.shape.hidden, intermediate, std::move(weights.mlp)) {
    const detail::CheckWeights check;
    check("attn_norm.weight", attention_norm_, {layer.shape.hidden});
    check("mlp_norm.weight", feed_forward_norm_, {layer.shape.hidden});
  }

  const NativeHybridAttention<T>& attention() const noexcept { return attention_; }
  const FeedForward<T>& feed_forward() const noexcept { return feed_forward_; }
  /// The weights where they lie, under the names of DecoderBlockWeights. Their numbers may change
  /// between calls, their shapes may not.
  auto weights() noexcept {
    return DecoderBlockWeightRefs<Tensor<T, 1>, AttentionWeights<T>, FeedForwardWeights<T>>{
        attention_norm_, attention_.weights(), feed_forward_norm_, feed_forward_.weights()};
  }
  auto weights() const noexcept {
    return DecoderBlockWeightRefs<const Tensor<T, 1>, const AttentionWeights<T>,
                                  const FeedForwardWeights<T>>{
        attention_norm_, attention_.weights(), feed_forward_norm_, feed_forward_.weights()};
  }
  double norm_eps() const noexcept { return norm_eps_; }

  /// Results of one call; blocks of one model can share the memory of what is not kept.
  struct Activations {
    T *attention_input, *feed_forward_input;    // copies of the residual stream; kept only
    T *attention_normed, *feed_forward_normed;  // one for both where nothing is kept
    T* update;
    typename NativeHybridAttention<T>::Activations attention;
    typename FeedForward<T>::Activations feed_forward;
  };
  Activations take_activations(Arena& cursor, Index rows,
                               Keep keep = Keep::nothing) const noexcept {
    const Index count = rows * attention_.shape().hidden;
    const bool kept = keep == Keep::for_backward;
    Activations a{};
    if (kept) {
      a.attention_input = cursor.take<T>(count);
      a.feed_forward_input = cursor.take<T>(count);
    }
    a.attention_normed = cursor.take<T>(count);
    a.feed_forward_normed = kept ? cursor.take<T>(count) : a.attention_normed;
    a.update = cursor.take<T>(count);
    a.attention = attention_.take_activations(cursor, rows, keep);
    a.feed_forward = feed_forward_.take_activations(cursor, rows, keep);
    return a;
  }

  /// Replaces x [rows, hidden] by the block's output. Checks nothing: the model has.
  void run(const Rows& x, const TokenBatch& tokens, const RotaryTable<T>& table,
           LayerState<T>& state, const Activations& a, Workspace& kernel,
           const typename NativeHybridAttention<T>::PerHead& slot_share,
           const PrefillOptions& algorithm, ExecutorRef executor) const {
    const Rows update(a.update, x.extents());
    const Rows attention_normed(a.attention_normed, x.extents());
    keep(x, a.attention_input);
    rms_norm(x, attention_norm_, norm_eps_, attention_normed);
    attention_.run(attention_normed, tokens, table, state, update, a.attention, kernel, slot_share,
                   algorithm, executor);
    add(update, x);
    const Rows feed_forward_normed(a.feed_forward_normed, x.extents());
    keep(x, a.feed_forward_input);
    rms_norm(x, feed_forward_norm_, norm_eps_, feed_forward_normed);
    feed_forward_.forward(feed_forward_normed, update, a.feed_forward, executor);
    add(update, x);
  }

 private:
  static void keep(const Rows& x, T* copy) noexcept {
    if (copy != nullptr) std::copy_n(x.data(), x.size(), copy);
  }
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
