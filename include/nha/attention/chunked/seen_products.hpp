// SPDX-License-Identifier: MIT
// Products over what each query sees, and nothing else.
//
// The matrix products take a query's weight on what it does not see as 0. That is the same as
// leaving it out unless a number there is NaN or infinite: 0 times infinity is NaN. Where a chunk
// has such numbers, these plain loops replace the products, so that they reach the queries that see
// them and no others.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A matrix of rows.
template <class Acc>
struct RowMatrix {
  Acc* data;
  Index stride;
};

/// to[r] += sum over the columns c that row r sees of weights[r][c] . from[c], rows of `numbers`
/// numbers.
template <class Acc, class Sees>
void add_seen(Index rows, Index columns, RowMatrix<const Acc> weights, RowMatrix<const Acc> from,
              Index numbers, RowMatrix<Acc> to, Sees&& sees) noexcept {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      if (!sees(r, c)) continue;
      const Acc weight = weights.data[r * weights.stride + c];
      for (Index d = 0; d < numbers; ++d)
        to.data[r * to.stride + d] += weight * from.data[c * from.stride + d];
    }
}

/// The way back: to[c] += sum over the rows r that see column c of weights[r][c] . from[r].
template <class Acc, class Sees>
void add_to_seen(Index rows, Index columns, RowMatrix<const Acc> weights, RowMatrix<const Acc> from,
                 Index numbers, RowMatrix<Acc> to, Sees&& sees) noexcept {
  for (Index r = 0; r < rows; ++r)
    for (Index c = 0; c < columns; ++c) {
      if (!sees(r, c)) continue;
      const Acc weight = weights.data[r * weights.stride + c];
      for (Index d = 0; d < numbers; ++d)
        to.data[c * to.stride + d] += weight * from.data[r * from.stride + d];
    }
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
