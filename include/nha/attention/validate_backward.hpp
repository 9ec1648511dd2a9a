// SPDX-License-Identifier: MIT
// The checks that the backward of the operator makes before it touches anything.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/overlap.hpp>
#include <nha/memory/state.hpp>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// An optional tensor of the slots, [N, Hkv, M, dim].
template <class View>
void check_slots(const char* name, const View& view, const AttentionShape& shape, Index dim) {
  if (view.data() == nullptr) return;
  check_argument(view.extent(0) == shape.batch && view.extent(1) == shape.kv_heads &&
                     view.extent(2) == shape.slots && view.extent(3) == dim,
                 name, " is [", view.extent(0), ", ", view.extent(1), ", ", view.extent(2), ", ",
                 view.extent(3), "]; expected [", shape.batch, ", ", shape.kv_heads, ", ",
                 shape.slots, ", ", dim, "]");
  check_argument(view.has_contiguous_rows(), name, " has stride ", view.stride(3),
                 " along its last axis; expected 1");
}

/// An optional tensor of masses, [N, Hkv, M].
template <class View>
void check_masses(const char* name, const View& view, const AttentionShape& shape) {
  if (view.data() == nullptr) return;
  check_argument(view.extent(0) == shape.batch && view.extent(1) == shape.kv_heads &&
                     view.extent(2) == shape.slots,
                 name, " is [", view.extent(0), ", ", view.extent(1), ", ", view.extent(2),
                 "]; expected [", shape.batch, ", ", shape.kv_heads, ", ", shape.slots, "]");
}

/// The memory of all gradients, which are written.
template <class T>
void add_gradients(CallMemory& memory, const AttentionGradients<T>& gradients) {
  memory.writes("gradients.q_window", gradients.q_window);
  memory.writes("gradients.k_window", gradients.k_window);
  memory.writes("gradients.q_slot", gradients.q_slot);
  memory.writes("gradients.k_slot", gradients.k_slot);
  memory.writes("gradients.v", gradients.v);
  memory.writes("gradients.log_gate", gradients.log_gate);
  memory.writes("gradients.write", gradients.write);
  memory.writes("gradients.slot_k", gradients.slot_k);
  memory.writes("gradients.slot_v", gradients.slot_v);
  memory.writes("gradients.mass", gradients.mass);
}

}  // namespace detail

/// Checks the shapes of all arguments of the backward against each other and the state's, and that
/// no gradient shares memory with another tensor. No element is read.
/// @throws ArgumentError naming the first that does not fit.
template <class T>
void validate_backward_shapes(const AttentionInputs<T>& inputs, const AttentionShape& shape,
                              const AttentionOptions& options,
                              const AttentionCotangents<T>& cotangents,
                              const AttentionGradients<T>& gradients) {
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  const Index query_heads = cotangents.o.extent(2);
  detail::check_inputs(inputs, shape, options, "cotangents.o", query_heads);

  detail::check_tokens("cotangents.o", cotangents.o, batch, tokens, query_heads, shape.value_dim);
  detail::check_per_query("cotangents.lse", cotangents.lse, batch, tokens, query_heads);
  detail::check_per_query("cotangents.slot_share", cotangents.slot_share, batch, tokens,
                          query_heads);
  detail::check_slots("cotangents.slot_k", cotangents.slot_k, shape, shape.key_dim);
  detail::check_slots("cotangents.slot_v", cotangents.slot_v, shape, shape.value_dim);
  detail::check_masses("cotangents.mass", cotangents.mass, shape);

  const auto check_tokens = [&](const char* name, const auto& view, Index heads, Index last) {
    if (view.data() != nullptr) detail::check_tokens(name, view, batch, tokens, heads, last);
  };
  const Index heads = shape.kv_heads;
  check_tokens("gradients.q_window", gradients.q_window, query_heads, shape.key_dim);
  check_tokens("gradients.k_window", gradients.k_window, heads, shape.key_dim);
  check_tokens("gradients.q_slot", gradients.q_slot, query_heads, shape.key_dim);
  check_tokens("gradients.k_slot", gradients.k_slot, heads, shape.key_dim);
  check_tokens("gradients.v", gradients.v, heads, shape.value_dim);
  check_tokens("gradients.log_gate", gradients.log_gate, heads, shape.slots);
  check_tokens("gradients.write", gradients.write, heads, shape.slots);
  check_argument(gradients.write.data() == nullptr || inputs.write.data() != nullptr,
                 "gradients.write is wanted, but the inputs have no write strengths; expected both "
                 "or neither");
  detail::check_slots("gradients.slot_k", gradients.slot_k, shape, shape.key_dim);
  detail::check_slots("gradients.slot_v", gradients.slot_v, shape, shape.value_dim);
  detail::check_masses("gradients.mass", gradients.mass, shape);

  detail::CallMemory memory;
  detail::add_inputs(memory, inputs, shape, options);
  memory.reads("cotangents.o", cotangents.o);
  memory.reads("cotangents.lse", cotangents.lse);
  memory.reads("cotangents.slot_share", cotangents.slot_share);
  memory.reads("cotangents.slot_k", cotangents.slot_k);
  memory.reads("cotangents.slot_v", cotangents.slot_v);
  memory.reads("cotangents.mass", cotangents.mass);
  detail::add_gradients(memory, gradients);
}

/// Checks all arguments of the backward against each other and the state the call began from:
/// shapes and values.
/// @throws ArgumentError naming the first that does not fit; nothing has then been touched.
template <class T, class SlotScalar>
void validate_backward(const std::type_identity_t<AttentionInputs<T>>& inputs,
                       const AttentionStateBase<T, SlotScalar>& state_before,
                       const std::type_identity_t<AttentionCotangents<T>>& cotangents,
                       const std::type_identity_t<AttentionGradients<T>>& gradients) {
  validate_backward_shapes<T>(inputs, state_before.shape(), state_before.options(), cotangents,
                              gradients);
  validate_values<T>(inputs, state_before.shape());
}

/// Checks what was kept of a call against its inputs, and that no gradient shares its memory. No
/// element is read.
/// @throws ArgumentError naming the first that does not fit.
template <class T>
void validate_saved(const AttentionInputs<T>& inputs, Index query_heads,
                    const AttentionSaved<T>& saved, const AttentionGradients<T>& gradients) {
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  if (saved.o.data() != nullptr)
    detail::check_tokens("saved.o", saved.o, batch, tokens, query_heads, inputs.v.extent(3));
  detail::check_per_query("saved.lse", saved.lse, batch, tokens, query_heads);
  detail::check_per_query("saved.slot_share", saved.slot_share, batch, tokens, query_heads);
  detail::CallMemory memory;
  memory.reads("saved.o", saved.o);
  memory.reads("saved.lse", saved.lse);
  memory.reads("saved.slot_share", saved.slot_share);
  detail::add_gradients(memory, gradients);
}

NHA_ISA_NAMESPACE_END
