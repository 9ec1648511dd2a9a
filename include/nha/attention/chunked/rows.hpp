// SPDX-License-Identifier: MIT
// ChunkRows: the queries of a chunk as rows of the backward's products, and where their gradients
// go.
#pragma once

#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Row r is the query of token r / group in head r % group of the group.
template <class Call>
struct ChunkRows {
  using Acc = typename Call::Acc;

  const Call& call;
  Chunk chunk = {};

  Index rows() const noexcept { return chunk.count * call.plan.group; }
  Index token(Index row) const noexcept { return row / call.plan.group; }
  std::int64_t position(Index row) const noexcept { return chunk.position + token(row); }
  Index query_head(Index row) const noexcept {
    return call.head * call.plan.group + row % call.plan.group;
  }
  /// The row's part of a tensor of queries.
  auto* query(const auto& view, Index row) const noexcept {
    return &view(call.span.row, call.token_of(position(row)), query_head(row), 0);
  }
  /// A number for each query, 0 where it was left out.
  Acc number(const auto& view, Index row) const noexcept {
    return view.data() == nullptr
               ? Acc{0}
               : view(call.span.row, call.token_of(position(row)), query_head(row));
  }

  /// Writes a row of a gradient, times a factor, if it is wanted.
  void store(const auto& view, std::int64_t at, Index head, const Acc* row, Index count,
             Acc factor = Acc{1}) const noexcept {
    if (view.data() == nullptr) return;
    Acc* to = &view(call.span.row, call.token_of(at), head, 0);
    for (Index d = 0; d < count; ++d) to[d] = factor * row[d];
  }
  void clear(const auto& view, std::int64_t at, Index head, Index count) const noexcept {
    if (view.data() != nullptr)
      std::fill_n(&view(call.span.row, call.token_of(at), head, 0), count, Acc{0});
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
