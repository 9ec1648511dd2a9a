// SPDX-License-Identifier: MIT
// ChunkedCall: one head's call cut into chunks of tokens, as the chunked algorithm goes through it.
#pragma once

#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/memory/history.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Some consecutive tokens of a call: the position of the first, and their number.
struct Chunk {
  std::int64_t position = 0;
  Index count = 0;

  std::int64_t end() const noexcept { return position + count; }
};

/// A head's call with the sizes of its chunks.
template <class HeadCallType>
struct ChunkedCall : HeadCallType {
  using Call = HeadCallType;
  using Acc = typename Call::Acc;

  ChunkPlan plan;
  Index max_rollback;  // the state's: chunks end where a copy of the slots is due

  ChunkedCall(const Call& call, const ChunkPlan& chunk_plan, Index rollback) noexcept
      : Call(call), plan(chunk_plan), max_rollback(rollback) {}

  using Call::entering;
  using Call::slots_are_written;

  /// The chunk that begins at `position`: as many tokens as the plan says, fewer before the end and
  /// before a copy of the slots.
  Chunk chunk_at(std::int64_t position) const noexcept {
    const std::int64_t stop = next_snapshot(position, this->end, max_rollback);
    return {position, static_cast<Index>(std::min<std::int64_t>(plan.chunk, stop - position))};
  }
  /// Whether something is in the slots by the end of the chunk. Until the first token has entered
  /// them, with a window as long as the text always, their products are left out.
  bool slots_are_written(const Chunk& chunk) const noexcept {
    return chunk.count > 0 && this->slots_are_written(chunk.end() - 1);
  }
  /// Of the tokens that enter the slots during a chunk, one for each of its own, the first that is
  /// not before the sequence's beginning.
  Index first_entering(const Chunk& chunk) const noexcept {
    return static_cast<Index>(std::clamp<std::int64_t>(-entering(chunk.position), 0, chunk.count));
  }
  /// Position of the i-th token that enters during a chunk.
  std::int64_t entering(const Chunk& chunk, Index i) const noexcept {
    return entering(chunk.position) + i;
  }
  /// Retention and write strengths of the tokens that enter during a chunk, into rows
  /// [chunk, plan.slots].
  template <class Arch>
  NHA_NOINLINE cpu::EnteringGates<Acc> entering_gates(const Chunk& chunk, Acc* keep,
                                                      Acc* add) const noexcept {
    const Index first = first_entering(chunk);
    for (Index i = first; i < chunk.count; ++i)
      gates_of<Arch>(entering(chunk, i), keep + i * plan.slots, add + i * plan.slots);
    return {keep, add, plan.slots, first, chunk.count};
  }
  /// Retention and write strengths of one token, padded.
  template <class Arch>
  void gates_of(std::int64_t position, Acc* keep, Acc* add) const noexcept {
    this->gates(position, keep, add,
                [&](const Acc* log_gates, const Acc* given, Acc* retention, Acc* strength) {
                  cpu::pack_gates<Arch>(log_gates, given, this->slots(), retention, strength);
                });
  }

  /// Lists rows of a tensor to prefetch: `heads` rows of each of the call's tokens among positions
  /// [first, last).
  template <class T>
  NHA_NOINLINE void list_rows(cpu::RowPrefetcher& prefetcher, const HeadRows<T>& rows,
                              std::int64_t first, std::int64_t last, Index heads,
                              Index numbers) const noexcept {
    first = std::max(first, this->begin);
    last = std::min(last, this->end);
    if (!rows || first >= last) return;
    prefetcher.add(rows.row(this->token(first)), static_cast<Index>(last - first),
                   rows.token_stride, heads, rows.head_stride, numbers);
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
