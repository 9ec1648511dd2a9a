// SPDX-License-Identifier: MIT
// ChunkUpdate: how the tokens of a chunk enter the slots, by two matrix products.
#pragma once

#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/memory/slot_memory.hpp>

#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Moves slots on by a chunk of a call.
template <class Arch, class Call>
class ChunkUpdate {
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;

 public:
  ChunkUpdate(const ChunkedCall<Call>& call, const UpdateScratch<Acc>& scratch) noexcept
      : call_(call), s_(scratch) {}

  /// Slots and mass after the chunk, `to`, of those before it, `from`, which may be the same. Row i
  /// of `values` is that of the first entering token plus i, [., value_dim] of the plan. What the
  /// chunk does is `to` = total() . `from` + what its tokens add.
  NHA_NOINLINE void run(const Chunk& chunk, const cpu::EnteringGates<Acc>& gates,
                        const cpu::RightOperand<Acc>& values, const SlotMemoryView<const Acc>& from,
                        const SlotMemoryView<Acc>& to,
                        cpu::RowPrefetcher* prefetcher = nullptr) const noexcept {
    const ChunkPlan& plan = call_.plan;
    const Index depth = gates.count - gates.first;
    if (depth == 0) {
      if (from.key != to.key) to.copy_from(from);
      return;
    }
    const Index key_stride = padded(plan.key_dim);
    for (Index i = 0; i < depth; ++i)
      cpu::pack_row<T>(call_.slot_key(call_.entering(chunk, gates.first + i)), from.key_dim,
                       s_.entering_keys + i * key_stride);
    cpu::chunk_strengths<Arch>(gates, s_.total, s_.strength);
    const Acc* strength = s_.strength + gates.first * plan.slots;
    // keys^T [Dk, M] <- keys^T . total + entering^T [Dk, n] strength [n, M]
    cpu::gemm<Arch>(plan.key_dim, plan.slots, depth,
                    cpu::Transposed<Acc>{s_.entering_keys, key_stride},
                    cpu::row_major(strength, plan.slots), to.key, to.key_stride(),
                    cpu::ScaleColumns<Acc>{s_.total, from.key, from.key_stride()}, prefetcher);
    // values [M, Dv] <- total . values + strength^T [M, n] values [n, Dv]
    cpu::gemm<Arch>(from.count, plan.value_dim, depth, cpu::Transposed<Acc>{strength, plan.slots},
                    values, to.value, to.value_stride(),
                    cpu::ScaleRows<Acc>{s_.total, from.value, from.value_stride()}, prefetcher);
    const Acc* mass = from.mass;
    for (Index i = gates.first; i < gates.count; ++i, mass = to.mass)
      for (Index m = 0; m < plan.slots; ++m)
        to.mass[m] = multiply_add(gates.retention[i * plan.slots + m], mass[m],
                                  gates.write[i * plan.slots + m]);
  }

  /// What the chunk of the last run() leaves of each slot: the product of its retentions,
  /// [plan.slots].
  const Acc* total() const noexcept { return s_.total; }

  /// The rows that moving on by as many tokens after a chunk will read.
  NHA_NOINLINE cpu::RowPrefetcher rows_after(const Chunk& chunk) const noexcept {
    // Three rows of each token, and a few tokens to each tile.
    cpu::RowPrefetcher rows(3);
    const std::int64_t next = call_.entering(chunk, chunk.count), end = next + chunk.count;
    call_.list_rows(rows, call_.k_slot, next, end, 1, call_.key_dim());
    call_.list_rows(rows, call_.log_gate, next, end, 1, call_.slots());
    call_.list_rows(rows, call_.v, next, end, 1, call_.value_dim());
    return rows;
  }

  /// The values of the tokens that enter during a chunk, packed for run().
  NHA_NOINLINE cpu::RightOperand<Acc> pack_values(const Chunk& chunk) const noexcept {
    const Index first = call_.first_entering(chunk);
    const Index stride = call_.plan.value_dim;
    for (Index i = first; i < chunk.count; ++i)
      cpu::pack_row<T>(call_.value(call_.entering(chunk, i)), call_.value_dim(),
                       s_.entering_values + (i - first) * stride);
    return cpu::row_major<Acc>(s_.entering_values, stride);
  }

 private:
  const ChunkedCall<Call>& call_;
  UpdateScratch<Acc> s_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
