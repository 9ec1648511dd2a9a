// SPDX-License-Identifier: MIT
// prefill(): any number of tokens per sequence, by whichever algorithm fits.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunk_plan.hpp>
#include <nha/attention/chunked.hpp>
#include <nha/attention/recurrent.hpp>
#include <nha/attention/reference.hpp>
#include <nha/attention/step.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/subnormals.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// How to compute; the result is the same within rounding.
enum class Algorithm {
  /// The fastest for the number of tokens.
  automatic,
  /// reference(): the definition, for comparison. Allocates.
  reference,
  /// Token by token, as step().
  recurrent,
  /// Chunks of tokens, by matrix products.
  chunked,
};

/// How prefill() computes.
struct PrefillOptions {
  Algorithm algorithm = Algorithm::automatic;
  /// Tokens to a chunk of the chunked algorithm; 0 picks the number.
  Index chunk = 0;
};

namespace detail {

inline bool takes_chunks(Algorithm algorithm, Index tokens) noexcept {
  // Below this many tokens a chunk's products are too small to be worth setting up.
  constexpr Index kFewTokens = 4;
  return algorithm == Algorithm::chunked ||
         (algorithm == Algorithm::automatic && tokens >= kFewTokens);
}

/// Scratch bytes of one worker for calls with at most `tokens` tokens of a sequence that has seen
/// at most `past`, whichever head and algorithm it gets.
template <class State>
std::size_t prefill_bytes(const State& state, Index query_heads, Index tokens, std::int64_t past,
                          const PrefillOptions& options) {
  const std::size_t recurrent = recurrent_bytes(state, query_heads);
  if (!takes_chunks(options.algorithm, tokens)) return recurrent;
  const AttentionShape& shape = state.shape();
  std::size_t most = 0;
  for (Index h = 0; h < shape.kv_heads; ++h)
    most = std::max(most, ChunkScratch<typename State::Acc>::bytes(chunk_plan(
                              shape, head_options(state.options(), h), query_heads / shape.kv_heads,
                              tokens, past, options.chunk)));
  return std::max(recurrent, most + wide_slots_bytes<typename State::SlotType>(shape));
}

template <class State>
std::int64_t longest_past(const State& state) {
  std::int64_t past = 0;
  for (Index n = 0; n < state.shape().batch; ++n) past = std::max(past, state.tokens_seen(n));
  return past;
}

}  // namespace detail

/// Bytes of workspace that prefill() needs for at most `tokens` new tokens of a sequence, whatever
/// the state has seen by then: with so many reserved, no call allocates. Independent of `tokens`
/// once they exceed a few windows.
/// @param workers the executor's
/// @throws ArgumentError if a number is out of range.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
std::size_t prefill_workspace_bytes(
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state, Index query_heads,
    Index tokens, const PrefillOptions& options = {}, Index workers = 1) {
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  check_argument(tokens >= 0, "tokens is ", tokens, "; expected 0 or more");
  check_argument(options.chunk >= 0, "chunk is ", options.chunk, "; expected 0 or more");
  // Either a window is as full as it gets, or it is as full as it may be for short chunks.
  std::size_t most = 0;
  for (const std::int64_t past : {Index{1} << 48, std::max<Index>(0, detail::kLongWindow - tokens)})
    most = std::max(most, detail::prefill_bytes(state, query_heads, tokens, past, options));
  return most * static_cast<std::size_t>(workers);
}

/// Puts all new tokens of every sequence into the state and reads it at each: what reference()
/// computes, within rounding, and what as many calls of step() would. Continues from the state, so
/// a sequence may come in pieces of any length, with cu_seqlens in pieces of unlike length.
///
/// Once the workspace is large enough nothing allocates (Algorithm::reference does), and nothing
/// throws after the arguments have been checked. Key/value heads and sequences are independent
/// tasks of the executor; the result does not depend on it.
/// @throws ArgumentError as validate() says, or if options.chunk is negative; nothing has then been
///   touched.
template <class Arch = simd::default_arch, class T, Index KeyDim, Index ValueDim, Index Slots,
          class SlotScalar, Executor E = const Serial>
void prefill(const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
             AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
             const std::type_identity_t<AttentionOutputs<T, ValueDim>>& outputs,
             Workspace& workspace, const PrefillOptions& options = {}, E&& executor = Serial{}) {
  check_argument(options.chunk >= 0, "chunk is ", options.chunk, "; expected 0 or more");
  if (options.algorithm == Algorithm::reference) {
    reference(inputs, state, outputs);
    return;
  }
  validate(inputs, state, outputs);
  const AttentionShape& shape = state.shape();
  const Index group = outputs.o.extent(2) / shape.kv_heads;
  Index tokens = 0;
  for (Index n = 0; n < shape.batch; ++n) tokens = std::max(tokens, sequence_span(inputs, n).count);
  const std::int64_t past = detail::longest_past(state);
  const std::size_t bytes =
      detail::prefill_bytes(state, outputs.o.extent(2), tokens, past, options);
  workspace.reserve(bytes * static_cast<std::size_t>(executor.workers()));

  const auto task = [&](Index i, Index worker) noexcept {
    const FlushSubnormals flush;
    const Index sequence = i / shape.kv_heads;
    const Index head = i % shape.kv_heads;
    std::byte* scratch = workspace.data() + static_cast<std::size_t>(worker) * bytes;
    if (detail::takes_chunks(options.algorithm, sequence_span(inputs, sequence).count)) {
      const auto plan = detail::chunk_plan(shape, head_options(state.options(), head), group,
                                           tokens, past, options.chunk);
      detail::ChunkedHead<Arch, T, KeyDim, ValueDim, Slots, SlotScalar>(
          inputs, state, outputs, plan, scratch, sequence, head)
          .run();
    } else {
      detail::RecurrentHead<Arch, T, KeyDim, ValueDim, Slots, SlotScalar>(inputs, state, outputs,
                                                                          scratch, sequence, head)
          .run();
    }
  };
  executor.run(shape.batch * shape.kv_heads, task);
  for (Index n = 0; n < shape.batch; ++n)
    detail::StateAccess::advance(state, n, sequence_span(inputs, n).count);
}

/// The same with default options, on an executor.
template <class Arch = simd::default_arch, class T, Index KeyDim, Index ValueDim, Index Slots,
          class SlotScalar, Executor E>
void prefill(const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
             AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
             const std::type_identity_t<AttentionOutputs<T, ValueDim>>& outputs,
             Workspace& workspace, E&& executor) {
  prefill<Arch>(inputs, state, outputs, workspace, PrefillOptions(), executor);
}

NHA_ISA_NAMESPACE_END
