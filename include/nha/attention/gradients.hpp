// SPDX-License-Identifier: MIT
// What the backward of the operator reads and writes beside the inputs. Cotangents are derivatives
// of a loss with respect to the results of a call, gradients those with respect to its inputs.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

NHA_NAMESPACE_BEGIN

/// Derivatives of a loss with respect to what a call has computed: the tensors of AttentionOutputs,
/// and the slots after the last token. All but `o` may be left out, which is as if they were 0.
/// Names and shapes are those of the results. B, T, Hq, Dk, Dv and M are as in AttentionInputs; N
/// is the number of sequences, which is the state's batch.
///
/// T is the type of the layer's tensors, so that `o` comes as a framework hands it back; the others
/// are accumulate_t of it. Strides are free, 0 included, but the last axis of o, slot_k and slot_v
/// must be contiguous. A token with nothing to read has constant results: its cotangents have no
/// effect.
template <class T, Index ValueDim = Dynamic>
struct AttentionCotangents {
  using Acc = accumulate_t<T>;

  /// Of the output. [B, T, Hq, Dv]
  TensorView<const T, Dynamic, Dynamic, Dynamic, ValueDim> o = {};
  /// Optional: of the log-sum-exp. [B, T, Hq]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic> lse = {};
  /// Optional: of the softmax weight on the slots. [B, T, Hq]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic> slot_share = {};
  /// Optional: of the slot keys after the last token. [N, Hkv, M, Dk]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_k = {};
  /// Optional: of the slot values after the last token. [N, Hkv, M, Dv]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_v = {};
  /// Optional: of the mass after the last token. [N, Hkv, M]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic> mass = {};

  /// The same tensors, all sizes known at run time.
  NHA_INLINE operator AttentionCotangents<T>() const noexcept requires(ValueDim != Dynamic) {
    return {o, lse, slot_share, slot_k, slot_v, mass};
  }
};

/// Results of a call that were kept. All may be left out: backward() then computes them again,
/// which costs two products of seven for windows longer than its blocks. It needs o and lse to save
/// that, and slot_share if this has a cotangent.
template <class T, Index ValueDim = Dynamic>
struct AttentionSaved {
  using Acc = accumulate_t<T>;

  /// [B, T, Hq, Dv]
  TensorView<const T, Dynamic, Dynamic, Dynamic, ValueDim> o = {};
  /// [B, T, Hq]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic> lse = {};
  /// [B, T, Hq]
  TensorView<const Acc, Dynamic, Dynamic, Dynamic> slot_share = {};

  /// The same tensors, all sizes known at run time.
  NHA_INLINE operator AttentionSaved<T>() const noexcept requires(ValueDim != Dynamic) {
    return {o, lse, slot_share};
  }
};

/// Derivatives of a loss with respect to the inputs of a call. Each is optional: one without data
/// is not wanted. Names and shapes are those of the inputs.
///
/// - Gradients are written, not added to: what was there before does not matter.
/// - The type is accumulate_t<T>, float32 or wider, also where the tensors are of a half type.
///   Gradients are sums over many tokens and are summed further, over a batch for instance.
/// - There is one for each role. One tensor may serve as two inputs: q_slot and q_window, k_slot
///   and k_window, k and v. Its gradient is then the sum of the two written here.
/// - Gradients of slots belong to the slots that the call began with: initial slots, or what
///   earlier tokens had left. Given as cotangents to the call before, they carry gradients through
///   the slots.
/// - Tokens of earlier calls get no gradient from the window, or for their later entry into the
///   slots. Backward is truncated there at the beginning of the call.
/// - A token that enters the slots after the end of the call reaches the loss through the window
///   alone. Its k_slot, log_gate and write have gradient 0.
///
/// Strides are free, but the last axis of each except mass must be contiguous. No element may be
/// written twice (no stride 0). No gradient may overlap another one, an input or a cotangent.
template <class T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
struct AttentionGradients {
  using Acc = accumulate_t<T>;
  template <Index Last>
  using Tokens = TensorView<Acc, Dynamic, Dynamic, Dynamic, Last>;

  /// [B, T, Hq, Dk]; 0 where the window is 0.
  Tokens<KeyDim> q_window = {};
  /// [B, T, Hkv, Dk], summed over the query heads of the group; 0 where the window is 0.
  Tokens<KeyDim> k_window = {};
  /// [B, T, Hq, Dk]; 0 where there are no slots.
  Tokens<KeyDim> q_slot = {};
  /// [B, T, Hkv, Dk]; 0 where there are no slots.
  Tokens<KeyDim> k_slot = {};
  /// [B, T, Hkv, Dv], of both uses: by the window and by the slots.
  Tokens<ValueDim> v = {};
  /// [B, T, Hkv, M]. Given write strengths, the derivative through the retention alone. Without
  /// them, through both the retention and the write strength 1 - exp(log_gate). 0 for a gate of
  /// -infinity.
  Tokens<Slots> log_gate = {};
  /// [B, T, Hkv, M]; only where the call was given write strengths.
  Tokens<Slots> write = {};
  /// Of the slot keys at the beginning of the call. [N, Hkv, M, Dk]
  TensorView<Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_k = {};
  /// Of the slot values at the beginning of the call. [N, Hkv, M, Dv]
  TensorView<Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_v = {};
  /// Of the mass at the beginning of the call. 0 without a cotangent of mass, unless empty_slots is
  /// mass_corrected. [N, Hkv, M]
  TensorView<Acc, Dynamic, Dynamic, Dynamic> mass = {};

  /// The same tensors, all sizes known at run time.
  NHA_INLINE operator AttentionGradients<T>() const noexcept
      requires(KeyDim != Dynamic || ValueDim != Dynamic || Slots != Dynamic) {
    return {q_window, k_window, q_slot, k_slot, v, log_gate, write, slot_k, slot_v, mass};
  }
};

NHA_NAMESPACE_END
