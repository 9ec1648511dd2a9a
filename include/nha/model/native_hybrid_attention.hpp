// SPDX-License-Identifier: MIT
// The Native Hybrid Attention layer: projections around the operator.
//
//   q, k, v = W_q x, W_k x, W_v x                      (a short convolution over each, if any)
//   o       = operator(window: rotary(q), rotary(k);   slots: feature_map(q), feature_map(k);
//                      values: silu(v);                gate: log_sigmoid(W_f x) / divisor)
//   y       = W_o RMSNorm(silu(o))
//
// Which of these a layer has is in LayerOptions.
#pragma once

#include <nha/attention/prefill.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/rotary_table.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/feature_map.hpp>
#include <nha/nn/gate.hpp>
#include <nha/nn/keep.hpp>
#include <nha/nn/linear.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/nn/rotary.hpp>
#include <nha/nn/short_convolution.hpp>
#include <nha/nn/token_batch.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

/// Scratch memory of layers and models: theirs, and that of the operator they call. Grows at the
/// first call that needs more and may serve any number of layers, models and states in turn.
struct LayerWorkspace {
  Workspace activations;
  Workspace kernel;
};

/// A layer: weights, which change only through weights(), used with any number of states. Const
/// calls from several threads are safe as long as each has its own state and workspace and nobody
/// changes the weights.
template <std::floating_point T>
class NativeHybridAttention {
 public:
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using ConstRows = TensorView<const T, Dynamic, Dynamic>;
  using PerHead = TensorView<T, Dynamic, Dynamic, Dynamic>;

  /// @throws ArgumentError if an option is out of range or a weight has another shape than the
  ///   options ask for.
  NativeHybridAttention(const LayerShape& shape, const LayerOptions& options,
                        AttentionWeights<T> weights)
      : shape_(shape), options_(options), weights_(std::move(weights)) {
    validate(shape);
    validate(options, shape);
    visit_attention_weights(shape, options, "", weights_, detail::CheckWeights());
  }

  const LayerShape& shape() const noexcept { return shape_; }
  const LayerOptions& options() const noexcept { return options_; }
  const AttentionWeights<T>& weights() const noexcept { return weights_; }
  /// Their numbers may change between calls, their shapes may not.
  AttentionWeights<T>& weights() noexcept { return weights_; }

  /// An empty state with the layer's own windows.
  /// @throws ArgumentError if batch or max_rollback is out of range.
  LayerState<T> make_state(Index batch = 1, Index max_rollback = 0) const {
    return LayerState<T>(shape_, options_, batch, max_rollback);
  }

  /// y = layer(x) for new tokens x [rows, hidden] of the state's sequences, continuing from the
  /// state; y [rows, hidden] must not overlap x. Rows must be contiguous. The result is the same
  /// however the tokens are cut into calls. With slot_share [batch, tokens, query heads], also the
  /// part of each head's attention that fell on the slots.
  ///
  /// All scratch memory is reserved before the state is touched.
  /// @throws ArgumentError if the shapes do not fit each other or the state; nothing has then been
  ///   touched.
  void forward(ConstRows x, const TokenBatch& tokens, LayerState<T>& state, Rows y,
               LayerWorkspace& workspace, PerHead slot_share = {},
               ExecutorRef executor = kSerial) const {
    check(x, tokens, state, y, slot_share);
    const auto sections = [&](Arena& cursor) {
      const auto table = RotaryTable<T>::take(cursor, shape_.key_dim, tokens.rows());
      return std::pair(table, take_activations(cursor, tokens.rows()));
    };
    Arena sizes(nullptr);
    sections(sizes);
    workspace.activations.reserve(sizes.used());
    workspace.kernel.reserve(kernel_bytes(tokens, state, {}, executor.workers()));
    Arena cursor(workspace.activations.data());
    const auto taken = sections(cursor);
    taken.first.fill(tokens, state, options_.rope_theta);
    run(x, tokens, taken.first, state, y, taken.second, workspace.kernel, slot_share, {}, executor);
  }
  /// The same without the slots' share, on an executor.
  void forward(ConstRows x, const TokenBatch& tokens, LayerState<T>& state, Rows y,
               LayerWorkspace& workspace, ExecutorRef executor) const {
    forward(x, tokens, state, y, workspace, {}, executor);
  }

  /// @throws ArgumentError as forward() does.
  void check(const ConstRows& x, const TokenBatch& tokens, const LayerState<T>& state,
             const Rows& y, const PerHead& slot_share) const {
    check_state(state);
    validate(tokens, state.batch());
    const auto check_view = [&](const char* name, const ConstRows& view) {
      check_argument(view.extent(0) == tokens.rows() && view.extent(1) == shape_.hidden, name,
                     " is [", view.extent(0), ", ", view.extent(1), "]; expected [", tokens.rows(),
                     ", ", shape_.hidden, "]");
      detail::check_rows(name, view);
    };
    check_view("x of the layer", x);
    check_view("y of the layer", y);
    check_argument(slot_share.data() == nullptr || (slot_share.extent(0) == tokens.batch &&
                                                    slot_share.extent(1) == tokens.tokens &&
                                                    slot_share.extent(2) == shape_.query_heads),
                   "slot_share must be [", tokens.batch, ", ", tokens.tokens, ", ",
                   shape_.query_heads, "]");
    if (slot_share.data() != nullptr) detail::check_distinct("slot_share", slot_share);
  }
  /// @throws ArgumentError if the state is not one of a layer of this shape.
  void check_state(const LayerState<T>& state) const {
    check_argument(state.is_of(shape_, options_.convolution_kernel_size),
                   "the state is that of a layer of another shape");
  }

  // What follows is for models, which share one table and one set of scratch memory between their
  // layers. Nothing is checked.

  /// Results of one call, step by step. Where nothing is kept, the steps of a line share memory:
  /// each overwrites the one before it. What only backward reads is then null.
  struct Activations {
    T *q_input, *k_input, *v_input;  // of the short convolutions; one for all where nothing is kept
    T *q, *k, *v, *gate_logits;      // projected, and convolved
    T *q_slot, *k_slot, *v_active, *log_gate;
    T *q_window, *k_window;  // rotated copies
    T* map;                  // scratch memory of the feature map t2r
    T *o, *o_active, *o_normed;
    T *lse, *slot_share;  // kept only
  };
  Activations take_activations(Arena& cursor, Index rows,
                               Keep keep = Keep::nothing) const noexcept {
    const bool kept = keep == Keep::for_backward;
    const Index q = rows * shape_.query_heads * shape_.key_dim;
    const Index k = rows * shape_.kv_heads * shape_.key_dim;
    const Index v = rows * shape_.kv_heads * shape_.value_dim;
    const Index o = rows * shape_.query_heads * shape_.value_dim;
    const Index gates = rows * shape_.kv_heads * shape_.slots;
    // The memory of a step after `before`, which it may overwrite unless that is kept.
    const auto after = [&](T* before, Index count, bool changes) {
      return kept && changes ? cursor.take<T>(count) : before;
    };
    const bool maps = shape_.slots > 0 && options_.feature_map != FeatureMap::identity;
    const bool norms = options_.output == OutputForm::silu_norm;
    Activations a{};
    if (options_.convolution_kernel_size > 0) {
      a.q_input = cursor.take<T>(kept ? q : std::max(q, v));
      a.k_input = after(a.q_input, k, true);
      a.v_input = after(a.q_input, v, true);
    }
    a.q = cursor.take<T>(q);
    a.k = cursor.take<T>(k);
    a.v = cursor.take<T>(v);
    a.gate_logits = cursor.take<T>(gates);
    a.q_slot = after(a.q, q, maps);
    a.k_slot = after(a.k, k, maps);
    a.v_active = after(a.v, v, options_.value_activation == ValueActivation::silu);
    a.log_gate = after(a.gate_logits, gates, true);
    a.q_window = cursor.take<T>(q);
    a.k_window = cursor.take<T>(k);
    if (options_.feature_map == FeatureMap::t2r) a.map = cursor.take<T>(q);
    a.o = cursor.take<T>(o);
    a.o_active = after(a.o, o, norms);
    a.o_normed = after(a.o_active, o, norms);
    if (kept) {
      a.lse = cursor.take<T>(rows * shape_.query_heads);
      a.slot_share = cursor.take<T>(rows * shape_.query_heads);
    }
    return a;
  }

  /// Bytes of kernel workspace that run() needs; reserved before it, nothing in it throws.
  std::size_t kernel_bytes(const TokenBatch& tokens, const LayerState<T>& state,
                           const PrefillOptions& algorithm, Index workers) const {
    return prefill_workspace_bytes(state.attention(), shape_.query_heads, tokens.longest(),
                                   algorithm, workers);
  }

  void run(const ConstRows& x, const TokenBatch& tokens, const RotaryTable<T>& table,
           LayerState<T>& state, const Rows& y, const Activations& a, Workspace& kernel,
           const PerHead& slot_share, const PrefillOptions& algorithm, ExecutorRef executor) const {
    project(x, tokens, state, a, executor);
    if (options_.value_activation == ValueActivation::silu) {
      const Index count = tokens.rows() * shape_.kv_heads * shape_.value_dim;
      carry(a.v, a.v_active, count);
      silu(a.v_active, count);
    }
    if (has_window(state.attention().options())) rotate(tokens, table, a);
    if (shape_.slots > 0) prepare_slots(x, tokens, a, executor);
    AttentionOutputs<T> outputs{.o = heads(a.o, tokens, shape_.query_heads, shape_.value_dim),
                                .slot_share = slot_share};
    if (a.lse != nullptr) outputs.lse = per_head(a.lse, tokens);
    prefill(operator_inputs(tokens, state.attention().options(), a),
            detail::StateParts::attention(state), outputs, kernel, algorithm, executor);

    const Index channels = shape_.query_heads * shape_.value_dim;
    const auto rows = [&](T* data) { return Rows(data, {tokens.rows(), channels}); };
    if (options_.output == OutputForm::silu_norm) {
      carry(a.o, a.o_active, tokens.rows() * channels);
      silu(a.o_active, tokens.rows() * channels);
      rms_norm(rows(a.o_active), weights_.g_norm, options_.output_norm_eps, rows(a.o_normed));
    }
    linear(rows(a.o_normed), weights_.o_proj, y, executor);
  }

  /// What the operator is given, once run() has computed it.
  AttentionInputs<T> operator_inputs(const TokenBatch& tokens, const AttentionOptions& options,
                                     const Activations& a) const {
    // A log-sigmoid is never above 0. A NaN, from weights or activations, must not stop a model
    // between two layers: it reaches the outputs of its sequence like any other.
    AttentionInputs<T> inputs{.v = heads(a.v_active, tokens, shape_.kv_heads, shape_.value_dim),
                              .cu_seqlens = tokens.cu_seqlens,
                              .trust_gates = true};
    if (has_window(options)) {
      inputs.q_window = heads(a.q_window, tokens, shape_.query_heads, shape_.key_dim);
      inputs.k_window = heads(a.k_window, tokens, shape_.kv_heads, shape_.key_dim);
    }
    if (shape_.slots > 0) {
      inputs.q_slot = heads(a.q_slot, tokens, shape_.query_heads, shape_.key_dim);
      inputs.k_slot = heads(a.k_slot, tokens, shape_.kv_heads, shape_.key_dim);
      inputs.log_gate = heads(a.log_gate, tokens, shape_.kv_heads, shape_.slots);
    }
    return inputs;
  }

  /// Rows of all heads as the operator's views.
  static auto heads(T* data, const TokenBatch& tokens, Index heads, Index dim) {
    return TensorView<T, Dynamic, Dynamic, Dynamic, Dynamic>(
        data, {tokens.batch, tokens.tokens, heads, dim});
  }
  /// One number for each query.
  PerHead per_head(T* data, const TokenBatch& tokens) const {
    return PerHead(data, {tokens.batch, tokens.tokens, shape_.query_heads});
  }

 private:
  /// Where a step has memory of its own, it begins from a copy.
  static void carry(const T* from, T* to, Index count) noexcept {
    if (from != to) std::copy_n(from, count, to);
  }

  /// q, k and v, after their convolutions if there are any.
  void project(const ConstRows& x, const TokenBatch& tokens, LayerState<T>& state,
               const Activations& a, ExecutorRef executor) const {
    const auto one = [&](std::size_t which, const Tensor<T, 2>& weight, const Tensor<T, 3>& kernel,
                         const Tensor<T, 1>& bias, T* input, T* out) {
      const Rows to(out, {tokens.rows(), weight.extent(0)});
      if (options_.convolution_kernel_size == 0) {
        linear(x, weight, to, executor);
        return;
      }
      const Rows convolved(input, to.extents());
      linear(x, weight, convolved, executor);
      short_convolution(convolved, tokens,
                        ConstRows(kernel.data(), {kernel.extent(0), kernel.extent(2)}), bias,
                        detail::StateParts::convolutions(state)[which], to);
    };
    one(0, weights_.q_proj, weights_.q_conv1d, weights_.q_conv_bias, a.q_input, a.q);
    one(1, weights_.k_proj, weights_.k_conv1d, weights_.k_conv_bias, a.k_input, a.k);
    one(2, weights_.v_proj, weights_.v_conv1d, weights_.v_conv_bias, a.v_input, a.v);
  }

  /// The window's queries and keys: rotated copies.
  void rotate(const TokenBatch& tokens, const RotaryTable<T>& table, const Activations& a) const {
    const auto one = [&](const T* from, T* to, Index heads) {
      const typename PerHead::Sizes sizes{tokens.rows(), heads, shape_.key_dim};
      rotate_half({from, sizes}, table.cosine, table.sine, PerHead(to, sizes));
    };
    one(a.q, a.q_window, shape_.query_heads);
    one(a.k, a.k_window, shape_.kv_heads);
  }

  /// The slots' queries and keys, mapped, and the gates.
  void prepare_slots(const ConstRows& x, const TokenBatch& tokens, const Activations& a,
                     ExecutorRef executor) const {
    const auto map = [&](const T* from, T* to, Index heads) {
      const Rows mapped(to, {tokens.rows() * heads, shape_.key_dim});
      carry(from, to, mapped.size());
      apply_feature_map(options_.feature_map, mapped, weights_.feature_map, a.map, executor);
    };
    map(a.q, a.q_slot, shape_.query_heads);
    map(a.k, a.k_slot, shape_.kv_heads);
    const Index gates = shape_.kv_heads * shape_.slots;
    const Rows logits(a.gate_logits, {tokens.rows(), gates});
    linear(x, weights_.f_proj, logits, executor);
    if (options_.gate_bias)
      for (Index r = 0; r < tokens.rows(); ++r)
        for (Index g = 0; g < gates; ++g) logits(r, g) += weights_.f_proj_bias(g);
    carry(a.gate_logits, a.log_gate, logits.size());
    log_gates(a.log_gate, logits.size(), options_.gate_divisor);
  }

  LayerShape shape_;
  LayerOptions options_;
  AttentionWeights<T> weights_;
};

NHA_ISA_NAMESPACE_END
