// SPDX-License-Identifier: MIT
// SlotPass: moves slots through a text, and SlotMap: what a piece of text does to any slots.
//
// The update of the slots is linear. After a piece of text, slots = total . slots before + added,
// whatever they were before, and two such maps compose. Prefill, backward's checkpoints and every
// division of a text among workers move slots here.
#pragma once

#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/update.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// What a piece of text does to the slots of a head: after = total . before + added, slot by slot,
/// for keys, values and mass alike. Owns nothing.
template <class Acc>
struct SlotMap {
  Acc* total = nullptr;  // [padded(M)]
  SlotMemoryView<Acc> added;

  static SlotMap take(Arena& arena, Index key_dim, Index value_dim, Index slots) {
    SlotMap map;
    map.total = arena.take<Acc>(padded(slots));
    map.added = map.added.take(arena, key_dim, value_dim, slots);
    return map;
  }
  /// No text.
  void be_identity() const noexcept {
    std::fill_n(total, padded(added.count), Acc{1});
    added.clear();
  }
  /// slots <- total . slots + added.
  void apply(const SlotMemoryView<Acc>& slots) const noexcept {
    const Index keys = added.key_stride(), values = added.value_stride();
    for (Index d = 0; d < added.key_dim; ++d)
      for (Index m = 0; m < keys; ++m)
        slots.key[d * keys + m] =
            multiply_add(total[m], slots.key[d * keys + m], added.key[d * keys + m]);
    for (Index m = 0; m < added.count; ++m)
      for (Index d = 0; d < values; ++d)
        slots.value[m * values + d] =
            multiply_add(total[m], slots.value[m * values + d], added.value[m * values + d]);
    for (Index m = 0; m < keys; ++m)
      slots.mass[m] = multiply_add(total[m], slots.mass[m], added.mass[m]);
  }
  /// Goes on with the text of `next`: this map becomes that of both texts.
  void compose(const SlotMap& next) const noexcept {
    next.apply(added);
    for (Index m = 0; m < padded(added.count); ++m) total[m] *= next.total[m];
  }
};

/// Moves slots through chunks of a call.
template <class Arch, class Call>
class SlotPass {
  using Acc = typename Call::Acc;

 public:
  /// @param retention, write scratch for the gates of a step, [step, plan.slots] each
  SlotPass(const ChunkedCall<Call>& call, const UpdateScratch<Acc>& scratch, Acc* retention,
           Acc* write) noexcept
      : call_(call), update_(call, scratch), retention_(retention), write_(write) {}

  /// The gates of the tokens that enter during a chunk, in this pass's scratch.
  cpu::EnteringGates<Acc> gates(const Chunk& chunk) const noexcept {
    return call_.template entering_gates<Arch>(chunk, retention_, write_);
  }

  /// Through one chunk, into which something enters, given its gates: `from` are the slots as of
  /// its start, `to` those as of its end; they may be the same. The rows that the next chunk will
  /// read are prefetched.
  void through(const Chunk& chunk, const cpu::EnteringGates<Acc>& gates,
               const SlotMemoryView<const Acc>& from,
               const SlotMemoryView<Acc>& to) const noexcept {
    cpu::RowPrefetcher rows = update_.rows_after(chunk);
    through(chunk, gates, update_.pack_values(chunk), from, to, rows);
  }
  /// The same with the entering tokens' values where the caller has packed them, and the caller's
  /// own rows to prefetch.
  void through(const Chunk& chunk, const cpu::EnteringGates<Acc>& gates,
               const cpu::RightOperand<Acc>& values, const SlotMemoryView<const Acc>& from,
               const SlotMemoryView<Acc>& to, cpu::RowPrefetcher& rows) const noexcept {
    update_.run(chunk, gates, values, from, to, &rows);
  }

  /// Through positions [first, last), `step` tokens at a time. Slots that nothing has entered by
  /// then are left alone. Returns whether `to` has been written.
  bool through(std::int64_t first, std::int64_t last, Index step,
               const SlotMemoryView<const Acc>& from,
               const SlotMemoryView<Acc>& to) const noexcept {
    bool written = false;
    for_steps(first, last, step, [&](const Chunk& chunk) {
      through(chunk, gates(chunk), written ? to : from, to);
      written = true;
    });
    return written;
  }

  /// What positions [first, last) do to any slots.
  void map(std::int64_t first, std::int64_t last, Index step,
           const SlotMap<Acc>& map) const noexcept {
    map.be_identity();
    for_steps(first, last, step, [&](const Chunk& chunk) {
      const auto entering = gates(chunk);
      through(chunk, entering, map.added, map.added);
      if (entering.first == entering.count) return;
      for (Index m = 0; m < call_.plan.slots; ++m) map.total[m] *= update_.total()[m];
    });
  }

 private:
  /// Calls f(chunk) for steps in which something enters the slots.
  template <class F>
  void for_steps(std::int64_t first, std::int64_t last, Index step, F&& f) const noexcept {
    for (Chunk chunk{first, 0}; chunk.position < last; chunk.position = chunk.end()) {
      chunk.count = static_cast<Index>(std::min<std::int64_t>(step, last - chunk.position));
      if (call_.slots_are_written(chunk)) f(chunk);
    }
  }

  const ChunkedCall<Call>& call_;
  ChunkUpdate<Arch, Call> update_;
  Acc* retention_;
  Acc* write_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
