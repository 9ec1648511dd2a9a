// SPDX-License-Identifier: MIT
// The definition, run for every sequence and head of a call.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/definition.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <optional>

namespace nha_test {

/// Results of the definition in the shapes that the operator gives them.
struct DefinitionRun {
  nha::Tensor<double, 4> o;                // [B, T, Hq, Dv]
  nha::Tensor<double, 3> lse, slot_share;  // [B, T, Hq]
  nha::Tensor<double, 4> slot_k, slot_v;   // [N, Hkv, M, Dk or Dv], after the last token
  nha::Tensor<double, 3> mass;             // [N, Hkv, M]
};

/// Slots before the first token, for all sequences and heads.
struct InitialSlots {
  nha::Tensor<double, 4> slot_k, slot_v;       // [N, Hkv, M, Dk or Dv]
  std::optional<nha::Tensor<double, 3>> mass;  // [N, Hkv, M]; ones where left out
};

/// Runs the definition for each of shape.batch sequences and `query_heads` heads.
inline DefinitionRun run_definition(const nha::AttentionInputs<double>& in,
                                    const nha::AttentionShape& shape, nha::Index query_heads,
                                    const nha::AttentionOptions& options,
                                    const std::optional<InitialSlots>& initial = std::nullopt,
                                    nha::Index sinks = 0) {
  using nha::Index;
  const Index rows = in.v.extent(0), tokens = in.v.extent(1);
  const Index group = query_heads / shape.kv_heads;
  DefinitionRun out{
      .o = nha::Tensor<double, 4>({rows, tokens, query_heads, shape.value_dim}),
      .lse = nha::Tensor<double, 3>({rows, tokens, query_heads}),
      .slot_share = nha::Tensor<double, 3>({rows, tokens, query_heads}),
      .slot_k = nha::Tensor<double, 4>({shape.batch, shape.kv_heads, shape.slots, shape.key_dim}),
      .slot_v = nha::Tensor<double, 4>({shape.batch, shape.kv_heads, shape.slots, shape.value_dim}),
      .mass = nha::Tensor<double, 3>({shape.batch, shape.kv_heads, shape.slots})};

  for (Index n = 0; n < shape.batch; ++n) {
    const bool packed = !in.cu_seqlens.empty();
    const Index row = packed ? 0 : n;
    const auto* ends = packed ? in.cu_seqlens.data() + n : nullptr;
    const Index first = packed ? static_cast<Index>(ends[0]) : 0;
    const Index count = packed ? static_cast<Index>(ends[1] - ends[0]) : tokens;
    for (Index query_head = 0; query_head < query_heads; ++query_head) {
      const Index head = query_head / group;
      const auto matrix = [&](const auto& view, Index at) {
        if (view.data() == nullptr) return nha::DefinitionInputs::Matrix();
        return nha::DefinitionInputs::Matrix(
            view.data() + row * view.stride(0) + first * view.stride(1) + at * view.stride(2),
            {count, view.extent(3)}, {view.stride(1), view.stride(3)});
      };
      nha::DefinitionInputs inputs{.q_window = matrix(in.q_window, query_head),
                                   .k_window = matrix(in.k_window, head),
                                   .q_slot = matrix(in.q_slot, query_head),
                                   .k_slot = matrix(in.k_slot, head),
                                   .v = matrix(in.v, head),
                                   .log_gate = matrix(in.log_gate, head),
                                   .write = matrix(in.write, head)};
      if (initial) {
        nha::DefinitionSlots slots{nha::Tensor<double, 2>({shape.slots, shape.key_dim}),
                                   nha::Tensor<double, 2>({shape.slots, shape.value_dim}),
                                   nha::Tensor<double, 1>({shape.slots})};
        for (Index m = 0; m < shape.slots; ++m) {
          for (Index d = 0; d < shape.key_dim; ++d)
            slots.key(m, d) = initial->slot_k(n, head, m, d);
          for (Index d = 0; d < shape.value_dim; ++d)
            slots.value(m, d) = initial->slot_v(n, head, m, d);
          slots.mass(m) = initial->mass ? (*initial->mass)(n, head, m) : 1;
        }
        inputs.initial_slots = slots;
      }

      nha::AttentionOptions of_head = options;
      if (!options.head_windows.empty())
        of_head.window = options.head_windows[static_cast<std::size_t>(head)];
      const nha::DefinitionResults results = nha::definition(inputs, of_head, sinks);
      for (Index t = 0; t < count; ++t) {
        for (Index d = 0; d < shape.value_dim; ++d)
          out.o(row, first + t, query_head, d) = results.o(t, d);
        out.lse(row, first + t, query_head) = results.lse(t);
        out.slot_share(row, first + t, query_head) = results.slot_share(t);
      }
      const auto place = [&](const auto& from, auto& to) {
        std::copy(from.values().begin(), from.values().end(), to.view()[n][head].data());
      };
      place(results.slots.key, out.slot_k);
      place(results.slots.value, out.slot_v);
      std::copy(results.slots.mass.values().begin(), results.slots.mass.values().end(),
                out.mass.view()[n][head].data());
    }
  }
  return out;
}

}  // namespace nha_test
