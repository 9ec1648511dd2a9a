// SPDX-License-Identifier: MIT
// The checks that reference, step and prefill make before they touch anything. Those of backward
// are in validate_backward.hpp.
//
// Checks of shapes and memory read no element, so they hold for tensors on a device as well. Checks
// of values read gates and write strengths.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/overlap.hpp>
#include <nha/memory/state.hpp>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// One tensor against [B, T, heads, last]: its shape, then that its data can be read as rows.
template <class View>
void check_tokens(const char* name, const View& view, Index batch, Index tokens, Index heads,
                  Index last) {
  check_argument(view.data() != nullptr || view.size() > 0 || batch * tokens * heads * last == 0,
                 name, " was left out; expected [", batch, ", ", tokens, ", ", heads, ", ", last,
                 "]");
  check_argument(view.extent(0) == batch && view.extent(1) == tokens && view.extent(2) == heads &&
                     view.extent(3) == last,
                 name, " is [", view.extent(0), ", ", view.extent(1), ", ", view.extent(2), ", ",
                 view.extent(3), "]; expected [", batch, ", ", tokens, ", ", heads, ", ", last,
                 "]");
  check_argument(view.data() != nullptr || view.empty(), name, " has no data");
  check_argument(view.has_contiguous_rows(), name, " has stride ", view.stride(3),
                 " along its last axis; expected 1");
}

/// Offsets of packed sequences along the `tokens` tokens of a batch of 1. None is fine.
inline void check_cu_seqlens(std::span<const std::int64_t> cu_seqlens, Index batch, Index tokens) {
  if (cu_seqlens.empty()) return;
  check_argument(batch == 1, "with cu_seqlens the batch axis has extent ", batch, "; expected 1");
  check_argument(cu_seqlens.front() == 0 && cu_seqlens.back() == tokens, "cu_seqlens goes from ",
                 cu_seqlens.front(), " to ", cu_seqlens.back(), "; expected 0 to ", tokens);
  for (std::size_t n = 1; n < cu_seqlens.size(); ++n)
    check_argument(cu_seqlens[n - 1] <= cu_seqlens[n], "cu_seqlens falls from ", cu_seqlens[n - 1],
                   " to ", cu_seqlens[n], " at entry ", n);
}

/// Gates and write strengths, value by value. Every gate must be 0 or less (not NaN); -infinity
/// forgets. Write strengths must be finite.
template <class Inputs>
void check_gates(const Inputs& inputs) {
  const auto& gate = inputs.log_gate;
  const bool with_write = inputs.write.data() != nullptr;
  for (Index b = 0; b < gate.extent(0); ++b)
    for (Index t = 0; t < gate.extent(1); ++t)
      for (Index h = 0; h < gate.extent(2); ++h) {
        const auto* g = &gate(b, t, h, 0);
        const auto* w = with_write ? &inputs.write(b, t, h, 0) : nullptr;
        using Acc = std::remove_cvref_t<decltype(*g)>;
        int bad = 0;  // counted without early exit, so that the loops vectorise
        for (Index m = 0; m < gate.extent(3); ++m) bad |= g[m] <= Acc{0} ? 0 : 1;
        if (w != nullptr)
          for (Index m = 0; m < gate.extent(3); ++m)
            bad |= std::abs(w[m]) <= std::numeric_limits<Acc>::max() ? 0 : 1;
        if (bad == 0) [[likely]]
          continue;
        for (Index m = 0; m < gate.extent(3); ++m) {
          check_argument(g[m] <= Acc{0}, "log_gate of sequence row ", b, ", token ", t, ", head ",
                         h, ", slot ", m, " is ", g[m],
                         "; expected 0 or less (the logarithm of a retention of at most 1)");
          check_argument(w == nullptr || std::isfinite(w[m]), "write of sequence row ", b,
                         ", token ", t, ", head ", h, ", slot ", m, " is ", w ? w[m] : Acc{},
                         "; expected a finite number");
        }
      }
}

/// The shapes of the inputs against those of the state, for `query_heads` query heads that `source`
/// has. What nothing reads is not looked at.
template <class T>
void check_inputs(const AttentionInputs<T>& inputs, const AttentionShape& shape,
                  const AttentionOptions& options, const char* source, Index query_heads) {
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  const Index heads = shape.kv_heads;
  check_argument(inputs.v.data() != nullptr || inputs.v.extent(2) == heads,
                 "v was left out; expected [B, T, ", heads, ", ", shape.value_dim, "]");
  check_tokens("v", inputs.v, batch, tokens, heads, shape.value_dim);
  check_argument(query_heads > 0 && query_heads % heads == 0, source, " has ", query_heads,
                 " query heads; expected a multiple of the ", heads, " key/value heads");
  if (has_window(options)) {
    check_tokens("q_window", inputs.q_window, batch, tokens, query_heads, shape.key_dim);
    check_tokens("k_window", inputs.k_window, batch, tokens, heads, shape.key_dim);
  }
  if (shape.slots > 0) {
    check_tokens("q_slot", inputs.q_slot, batch, tokens, query_heads, shape.key_dim);
    check_tokens("k_slot", inputs.k_slot, batch, tokens, heads, shape.key_dim);
    check_tokens("log_gate", inputs.log_gate, batch, tokens, heads, shape.slots);
    if (inputs.write.data() != nullptr)
      check_tokens("write", inputs.write, batch, tokens, heads, shape.slots);
  }
  const auto cu = inputs.cu_seqlens;
  check_cu_seqlens(cu, batch, tokens);
  check_argument(!cu.empty() || batch == shape.batch, "the inputs hold ", batch,
                 " sequences; the state holds ", shape.batch);
  check_argument(cu.empty() || cu.size() == static_cast<std::size_t>(shape.batch) + 1,
                 "cu_seqlens has ", cu.size(), " entries; the state's ", shape.batch,
                 " sequences need ", shape.batch + 1);
}

/// The memory of all inputs that are read.
template <class T>
void add_inputs(CallMemory& memory, const AttentionInputs<T>& inputs, const AttentionShape& shape,
                const AttentionOptions& options) {
  memory.reads("v", inputs.v);
  if (has_window(options)) {
    memory.reads("q_window", inputs.q_window);
    memory.reads("k_window", inputs.k_window);
  }
  if (shape.slots > 0) {
    memory.reads("q_slot", inputs.q_slot);
    memory.reads("k_slot", inputs.k_slot);
    memory.reads("log_gate", inputs.log_gate);
    memory.reads("write", inputs.write);
  }
}

/// One number for each query, [B, T, Hq], against the inputs. None is fine.
template <class View>
void check_per_query(const char* name, const View& view, Index batch, Index tokens,
                     Index query_heads) {
  check_argument(view.data() == nullptr || (view.extent(0) == batch && view.extent(1) == tokens &&
                                            view.extent(2) == query_heads),
                 name, " is [", view.extent(0), ", ", view.extent(1), ", ", view.extent(2),
                 "]; expected [", batch, ", ", tokens, ", ", query_heads, "]");
}

}  // namespace detail

/// Checks the shapes of all arguments of the operator against each other and the state's, and that
/// no output shares memory with another tensor. No element is read.
/// @throws ArgumentError naming the first that does not fit.
template <class T>
void validate_shapes(const AttentionInputs<T>& inputs, const AttentionShape& shape,
                     const AttentionOptions& options, const AttentionOutputs<T>& outputs) {
  const Index batch = inputs.v.extent(0);
  const Index tokens = inputs.v.extent(1);
  const Index query_heads = outputs.o.extent(2);
  detail::check_inputs(inputs, shape, options, "o", query_heads);
  detail::check_tokens("o", outputs.o, batch, tokens, query_heads, shape.value_dim);
  detail::check_per_query("lse", outputs.lse, batch, tokens, query_heads);
  detail::check_per_query("slot_share", outputs.slot_share, batch, tokens, query_heads);
  detail::CallMemory memory;
  detail::add_inputs(memory, inputs, shape, options);
  memory.writes("o", outputs.o);
  memory.writes("lse", outputs.lse);
  memory.writes("slot_share", outputs.slot_share);
}

/// Checks the values of gates and write strengths, unless the inputs say they are to be trusted.
/// The shapes must have been checked.
/// @throws ArgumentError naming the first gate above 0 or NaN, or the first write strength that is
///   not finite.
template <class T>
void validate_values(const AttentionInputs<T>& inputs, const AttentionShape& shape) {
  if (shape.slots > 0 && !inputs.trust_gates) detail::check_gates(inputs);
}

/// Checks all arguments of the operator against each other and the state: shapes and values.
/// @throws ArgumentError naming the first that does not fit; nothing has then been touched.
template <class T, class SlotScalar>
void validate(const std::type_identity_t<AttentionInputs<T>>& inputs,
              const AttentionStateBase<T, SlotScalar>& state,
              const std::type_identity_t<AttentionOutputs<T>>& outputs) {
  validate_shapes<T>(inputs, state.shape(), state.options(), outputs);
  validate_values<T>(inputs, state.shape());
}

NHA_ISA_NAMESPACE_END
