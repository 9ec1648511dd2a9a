// SPDX-License-Identifier: MIT
// One head of a call as the parts of the chunked backward see it, with their scratch memory.
#pragma once

#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/nha.hpp>

#include "support/random_case.hpp"

namespace nha_test {

/// The last tokens of a random case, after `past` earlier ones that are in the state.
template <class T>
struct BackwardCall {
  using Acc = nha::accumulate_t<T>;
  using Call = nha::detail::HeadCall<T>;

  BackwardCall(const CaseShape& shape, const nha::AttentionOptions& options, Index past = 0,
               Index chunk = 0, Index of_sequence = 0, Index of_head = 0)
      : c(shape),
        state(c.attention_shape(), options),
        inputs(inputs_after(past)),
        sequence(of_sequence),
        head(of_head),
        plan(nha::detail::backward_plan(state.shape(), nha::head_options(options, head),
                                        shape.group, c.shape.tokens - past, past, chunk)),
        call(nha::detail::head_call(inputs, state, shape.kv_heads * shape.group, sequence, head),
             plan.chunks, 0),
        scratch(take_scratch()) {}
  BackwardCall(const BackwardCall&) = delete;

  // The head's part of what backward is given. The tensors stay the caller's.
  nha::detail::HeadCotangents<T> head_part(const nha::AttentionCotangents<T>& all) const {
    return {all, span(), c.shape.group, sequence, head};
  }
  nha::detail::HeadGradients<T> head_part(const nha::AttentionGradients<T>& all) const {
    return {all, span(), c.shape.group, sequence, head};
  }
  nha::detail::HeadSaved<T> head_part(const nha::AttentionSaved<T>& all) const {
    return {all, span(), c.shape.group, head};
  }

  RandomCase<T> c;
  nha::AttentionState<T> state;
  nha::AttentionInputs<T> inputs;
  Index sequence;
  Index head;
  nha::detail::BackwardPlan plan;
  nha::detail::ChunkedCall<Call> call;
  nha::Workspace workspace;
  nha::detail::BackwardScratch<Acc> scratch;

 private:
  nha::detail::SequenceSpan span() const { return nha::detail::sequence_span(inputs, sequence); }
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
