// SPDX-License-Identifier: MIT
// HeadCall: everything that one key/value head of one sequence gets in a call of the operator.
//
// Every algorithm works head by head and takes this one struct: the reference, step, the chunks of
// prefill, backward. It alone says where a token's rows lie, what a query sees, and when a token
// enters the slots.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/memory/head_state.hpp>
#include <nha/memory/state_base.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Where a sequence's new tokens lie in the inputs.
struct SequenceSpan {
  Index row;    // along the batch axis
  Index first;  // along the token axis
  Index count;
};

/// The new tokens of sequence `sequence`.
template <class T>
NHA_INLINE SequenceSpan sequence_span(const AttentionInputs<T>& inputs, Index sequence) noexcept {
  if (inputs.cu_seqlens.empty()) return {sequence, 0, inputs.v.extent(1)};
  const auto n = static_cast<std::size_t>(sequence);
  const auto first = static_cast<Index>(inputs.cu_seqlens[n]);
  return {0, first, static_cast<Index>(inputs.cu_seqlens[n + 1]) - first};
}

/// The rows of one tensor for one sequence and one key/value head. There is one for each token and
/// each of the tensor's heads that belong to this one. Null where the tensor was left out.
template <class T>
struct HeadRows {
  T* data = nullptr;
  Index token_stride = 0;
  Index head_stride = 0;

  HeadRows() = default;
  /// Of a tensor [B, T, heads, numbers], or [B, T, heads] with one number to a row.
  template <class U, Index... Extents>
  HeadRows(const TensorView<U, Extents...>& view, const SequenceSpan& span, Index first_head)
      : token_stride(view.stride(1)), head_stride(view.stride(2)) {
    if (view.data() != nullptr && span.count > 0)
      data = view.data() + span.row * view.stride(0) + span.first * token_stride +
             first_head * head_stride;
  }

  NHA_INLINE explicit operator bool() const noexcept { return data != nullptr; }
  /// The row of the call's i-th token in the i-th of its heads.
  NHA_INLINE T* row(Index token, Index head = 0) const noexcept {
    return data + token * token_stride + head * head_stride;
  }
};

/// One call's tokens of one sequence in one key/value head: positions [begin, end), counted from
/// the sequence's first token ever. Tokens before `begin` came with earlier calls and lie in the
/// memories. Owns nothing and copies as bytes.
template <class T, class SlotScalar = accumulate_t<T>>
struct HeadCall {
  using Scalar = T;
  using SlotType = SlotScalar;
  using Acc = accumulate_t<T>;

  // Inputs. Row i belongs to position begin + i; queries have `group` heads.
  HeadRows<const T> q_window, k_window, q_slot, k_slot, v;
  HeadRows<const Acc> log_gate, write;
  ConstHeadState<T, SlotScalar> memory;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  Index group = 1;
  Index window = 0;
  Index slot_delay = 0;
  Acc softmax_scale = 1;
  EmptySlotRule rule = {};
  bool initial_slots = false;  // whether the sequence began from given slots

  NHA_INLINE Index tokens() const noexcept { return static_cast<Index>(end - begin); }
  NHA_INLINE Index slots() const noexcept { return memory.slots.count; }
  NHA_INLINE Index key_dim() const noexcept { return memory.slots.key_dim; }
  NHA_INLINE Index value_dim() const noexcept { return memory.slots.value_dim; }

  /// Whether a position's rows lie in the inputs rather than in the memories.
  NHA_INLINE bool in_call(std::int64_t position) const noexcept { return position >= begin; }
  /// Row of a position of this call.
  NHA_INLINE Index token(std::int64_t position) const noexcept {
    return static_cast<Index>(position - begin);
  }

  /// The oldest position that the query at `position` sees through the window.
  NHA_INLINE std::int64_t oldest_visible(std::int64_t position) const noexcept {
    return std::max<std::int64_t>(position - window + 1, 0);
  }
  /// How many positions the query at `position` sees through the window, its own included.
  NHA_INLINE Index visible(std::int64_t position) const noexcept {
    return static_cast<Index>(position + 1 - oldest_visible(position));
  }
  /// The position of the token that enters the slots just before the query at `position` reads
  /// them. Negative: none does.
  NHA_INLINE std::int64_t entering(std::int64_t position) const noexcept {
    return position - slot_delay;
  }
  /// Whether any token has entered the slots that the query at `position` reads.
  NHA_INLINE bool slots_are_written(std::int64_t position) const noexcept {
    return slots() > 0 && (initial_slots || entering(position) >= 0);
  }
  /// Whether slots take part in the softmax of the query at `position`.
  NHA_INLINE bool slots_take_part(std::int64_t position) const noexcept {
    return rule.slots_take_part(initial_slots || entering(position) >= 0);
  }

  // Rows of a position of this call, or of one that the memories still hold.
  NHA_INLINE const T* window_key(std::int64_t position) const noexcept {
    return in_call(position) ? k_window.row(token(position)) : memory.window.key_row(position);
  }
  NHA_INLINE const T* value(std::int64_t position) const noexcept {
    return in_call(position) ? v.row(token(position)) : memory.window.value_row(position);
  }
  NHA_INLINE const T* slot_key(std::int64_t position) const noexcept {
    return in_call(position) ? k_slot.row(token(position)) : memory.pending.key_row(position);
  }
  /// Retention and write strengths [M] of a position. Tokens of earlier calls have them in the
  /// memories. For those of this call, convert(log_gate, write, retention, write strengths) makes
  /// them, each algorithm in its own way; a null `write` stands for 1 - exp(log_gate).
  template <class Convert>
  NHA_INLINE void gates(std::int64_t position, Acc* retention, Acc* write_strength,
                        Convert&& convert) const noexcept {
    if (in_call(position)) {
      const Index i = token(position);
      convert(log_gate.row(i), write ? write.row(i) : nullptr, retention, write_strength);
    } else {
      const auto& pending = memory.pending;
      std::copy_n(pending.retention_row(position), pending.gate_stride(), retention);
      std::copy_n(pending.write_row(position), pending.gate_stride(), write_strength);
    }
  }
};

/// Where a head's results go.
template <class T>
struct HeadOutputs {
  HeadRows<T> o;
  HeadRows<accumulate_t<T>> lse, slot_share;
};

/// A head's call, made of the arguments of the public functions.
template <class T, class SlotScalar>
NHA_NOINLINE HeadCall<T, SlotScalar> head_call(const AttentionInputs<T>& inputs,
                                               const AttentionStateBase<T, SlotScalar>& state,
                                               Index query_heads, Index sequence,
                                               Index head) noexcept {
  const SequenceSpan span = sequence_span(inputs, sequence);
  const HeadOptions options = head_options(state.options(), head);
  HeadCall<T, SlotScalar> call;
  call.group = query_heads / state.shape().kv_heads;
  call.q_window = {inputs.q_window, span, head * call.group};
  call.k_window = {inputs.k_window, span, head};
  call.q_slot = {inputs.q_slot, span, head * call.group};
  call.k_slot = {inputs.k_slot, span, head};
  call.v = {inputs.v, span, head};
  call.log_gate = {inputs.log_gate, span, head};
  call.write = {inputs.write, span, head};
  call.memory = StateAccess::head(state, sequence, head);
  call.begin = state.tokens_seen(sequence);
  call.end = call.begin + span.count;
  call.window = options.window;
  call.slot_delay = options.slot_delay;
  call.softmax_scale =
      static_cast<accumulate_t<T>>(softmax_scale(state.options(), state.shape().key_dim));
  call.rule = {state.options().empty_slots};
  call.initial_slots = state.has_initial_slots(sequence);
  return call;
}

template <class T>
NHA_NOINLINE HeadOutputs<T> head_outputs(const AttentionInputs<T>& inputs,
                                         const AttentionOutputs<T>& outputs, Index group,
                                         Index sequence, Index head) noexcept {
  const SequenceSpan span = sequence_span(inputs, sequence);
  HeadOutputs<T> rows;
  rows.o = {outputs.o, span, head * group};
  rows.lse = {outputs.lse, span, head * group};
  rows.slot_share = {outputs.slot_share, span, head * group};
  return rows;
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
