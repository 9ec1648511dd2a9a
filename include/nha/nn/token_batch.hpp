// SPDX-License-Identifier: MIT
// TokenBatch: the sequence that each row of a layer's activations belongs to.
#pragma once

#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

NHA_ISA_NAMESPACE_BEGIN

/// New tokens of several sequences, one row each, sequence after sequence. Without cu_seqlens there
/// are `batch` sequences of `tokens` tokens each. With cu_seqlens, batch is 1 and there are N
/// sequences of any lengths; cu_seqlens holds N+1 ascending offsets, from 0 to tokens.
struct TokenBatch {
  Index batch = 1;
  Index tokens = 0;
  std::span<const std::int64_t> cu_seqlens = {};

  Index rows() const noexcept { return batch * tokens; }
  Index sequences() const noexcept {
    return cu_seqlens.empty() ? batch : static_cast<Index>(cu_seqlens.size()) - 1;
  }
  /// First row of one sequence. The sequence must exist.
  Index first_row(Index sequence) const noexcept {
    return cu_seqlens.empty() ? sequence * tokens
                              : static_cast<Index>(cu_seqlens[static_cast<std::size_t>(sequence)]);
  }
  /// Number of rows of one sequence. The sequence must exist.
  Index count(Index sequence) const noexcept {
    return cu_seqlens.empty() ? tokens : first_row(sequence + 1) - first_row(sequence);
  }
  /// Number of tokens of the longest sequence.
  Index longest() const noexcept {
    Index most = 0;
    for (Index n = 0; n < sequences(); ++n) most = std::max(most, count(n));
    return most;
  }
};

/// @throws ArgumentError if the batch does not hold tokens for exactly `sequences` sequences.
inline void validate(const TokenBatch& tokens, Index sequences) {
  detail::check_cu_seqlens(tokens.cu_seqlens, tokens.batch, tokens.tokens);
  check_argument(tokens.sequences() == sequences, "the tokens are of ", tokens.sequences(),
                 " sequences; the state holds ", sequences);
}

NHA_ISA_NAMESPACE_END
