// SPDX-License-Identifier: MIT
// BackwardRows: the queries of a chunk as rows of backward's products, and what is known of each.
#pragma once

#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/pack.hpp>

#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Row r is the query of token r / group in head r % group of the group. This is all that the
/// window's half of backward and the slots' half share: the packed queries, what came back for
/// their outputs, and the scores of both, slots first.
template <class Call>
struct BackwardRows {
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;

  const ChunkedCall<Call>& call;
  const HeadCotangents<T>& cotangents;
  RowScratch<Acc> s;
  Chunk chunk = {};
  bool finite = true;  // whether queries and d_output are

  Index count() const noexcept { return chunk.count * call.group; }
  Index token(Index row) const noexcept { return row / call.group; }
  Index head(Index row) const noexcept { return row % call.group; }
  std::int64_t position(Index row) const noexcept { return chunk.position + token(row); }
  /// Index of the row's token in the call.
  Index call_token(Index row) const noexcept { return call.token(position(row)); }

  Index key_stride() const noexcept { return padded(call.plan.key_dim); }
  Index value_stride() const noexcept { return call.plan.value_dim; }
  Index score_stride() const noexcept { return call.plan.row_stride(); }
  /// Logits and then weights; derivatives by the weights and then by the logits.
  Acc* scores(Index row) const noexcept { return s.scores + row * score_stride(); }
  Acc* d_scores(Index row) const noexcept { return s.d_scores + row * score_stride(); }

  /// A number for each query, 0 where it was left out.
  Acc number(const HeadRows<const Acc>& of_queries, Index row) const noexcept {
    return of_queries ? *of_queries.row(call_token(row), head(row)) : Acc{0};
  }

  /// Packs the queries of a chunk and what came back for their outputs.
  void pack(const Chunk& of_chunk, bool with_slots) noexcept {
    chunk = of_chunk;
    for (Index row = 0; row < count(); ++row) {
      const Index i = call_token(row), g = head(row);
      if (with_slots)
        cpu::pack_scaled_row(call.q_slot.row(i, g), call.key_dim(), call.softmax_scale,
                             s.q_slot + row * key_stride());
      if (call.window > 0)
        cpu::pack_scaled_row(call.q_window.row(i, g), call.key_dim(), call.softmax_scale,
                             s.q_window + row * key_stride());
      cpu::pack_row<T>(cotangents.o.row(i, g), call.value_dim(), s.d_output + row * value_stride());
    }
    finite = cpu::all_finite(s.d_output, count() * value_stride()) &&
             (!with_slots || cpu::all_finite(s.q_slot, count() * key_stride())) &&
             (call.window == 0 || cpu::all_finite(s.q_window, count() * key_stride()));
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
