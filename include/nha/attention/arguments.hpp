// SPDX-License-Identifier: MIT
// What the operator reads and writes: the inputs and outputs that reference, step and prefill
// share.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/tensor_view.hpp>

#include <cstdint>
#include <span>

NHA_NAMESPACE_BEGIN

/// The tensors the operator reads: B sequences of T new tokens, Hq query heads, Hkv key/value heads
/// (query head h reads key/value head h / (Hq / Hkv)), head dimensions Dk and Dv, M slots.
///
/// T is the type of the tensors; gates and write strengths are accumulate_t<T>, float32 or wider.
/// KeyDim, ValueDim and Slots are Dk, Dv and M where known when compiling. Any strides, but the
/// last axis of each must be contiguous. Views that nothing reads may be left out: the q_window and
/// k_window of a layer whose windows are 0, the q_slot, k_slot and log_gate of one without slots.
///
/// Values are the caller's: gates and writes are checked (see validate()), but a NaN or infinity in
/// a query, key or value spreads to outputs of its sequence (earlier tokens of its chunk among
/// them) and stays in its state until reset.
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
  /// state gets tokens cu_seqlens[n] .. cu_seqlens[n+1]-1, none where they are equal. Left out: B
  /// sequences of T tokens.
  std::span<const std::int64_t> cu_seqlens = {};
  /// Gates and write strengths are taken as they are: for a caller who has made them so that they
  /// are in range. A NaN among them spreads like one in a key; a gate above 0 grows without bound.
  bool trust_gates = false;
};

/// The tensors the operator writes. No element may be written twice (no stride 0) and none may
/// overlap an input.
template <class T, Index ValueDim = Dynamic>
struct AttentionOutputs {
  /// [B, T, Hq, Dv]; 0 where a token has nothing to read.
  TensorView<T, Dynamic, Dynamic, Dynamic, ValueDim> o = {};
  /// Optional: natural logarithm of the softmax's denominator; -infinity where a token has nothing
  /// to read. [B, T, Hq]
  TensorView<accumulate_t<T>, Dynamic, Dynamic, Dynamic> lse = {};
  /// Optional: the part of the softmax weight that fell on the slots, 0 to 1. [B, T, Hq]
  TensorView<accumulate_t<T>, Dynamic, Dynamic, Dynamic> slot_share = {};
};

NHA_NAMESPACE_END
