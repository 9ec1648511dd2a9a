// SPDX-License-Identifier: MIT
// One head of a call as the parts of the chunked backward see it, with their scratch memory.
#pragma once

#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/nha.hpp>

#include "support/random_case.hpp"

namespace nha_test {

/// The last tokens of a random case, after `past` earlier ones that are in the state.
template <class T>
struct BackwardCall {
  using Acc = nha::accumulate_t<T>;
  using Call = nha::detail::ChunkCall<T, nha::Dynamic, nha::Dynamic, nha::Dynamic>;

  BackwardCall(const CaseShape& shape, const nha::AttentionOptions& options, Index past = 0,
               Index chunk = 0, Index sequence = 0, Index head = 0)
      : c(shape),
        state(c.attention_shape(), options),
        inputs(inputs_after(past)),
        plan(nha::detail::backward_plan(state.shape(), nha::head_options(options, head),
                                        shape.group, c.shape.tokens - past, past, chunk)),
        call(inputs, state, plan.chunks, sequence, head, nothing),
        scratch(take_scratch()) {}
  BackwardCall(const BackwardCall&) = delete;

  RandomCase<T> c;
  nha::AttentionState<T> state;
  nha::AttentionInputs<T> inputs;
  nha::detail::BackwardPlan plan;
  nha::Arena nothing{nullptr};  // float slots need no wide copy
  Call call;
  nha::Workspace workspace;
  nha::detail::BackwardScratch<Acc> scratch;

 private:
  nha::AttentionInputs<T> inputs_after(Index past) {
    if (past == 0) return c.inputs();
    CaseOutputs<T> ignored(c.shape);
    prefill_range(c, state, ignored, 0, past, past);
    return c.inputs().tokens(past, c.shape.tokens - past);
  }
  nha::detail::BackwardScratch<Acc> take_scratch() {
    using Scratch = nha::detail::BackwardScratch<Acc>;
    nha::Arena size(nullptr);
    Scratch::take(size, plan);
    workspace.reserve(size.used());
    nha::Arena cursor(workspace.data());
    return Scratch::take(cursor, plan);
  }
};

}  // namespace nha_test
