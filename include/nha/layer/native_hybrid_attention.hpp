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
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/layer/activation.hpp>
#include <nha/layer/check_rows.hpp>
#include <nha/layer/feature_map.hpp>
#include <nha/layer/gate.hpp>
#include <nha/layer/layer_options.hpp>
#include <nha/layer/layer_state.hpp>
#include <nha/layer/linear.hpp>
#include <nha/layer/rms_norm.hpp>
#include <nha/layer/rotary.hpp>
#include <nha/layer/short_convolution.hpp>
#include <nha/layer/token_batch.hpp>
#include <nha/layer/weights.hpp>
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

/// Cosines and sines of the positions of a batch of tokens, [rows, key_dim / 2] each: the same for
/// every layer of a model.
template <std::floating_point T>
struct RotaryTable {
  TensorView<T, Dynamic, Dynamic> cosine, sine;
  double* frequencies;  // [key_dim / 2]

  static RotaryTable take(SectionCursor& cursor, const LayerShape& shape, Index rows) {
    const Index half = shape.key_dim / 2;
    T* cosine = cursor.take<T>(rows * half);
    T* sine = cursor.take<T>(rows * half);
    return {{cosine, {rows, half}}, {sine, {rows, half}}, cursor.take<double>(half)};
  }
  /// Fills in the positions that follow what the sequences of the state have seen.
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

/// A layer: weights that never change, used with any number of states. Const calls from several
/// threads are safe as long as each has its own state and workspace.
template <std::floating_point T>
class NativeHybridAttention {
 public:
  using Rows = TensorView<T, Dynamic, Dynamic>;
  using ConstRows = TensorView<const T, Dynamic, Dynamic>;
  using Share = TensorView<T, Dynamic, Dynamic, Dynamic>;

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
  /// All scratch memory is reserved before the state is touched; what may still run out of memory
  /// is linear(), and that terminates the program.
  /// @throws ArgumentError if the shapes do not fit each other or the state; nothing has then been
  ///   touched.
  template <Executor E = const Serial>
  void forward(ConstRows x, const TokenBatch& tokens, LayerState<T>& state, Rows y,
               LayerWorkspace& workspace, Share slot_share = {}, E&& executor = Serial{}) const {
    check(x, tokens, state, y, slot_share);
    const auto sections = [&](SectionCursor& cursor) {
      const auto table = RotaryTable<T>::take(cursor, shape_, tokens.rows());
      return std::pair(table, take_activations(cursor, tokens.rows()));
    };
    SectionCursor sizes(nullptr);
    sections(sizes);
    workspace.activations.reserve(sizes.used());
    workspace.kernel.reserve(kernel_bytes(tokens, state, {}, executor.workers()));
    SectionCursor cursor(workspace.activations.data());
    const auto taken = sections(cursor);
    taken.first.fill(tokens, state, options_.rope_theta);
    run(x, tokens, taken.first, state, y, taken.second, workspace.kernel, slot_share, {}, executor);
  }

  /// @throws ArgumentError as forward() does.
  void check(const ConstRows& x, const TokenBatch& tokens, const LayerState<T>& state,
             const Rows& y, const Share& slot_share) const {
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
  /// @throws ArgumentError if the state is not one of a layer of this shape, or its parts do not
  ///   belong together.
  void check_state(const LayerState<T>& state) const {
    const auto& convolutions = state.convolutions();
    const auto channels = LayerState<T>::convolution_channels(shape_);
    const std::size_t count = options_.convolution_taps == 0 ? 0 : channels.size();
    bool same = state.attention().shape() == attention_shape(shape_, state.batch()) &&
                convolutions.size() == count;
    for (std::size_t i = 0; i < count && same; ++i)
      same = convolutions[i].kept() + 1 == options_.convolution_taps &&
             convolutions[i].channels() == channels[i] && convolutions[i].batch() == state.batch();
    check_argument(same, "the state is that of a layer of another shape");
    detail::check_rotary(state.attention().options(), shape_.key_dim);
    for (const auto& convolution : convolutions)
      for (Index n = 0; n < state.batch(); ++n)
        check_argument(convolution.tokens_seen(n) == state.tokens_seen(n),
                       "a convolution has seen ", convolution.tokens_seen(n),
                       " tokens of sequence ", n, "; slots and window have seen ",
                       state.tokens_seen(n));
  }

  // What follows is for models, which share one table and one set of scratch memory between their
  // layers. Nothing is checked.

  /// Scratch memory of one call.
  struct Activations {
    T *q, *k, *v, *gate;
    T *q_window, *k_window;  // rotated copies
    T* map;                  // for the feature map t2r
    T* raw;                  // inputs of a short convolution
    T* o;
  };
  Activations take_activations(SectionCursor& cursor, Index rows) const noexcept {
    const Index q = rows * shape_.query_heads * shape_.key_dim;
    const Index k = rows * shape_.kv_heads * shape_.key_dim;
    const Index v = rows * shape_.kv_heads * shape_.value_dim;
    Activations a{};
    a.q = cursor.take<T>(q);
    a.k = cursor.take<T>(k);
    a.v = cursor.take<T>(v);
    a.gate = cursor.take<T>(rows * shape_.kv_heads * shape_.slots);
    a.q_window = cursor.take<T>(q);
    a.k_window = cursor.take<T>(k);
    a.o = cursor.take<T>(rows * shape_.query_heads * shape_.value_dim);
    if (options_.feature_map == FeatureMap::t2r) a.map = cursor.take<T>(q);
    if (options_.convolution_taps > 0) a.raw = cursor.take<T>(std::max(q, v));
    return a;
  }

  /// Bytes of kernel workspace that run() needs; reserved before it, nothing in it throws (but that
  /// Algorithm::reference allocates).
  std::size_t kernel_bytes(const TokenBatch& tokens, const LayerState<T>& state,
                           const PrefillOptions& algorithm, Index workers) const {
    return prefill_workspace_bytes(state.attention(), shape_.query_heads, tokens.longest(),
                                   algorithm, workers);
  }

  template <Executor E>
  void run(const ConstRows& x, const TokenBatch& tokens, const RotaryTable<T>& table,
           LayerState<T>& state, const Rows& y, const Activations& a, Workspace& kernel,
           const Share& slot_share, const PrefillOptions& algorithm, E&& executor) const {
    project(x, tokens, state, a, executor);
    if (options_.value_activation == ValueActivation::silu)
      silu(a.v, tokens.rows() * shape_.kv_heads * shape_.value_dim);

    // A log-sigmoid is never above 0. A NaN, from weights or activations, must not stop a model
    // between two layers: it reaches the outputs of its sequence like any other.
    AttentionInputs<T> inputs{.v = heads(a.v, tokens, shape_.kv_heads, shape_.value_dim),
                              .cu_seqlens = tokens.cu_seqlens,
                              .trust_gates = true};
    if (has_window(state.attention().options())) rotate(tokens, table, a, inputs);
    if (shape_.slots > 0) prepare_slots(x, tokens, a, inputs, executor);
    const AttentionOutputs<T> outputs{.o = heads(a.o, tokens, shape_.query_heads, shape_.value_dim),
                                      .slot_share = slot_share};
    prefill(inputs, state.attention(), outputs, kernel, algorithm, executor);

    const Index channels = shape_.query_heads * shape_.value_dim;
    const Rows o(a.o, {tokens.rows(), channels});
    if (options_.output == OutputForm::silu_norm) {
      silu(a.o, tokens.rows() * channels);
      rms_norm(o, weights_.g_norm, options_.output_norm_eps, o);
    }
    linear(o, weights_.o_proj, y, executor);
  }

 private:
  static auto heads(T* data, const TokenBatch& tokens, Index heads, Index dim) {
    return TensorView<T, Dynamic, Dynamic, Dynamic, Dynamic>(
        data, {tokens.batch, tokens.tokens, heads, dim});
  }

  /// q, k and v, after their convolutions if there are any.
  template <Executor E>
  void project(const ConstRows& x, const TokenBatch& tokens, LayerState<T>& state,
               const Activations& a, E&& executor) const {
    const auto one = [&](std::size_t which, const Tensor<T, 2>& weight, const Tensor<T, 3>& taps,
                         const Tensor<T, 1>& bias, T* out) {
      const Rows to(out, {tokens.rows(), weight.extent(0)});
      if (options_.convolution_taps == 0) {
        linear(x, weight, to, executor);
        return;
      }
      const Rows raw(a.raw, to.extents());
      linear(x, weight, raw, executor);
      short_convolution(raw, tokens, ConstRows(taps.data(), {taps.extent(0), taps.extent(2)}), bias,
                        state.convolutions()[which], to);
    };
    one(0, weights_.q_proj, weights_.q_conv1d, weights_.q_conv_bias, a.q);
    one(1, weights_.k_proj, weights_.k_conv1d, weights_.k_conv_bias, a.k);
    one(2, weights_.v_proj, weights_.v_conv1d, weights_.v_conv_bias, a.v);
  }

  /// The window's queries and keys: rotated copies.
  void rotate(const TokenBatch& tokens, const RotaryTable<T>& table, const Activations& a,
              AttentionInputs<T>& inputs) const {
    const auto one = [&](const T* from, T* to, Index heads) {
      const typename TensorView<T, Dynamic, Dynamic, Dynamic>::Sizes sizes{tokens.rows(), heads,
                                                                           shape_.key_dim};
      rotate_half({from, sizes}, table.cosine, table.sine,
                  TensorView<T, Dynamic, Dynamic, Dynamic>(to, sizes));
    };
    one(a.q, a.q_window, shape_.query_heads);
    one(a.k, a.k_window, shape_.kv_heads);
    inputs.q_window = heads(a.q_window, tokens, shape_.query_heads, shape_.key_dim);
    inputs.k_window = heads(a.k_window, tokens, shape_.kv_heads, shape_.key_dim);
  }

  /// The slots' queries and keys, mapped in place, and the gates.
  template <Executor E>
  void prepare_slots(const ConstRows& x, const TokenBatch& tokens, const Activations& a,
                     AttentionInputs<T>& inputs, E&& executor) const {
    const auto map = [&](T* data, Index heads) {
      apply_feature_map(options_.feature_map, Rows(data, {tokens.rows() * heads, shape_.key_dim}),
                        weights_.feature_map, a.map, executor);
    };
    map(a.q, shape_.query_heads);
    map(a.k, shape_.kv_heads);
    const Index gates = shape_.kv_heads * shape_.slots;
    linear(x, weights_.f_proj, Rows(a.gate, {tokens.rows(), gates}), executor);
    log_gates(a.gate, tokens.rows() * gates, options_.gate_divisor);
    inputs.q_slot = heads(a.q, tokens, shape_.query_heads, shape_.key_dim);
    inputs.k_slot = heads(a.k, tokens, shape_.kv_heads, shape_.key_dim);
    inputs.log_gate = heads(a.gate, tokens, shape_.kv_heads, shape_.slots);
  }

  LayerShape shape_;
  LayerOptions options_;
  AttentionWeights<T> weights_;
};

NHA_ISA_NAMESPACE_END
