// SPDX-License-Identifier: MIT
// What the operator reads and writes: inputs and outputs of reference, step and prefill.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

#include <cstdint>
#include <span>

NHA_NAMESPACE_BEGIN

/// The tensors that the operator reads. There are B sequences of T new tokens, Hq query heads, Hkv
/// key/value heads and M slots; keys have Dk numbers, values Dv. Query head h reads key/value head
/// h / G, with G = Hq / Hkv.
///
/// The template's T is the type of the tensors; gates and write strengths are accumulate_t of it,
/// float32 or wider. KeyDim, ValueDim and Slots are Dk, Dv and M where known when compiling.
///
/// Strides are free, but the last axis of each tensor must be contiguous. Tensors that nothing
/// reads may be left out: q_window and k_window where all windows are 0; q_slot, k_slot and
/// log_gate where there are no slots.
///
/// Gates and write strengths are checked (see validate()), queries, keys and values are not. A NaN
/// or infinity among these reaches the outputs of tokens that read it, and no others. A state keeps
/// it until reset.
template <class T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
struct AttentionInputs {
  template <class U, Index Last>
  using Tokens = TensorView<const U, Dynamic, Dynamic, Dynamic, Last>;

  /// Queries for the window, rotary embedding applied. [B, T, Hq, Dk]
  Tokens<T, KeyDim> q_window = {};
  /// Keys for the window, rotary embedding applied. [B, T, Hkv, Dk]
  Tokens<T, KeyDim> k_window = {};
  /// Queries for the slots, not rotated, feature map applied. [B, T, Hq, Dk]
  Tokens<T, KeyDim> q_slot = {};
  /// Keys written to the slots, not rotated, feature map applied. [B, T, Hkv, Dk]
  Tokens<T, KeyDim> k_slot = {};
  /// Values, shared by window and slots. [B, T, Hkv, Dv]
  Tokens<T, ValueDim> v = {};
  /// Natural logarithm of each slot's retention: 0 keeps all, -infinity forgets all. Never above 0.
  /// [B, T, Hkv, M]
  Tokens<accumulate_t<T>, Slots> log_gate = {};
  /// How strongly a token is written to each slot; left out: 1 - exp(log_gate). [B, T, Hkv, M]
  Tokens<accumulate_t<T>, Slots> write = {};
  /// Packed sequences: N+1 ascending offsets along T, from 0 to T, with B = 1. Sequence n of the
  /// state gets tokens cu_seqlens[n] .. cu_seqlens[n+1]-1, none where the two are equal. Left out:
  /// B sequences of T tokens.
  std::span<const std::int64_t> cu_seqlens = {};
  /// Takes gates and write strengths as they are, for code that has made sure of their range. A NaN
  /// among them spreads like one in a key; with a gate above 0 the slots grow without bound.
  bool trust_gates = false;

  /// The same tensors, all sizes known at run time.
  NHA_INLINE operator AttentionInputs<T>() const noexcept
      requires(KeyDim != Dynamic || ValueDim != Dynamic || Slots != Dynamic) {
    return {q_window, k_window, q_slot, k_slot, v, log_gate, write, cu_seqlens, trust_gates};
  }

  /// Tokens [first, first + count) along T: a piece of a text, or the one token of a step. A piece
  /// has no cu_seqlens; one of packed sequences must be given its own.
  /// @throws ArgumentError if the range is not inside [0, T).
  NHA_INLINE AttentionInputs tokens(Index first, Index count) const {
    AttentionInputs piece = *this;
    const auto slice = [&](auto& view) {
      if (view.data() != nullptr) view = view.template slice<1>(first, count);
    };
    slice(piece.q_window);
    slice(piece.k_window);
    slice(piece.q_slot);
    slice(piece.k_slot);
    slice(piece.v);
    slice(piece.log_gate);
    slice(piece.write);
    piece.cu_seqlens = {};
    return piece;
  }
};

/// The tensors that the operator writes. No element may be written twice (no stride 0), and no
/// output may share memory with another tensor of the call.
template <class T, Index ValueDim = Dynamic>
struct AttentionOutputs {
  /// [B, T, Hq, Dv]; 0 where a token has nothing to read.
  TensorView<T, Dynamic, Dynamic, Dynamic, ValueDim> o = {};
  /// Optional: natural logarithm of the softmax's denominator; -infinity where a token has nothing
  /// to read, NaN where a logit is NaN. [B, T, Hq]
  TensorView<accumulate_t<T>, Dynamic, Dynamic, Dynamic> lse = {};
  /// Optional: the part of the softmax weight that fell on the slots, 0 to 1. [B, T, Hq]
  TensorView<accumulate_t<T>, Dynamic, Dynamic, Dynamic> slot_share = {};

  /// The same tensors, all sizes known at run time.
  NHA_INLINE operator AttentionOutputs<T>() const noexcept requires(ValueDim != Dynamic) {
    return {o, lse, slot_share};
  }

  /// Tokens [first, first + count) along T.
  /// @throws ArgumentError if the range is not inside [0, T).
  NHA_INLINE AttentionOutputs tokens(Index first, Index count) const {
    AttentionOutputs piece = *this;
    const auto slice = [&](auto& view) {
      if (view.data() != nullptr) view = view.template slice<1>(first, count);
    };
    slice(piece.o);
    slice(piece.lse);
    slice(piece.slot_share);
    return piece;
  }
};

NHA_NAMESPACE_END
