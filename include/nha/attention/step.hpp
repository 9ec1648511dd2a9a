// SPDX-License-Identifier: MIT
// step(): one token per sequence, the way a model decodes.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/recurrent.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/core/workspace.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

inline void check_workspace_arguments(const AttentionShape& shape, Index query_heads,
                                      Index workers) {
  check_argument(query_heads > 0 && query_heads % shape.kv_heads == 0, "query_heads is ",
                 query_heads, "; expected a multiple of the ", shape.kv_heads, " key/value heads");
  check_argument(workers >= 1, "workers is ", workers, "; expected 1 or more");
}

}  // namespace detail

/// Bytes of workspace that step() needs for inputs with `query_heads` query heads; the same for
/// every number of tokens seen.
/// @param workers the executor's
/// @throws ArgumentError if a number is out of range.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::size_t step_workspace_bytes(
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index query_heads,
    Index workers = 1) {
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  return detail::recurrent_bytes(state, query_heads) * static_cast<std::size_t>(workers);
}

/// Puts one token of every sequence into the state and reads it: what reference() computes, within
/// rounding, at a cost of (M + W)(Dk + Dv) multiply-adds per query head whatever came before.
///
/// Inputs have T = 1; with cu_seqlens, sequences get one token or none. Once the workspace is large
/// enough nothing allocates, and nothing throws after the arguments have been checked. Key/value
/// heads and sequences are independent tasks of the executor; the result does not depend on it.
/// @throws ArgumentError as validate() says, or if a sequence has more than one token; nothing has
///   then been touched.
template <class Arch = cpu::simd::default_arch, class T, Index KeyDim, Index ValueDim, Index Slots,
          class SlotScalar, Executor E = const Serial>
void step(const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
          AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
          const std::type_identity_t<AttentionOutputs<T, ValueDim>>& outputs, Workspace& workspace,
          E&& executor = Serial{}) {
  validate(inputs, state, outputs);
  const AttentionShape& shape = state.shape();
  for (Index n = 0; n < shape.batch; ++n)
    check_argument(sequence_span(inputs, n).count <= 1, "sequence ", n, " has ",
                   sequence_span(inputs, n).count, " tokens; step takes one (prefill takes many)");
  const auto workers = static_cast<std::size_t>(executor.workers());
  const std::size_t bytes = detail::recurrent_bytes(state, outputs.o.extent(2));
  workspace.reserve(bytes * workers);
  const auto task = [&](Index i, Index worker) noexcept {
    const FlushSubnormals flush;
    detail::recurrent_head<Arch>(inputs, state, outputs,
                                 workspace.data() + static_cast<std::size_t>(worker) * bytes,
                                 i / shape.kv_heads, i % shape.kv_heads)
        .run();
  };
  executor.run(shape.batch * shape.kv_heads, task);
  for (Index n = 0; n < shape.batch; ++n)
    detail::StateAccess::advance(state, n, sequence_span(inputs, n).count);
}

NHA_ISA_NAMESPACE_END
