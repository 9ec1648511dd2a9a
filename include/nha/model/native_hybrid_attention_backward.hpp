// SPDX-License-Identifier: MIT
// Backward of a Native Hybrid Attention layer: the steps of NativeHybridAttention::run, last to
// first.
//
// Gradients of weights are added to what is there, so that calls sum up; those of activations are
// written. Nothing is checked but what the parts check: a model has.
#pragma once

#include <nha/attention/backward.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/core/workspace.hpp>
#include <nha/model/layer_options.hpp>
#include <nha/model/layer_state.hpp>
#include <nha/model/native_hybrid_attention.hpp>
#include <nha/model/rotary_table.hpp>
#include <nha/model/weights.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/feature_map.hpp>
#include <nha/nn/gate.hpp>
#include <nha/nn/linear_backward.hpp>
#include <nha/nn/rms_norm.hpp>
#include <nha/nn/rotary.hpp>
#include <nha/nn/short_convolution_backward.hpp>
#include <nha/nn/token_batch.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <cstddef>

NHA_ISA_NAMESPACE_BEGIN

/// Goes back through one call of a layer that has kept its activations (Keep::for_backward) and
/// began with empty convolutions.
template <std::floating_point T>
class NativeHybridAttentionBackward {
 public:
  using Layer = NativeHybridAttention<T>;
  using Rows = typename Layer::Rows;
  using ConstRows = typename Layer::ConstRows;
  using PerHead = typename Layer::PerHead;

  explicit NativeHybridAttentionBackward(const Layer& layer) noexcept
      : layer_(layer), shape_(layer.shape()), options_(layer.options()) {}

  /// Derivatives of the loss with respect to what the call has computed.
  struct Cotangents {
    ConstRows y;              ///< [rows, hidden]
    PerHead lse = {};         ///< optional [batch, tokens, query heads]
    PerHead slot_share = {};  ///< optional [batch, tokens, query heads]
  };

  /// Scratch memory of one call; layers of one model can share it.
  struct Scratch {
    T* o;
    T *q_window, *k_window;
    T *q, *k, *v, *gate;
    T* other;  // what is turned back, and gradients of a convolution's inputs
    T* part;   // scratch memory of the feature maps
  };
  Scratch take_scratch(Arena& cursor, Index rows) const noexcept {
    const Index q = rows * shape_.query_heads * shape_.key_dim;
    const Index k = rows * shape_.kv_heads * shape_.key_dim;
    const Index v = rows * shape_.kv_heads * shape_.value_dim;
    Scratch s{};
    s.o = cursor.take<T>(rows * shape_.query_heads * shape_.value_dim);
    s.q_window = cursor.take<T>(q);
    s.k_window = cursor.take<T>(k);
    s.q = cursor.take<T>(q);
    s.k = cursor.take<T>(k);
    s.v = cursor.take<T>(v);
    s.gate = cursor.take<T>(rows * shape_.kv_heads * shape_.slots);
    s.other = cursor.take<T>(std::max(q, v));
    s.part = cursor.take<T>(q);
    return s;
  }

  /// Bytes of kernel workspace that run() needs.
  std::size_t kernel_bytes(const TokenBatch& tokens, const LayerState<T>& state_before,
                           Index workers) const {
    return backward_workspace_bytes(state_before.attention(), shape_.query_heads, tokens.longest(),
                                    {}, workers);
  }

  /// Gradients of a call y = layer(x): dx [rows, hidden] is written, `gradients` are added to. An
  /// empty dx or gradient is not wanted, and nothing is computed that only it would need.
  /// @param x what the call was given
  /// @param state_before what it began from
  /// @param a what it has kept
  void run(const ConstRows& x, const TokenBatch& tokens, const RotaryTable<T>& table,
           const LayerState<T>& state_before, const typename Layer::Activations& a,
           const Cotangents& cotangents, const Rows& dx, AttentionWeights<T>& gradients,
           const Scratch& s, Workspace& kernel, ExecutorRef executor) const {
    const Wanted wanted(shape_, !dx.empty(), gradients);
    read_out(tokens, a, cotangents.y, wanted, gradients, s, executor);
    if (!wanted.operator_inputs()) return;
    attend(tokens, state_before.attention(), a, cotangents, wanted, s, kernel, executor);
    // The gradients of q and k are sums over what the slots and the window made of them.
    if (shape_.slots > 0) {
      const Index q_rows = tokens.rows() * shape_.query_heads;
      const Index k_rows = tokens.rows() * shape_.kv_heads;
      if (wanted.q_heads()) map(a.q, s.q, q_rows, wanted.q, gradients, s, executor);
      if (wanted.k_heads()) map(a.k, s.k, k_rows, wanted.k, gradients, s, executor);
    }
    if (has_window(state_before.attention().options())) {
      if (wanted.q) turn_back(s.q_window, s.q, tokens.rows(), shape_.query_heads, table, s);
      if (wanted.k) turn_back(s.k_window, s.k, tokens.rows(), shape_.kv_heads, table, s);
    }
    if (wanted.v && options_.value_activation == ValueActivation::silu)
      silu_backward(a.v, s.v, s.v, tokens.rows() * shape_.kv_heads * shape_.value_dim);

    const AttentionWeights<T>& weights = layer_.weights();
    if (wanted.q)
      project(x, tokens, {weights.q_proj, weights.q_conv1d, weights.q_conv_bias},
              {gradients.q_proj, gradients.q_conv1d, gradients.q_conv_bias}, a.q_input, s.q, s, dx,
              InputGradient::written, executor);
    if (wanted.k)
      project(x, tokens, {weights.k_proj, weights.k_conv1d, weights.k_conv_bias},
              {gradients.k_proj, gradients.k_conv1d, gradients.k_conv_bias}, a.k_input, s.k, s, dx,
              InputGradient::added, executor);
    if (wanted.v)
      project(x, tokens, {weights.v_proj, weights.v_conv1d, weights.v_conv_bias},
              {gradients.v_proj, gradients.v_conv1d, gradients.v_conv_bias}, a.v_input, s.v, s, dx,
              InputGradient::added, executor);
    if (wanted.gate) gate(x, tokens.rows(), a, gradients, s, dx, executor);
  }

 private:
  /// For which of its inputs the operator's gradients are wanted. The gradient of x needs all of
  /// them; those of a projection and its convolution need one.
  struct Wanted {
    Wanted(const LayerShape& shape, bool dx, const AttentionWeights<T>& g) noexcept
        : q(dx || detail::any_present(g.q_proj, g.q_conv1d, g.q_conv_bias)),
          k(dx || detail::any_present(g.k_proj, g.k_conv1d, g.k_conv_bias)),
          v(dx || detail::any_present(g.v_proj, g.v_conv1d, g.v_conv_bias)),
          gate(shape.slots > 0 && (dx || detail::any_present(g.f_proj, g.f_proj_bias))),
          feature_map(shape.slots > 0 && detail::any_present(g.feature_map)) {}

    bool q_heads() const noexcept { return q || feature_map; }
    bool k_heads() const noexcept { return k || feature_map; }
    bool operator_inputs() const noexcept { return q_heads() || k_heads() || v || gate; }

    bool q, k, v, gate;
    bool feature_map;
  };

  Rows rows_of(T* data, Index rows, Index channels) const { return Rows(data, {rows, channels}); }

  /// The output projection, and norm and silu before it.
  void read_out(const TokenBatch& tokens, const typename Layer::Activations& a, const ConstRows& dy,
                const Wanted& wanted, AttentionWeights<T>& gradients, const Scratch& s,
                ExecutorRef executor) const {
    const typename Rows::Sizes sizes{tokens.rows(), shape_.query_heads * shape_.value_dim};
    const Rows d_o(s.o, sizes);
    const bool below = wanted.operator_inputs();
    const bool needs_d_o = below || detail::any_present(gradients.g_norm);
    linear_backward(ConstRows(a.o_normed, sizes), layer_.weights().o_proj, dy,
                    needs_d_o ? d_o : Rows(), gradients.o_proj.view(), executor);
    if (options_.output != OutputForm::silu_norm || !needs_d_o) return;
    rms_norm_backward(ConstRows(a.o_active, sizes), layer_.weights().g_norm,
                      options_.output_norm_eps, d_o, below ? d_o : Rows(), gradients.g_norm.view());
    if (below) silu_backward(a.o, s.o, s.o, d_o.size());
  }

  /// The operator.
  void attend(const TokenBatch& tokens, const AttentionState<T>& state_before,
              const typename Layer::Activations& a, const Cotangents& cotangents,
              const Wanted& wanted, const Scratch& s, Workspace& kernel,
              ExecutorRef executor) const {
    const auto heads = [&](T* data, Index count, Index dim) {
      return Layer::heads(data, tokens, count, dim);
    };
    AttentionGradients<T> gradients;
    if (has_window(state_before.options())) {
      if (wanted.q) gradients.q_window = heads(s.q_window, shape_.query_heads, shape_.key_dim);
      if (wanted.k) gradients.k_window = heads(s.k_window, shape_.kv_heads, shape_.key_dim);
    }
    // Without slots these are zeros, which the window's are then added to.
    if (wanted.q_heads()) gradients.q_slot = heads(s.q, shape_.query_heads, shape_.key_dim);
    if (wanted.k_heads()) gradients.k_slot = heads(s.k, shape_.kv_heads, shape_.key_dim);
    if (wanted.v) gradients.v = heads(s.v, shape_.kv_heads, shape_.value_dim);
    if (wanted.gate) gradients.log_gate = heads(s.gate, shape_.kv_heads, shape_.slots);
    backward(layer_.operator_inputs(tokens, state_before.options(), a), state_before,
             {.o = heads(a.o, shape_.query_heads, shape_.value_dim),
              .lse = layer_.per_head(a.lse, tokens),
              .slot_share = layer_.per_head(a.slot_share, tokens)},
             {.o = heads(s.o, shape_.query_heads, shape_.value_dim),
              .lse = cotangents.lse,
              .slot_share = cotangents.slot_share},
             gradients, kernel, {}, executor);
  }

  /// Back through the feature map of the slots' queries or keys: to the heads before it, in place,
  /// where these are wanted, and to its weight.
  void map(const T* raw, T* gradient, Index rows, bool heads_wanted, AttentionWeights<T>& gradients,
           const Scratch& s, ExecutorRef executor) const {
    const Rows d_heads = rows_of(gradient, rows, shape_.key_dim);
    feature_map_backward(options_.feature_map, ConstRows(raw, d_heads.extents()),
                         layer_.weights().feature_map, d_heads, heads_wanted ? d_heads : Rows(),
                         gradients.feature_map.view(), s.part, executor);
  }

  /// Adds what the window's rotated queries or keys give to the gradient of those before rotation.
  void turn_back(const T* rotated, T* gradient, Index rows, Index heads,
                 const RotaryTable<T>& table, const Scratch& s) const {
    const typename PerHead::Sizes sizes{rows, heads, shape_.key_dim};
    rotate_half_backward({rotated, sizes}, table.cosine, table.sine, PerHead(s.other, sizes));
    for (Index i = 0; i < rows * heads * shape_.key_dim; ++i) gradient[i] += s.other[i];
  }

  template <class Matrix, class Kernel, class Bias>
  struct Projection {
    Matrix& weight;
    Kernel& kernel;  // of the convolution
    Bias& bias;
  };
  using ConstProjection = Projection<const Tensor<T, 2>, const Tensor<T, 3>, const Tensor<T, 1>>;
  using ProjectionGradients = Projection<Tensor<T, 2>, Tensor<T, 3>, Tensor<T, 1>>;

  /// The projection of q, k or v, and the convolution after it.
  void project(const ConstRows& x, const TokenBatch& tokens, const ConstProjection& weights,
               const ProjectionGradients& gradients, T* input, T* gradient, const Scratch& s,
               const Rows& dx, InputGradient how, ExecutorRef executor) const {
    const Index channels = weights.weight.extent(0);
    const Rows d_projected = rows_of(gradient, tokens.rows(), channels);
    if (options_.convolution_kernel_size == 0) {
      linear_backward(x, weights.weight, d_projected, dx, gradients.weight.view(), executor, how);
      return;
    }
    const Index kernel_size = options_.convolution_kernel_size;
    const bool below = !dx.empty() || detail::any_present(gradients.weight);
    const Rows d_input = below ? rows_of(s.other, tokens.rows(), channels) : Rows();
    short_convolution_backward(rows_of(input, tokens.rows(), channels), tokens,
                               ConstRows(weights.kernel.data(), {channels, kernel_size}),
                               weights.bias, d_projected, d_input,
                               detail::any_present(gradients.kernel)
                                   ? Rows(gradients.kernel.data(), {channels, kernel_size})
                                   : Rows(),
                               gradients.bias.view());
    if (below)
      linear_backward(x, weights.weight, d_input, dx, gradients.weight.view(), executor, how);
  }

  /// The gates and their projection.
  void gate(const ConstRows& x, Index rows, const typename Layer::Activations& a,
            AttentionWeights<T>& gradients, const Scratch& s, const Rows& dx,
            ExecutorRef executor) const {
    const Index gates = shape_.kv_heads * shape_.slots;
    const Rows d_logits = rows_of(s.gate, rows, gates);
    log_gates_backward(a.gate_logits, s.gate, s.gate, d_logits.size(), options_.gate_divisor);
    if (detail::any_present(gradients.f_proj_bias))
      for (Index r = 0; r < rows; ++r)
        for (Index g = 0; g < gates; ++g) gradients.f_proj_bias(g) += d_logits(r, g);
    linear_backward(x, layer_.weights().f_proj, d_logits, dx, gradients.f_proj.view(), executor,
                    InputGradient::added);
  }

  const Layer& layer_;
  const LayerShape& shape_;
  const LayerOptions& options_;
};

NHA_ISA_NAMESPACE_END
