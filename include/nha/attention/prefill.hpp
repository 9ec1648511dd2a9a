// SPDX-License-Identifier: MIT
// prefill(): any number of tokens for each sequence, by whichever algorithm fits.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/prefill_tasks.hpp>
#include <nha/attention/prefill_options.hpp>
#include <nha/attention/step.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/workspace.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/memory/state.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <cstddef>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// Bytes of workspace that prefill() needs for at most `tokens` new tokens of a sequence, whatever
/// the state has seen by then. With as many reserved, no call allocates. The number no longer grows
/// once `tokens` exceeds a few windows.
/// @param workers the executor's workers()
/// @throws ArgumentError if a number is out of range.
template <class T, class SlotScalar>
std::size_t prefill_workspace_bytes(const AttentionStateBase<T, SlotScalar>& state,
                                    Index query_heads, Index tokens,
                                    const PrefillOptions& options = {}, Index workers = 1) {
  detail::check_workspace_arguments(state.shape(), query_heads, workers);
  check_argument(tokens >= 0, "tokens is ", tokens, "; expected 0 or more");
  check_argument(options.chunk >= 0, "chunk is ", options.chunk, "; expected 0 or more");
  tokens = std::min(tokens, kMostCallTokens);  // more need no more, and sums stay in range
  std::size_t most = 0;
  for (const detail::CallSize& call : detail::largest_calls(state.shape(), tokens))
    most = std::max(most, detail::PrefillBytes<cpu::simd::default_arch, T, SlotScalar>(
                              state, query_heads, call.tokens, call.past, options, workers)
                              .total());
  return most;
}

/// Puts all new tokens of every sequence into the state and writes an output for each. The outputs
/// are those of reference(), and of as many calls of step(), within rounding. Prefill continues
/// from the state, so a sequence may come in pieces of any length; with cu_seqlens, pieces of
/// unlike length.
///
/// Once the workspace is large enough nothing allocates, and nothing throws after the arguments
/// have been checked. Key/value heads and sequences are independent tasks of the executor; a long
/// sequence of few heads is shared out among its workers. The result does not depend on the
/// executor, to the bit.
/// @throws ArgumentError as validate() says, or if options.chunk is negative; nothing has then been
///   touched.
template <class Arch = cpu::simd::default_arch, class T, class SlotScalar>
void prefill(const std::type_identity_t<AttentionInputs<T>>& inputs,
             AttentionStateBase<T, SlotScalar>& state,
             const std::type_identity_t<AttentionOutputs<T>>& outputs, Workspace& workspace,
             const PrefillOptions& options = {}, ExecutorRef executor = kSerial) {
  check_argument(options.chunk >= 0, "chunk is ", options.chunk, "; expected 0 or more");
  validate(inputs, state, outputs);
  detail::PrefillTasks<Arch, T, SlotScalar> tasks(inputs, state, outputs, options,
                                                  executor.workers());
  workspace.reserve(tasks.bytes());
  tasks.prepare(workspace.data());
  const auto task = [&](Index i, Index worker) noexcept { tasks.run(i, worker); };
  executor.run(tasks.count(), task);
  tasks.finish();
}

/// The same with default options, on an executor.
template <class Arch = cpu::simd::default_arch, class T, class SlotScalar>
void prefill(const std::type_identity_t<AttentionInputs<T>>& inputs,
             AttentionStateBase<T, SlotScalar>& state,
             const std::type_identity_t<AttentionOutputs<T>>& outputs, Workspace& workspace,
             ExecutorRef executor) {
  prefill<Arch>(inputs, state, outputs, workspace, PrefillOptions(), executor);
}

NHA_ISA_NAMESPACE_END
