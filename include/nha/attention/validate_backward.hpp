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

/// That two gradients with roles in common are not meant for one tensor.
template <class View>
void check_apart(const char* name, const View& a, const char* other_name, const View& b) {
  check_argument(a.data() == nullptr || a.data() != b.data(), name, " begins where ", other_name,
                 " does; expected a tensor for each: they are written, not added");
}

}  // namespace detail

/// Checks all arguments of the backward against each other and the state the call began from.
/// @throws ArgumentError naming the first that does not fit; nothing has then been touched.
template <class T, class SlotScalar>
void validate_backward(const AttentionInputs<T>& inputs,
                       const AttentionStateBase<T, SlotScalar>& state_before,
                       const AttentionCotangents<T>& cotangents,
                       const AttentionGradients<T>& gradients) {
  const AttentionShape& shape = state_before.shape();
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  const Index query_heads = cotangents.o.extent(2);
  detail::check_inputs(inputs, state_before, "cotangents.o", query_heads);

  detail::check_tokens("cotangents.o", cotangents.o, batch, tokens, query_heads, shape.value_dim);
  detail::check_per_query("cotangents.lse", cotangents.lse, batch, tokens, query_heads);
  detail::check_per_query("cotangents.slot_share", cotangents.slot_share, batch, tokens,
                          query_heads);
  detail::check_slots("cotangents.slot_k", cotangents.slot_k, shape, shape.key_dim);
  detail::check_slots("cotangents.slot_v", cotangents.slot_v, shape, shape.value_dim);
  detail::check_masses("cotangents.mass", cotangents.mass, shape);

  const auto check_tokens = [&](const char* name, const auto& view, Index heads, Index last) {
    if (view.data() == nullptr) return;
    detail::check_tokens(name, view, batch, tokens, heads, last);
    detail::check_distinct(name, view);
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
  detail::check_distinct("gradients.slot_k", gradients.slot_k);
  detail::check_slots("gradients.slot_v", gradients.slot_v, shape, shape.value_dim);
  detail::check_distinct("gradients.slot_v", gradients.slot_v);
  detail::check_masses("gradients.mass", gradients.mass, shape);
  detail::check_distinct("gradients.mass", gradients.mass);
  detail::check_apart("gradients.q_window", gradients.q_window, "gradients.q_slot",
                      gradients.q_slot);
  detail::check_apart("gradients.k_window", gradients.k_window, "gradients.k_slot",
                      gradients.k_slot);
}

/// Checks what was kept of a call against its inputs.
/// @throws ArgumentError naming the first that does not fit.
template <class T>
void validate_saved(const AttentionInputs<T>& inputs, Index query_heads,
                    const AttentionSaved<T>& saved) {
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  if (saved.o.data() != nullptr)
    detail::check_tokens("saved.o", saved.o, batch, tokens, query_heads, inputs.v.extent(3));
  detail::check_per_query("saved.lse", saved.lse, batch, tokens, query_heads);
  detail::check_per_query("saved.slot_share", saved.slot_share, batch, tokens, query_heads);
}

NHA_ISA_NAMESPACE_END
