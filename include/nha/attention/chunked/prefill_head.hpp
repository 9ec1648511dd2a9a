// SPDX-License-Identifier: MIT
// PrefillHead: one head's part of a prefill by chunks, and what it leaves in the state.
//
// A chunk is a few tokens (8 to 64, see plan.hpp) and the queries of all heads of the group. For
// each chunk:
//   slots    logits of the queries against the slots as of the chunk's start, one product, then
//            moved on to each query's own time inside the chunk (cpu/decay.hpp);
//   window   scores against the packed keys of the window, a band, one product;
//   softmax  over both at once; a band longer than a block is taken in blocks, online;
//   output   weights on the slots go back to the chunk's start and to the tokens that entered
//            since. These share columns with the window: one product with the values serves both;
//   update   the slots move on by a chunk: two products.
// Memory does not depend on the number of tokens unless the window holds them all.
#pragma once

#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/read.hpp>
#include <nha/attention/chunked/slot_pass.hpp>
#include <nha/attention/chunked/working_slots.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/memory/head_state.hpp>
#include <nha/memory/history.hpp>
#include <nha/memory/slot_memory.hpp>
#include <nha/memory/state_base.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The scratch memory of one worker.
template <class Acc>
struct ChunkScratch {
  Acc* retention;  // [chunk, slots] of the entering tokens
  Acc* write;      // [chunk, slots]
  UpdateScratch<Acc> update;
  ReadScratch<Acc> read;

  NHA_NOINLINE static ChunkScratch take(Arena& arena, const ChunkPlan& p) noexcept {
    ChunkScratch s;
    s.retention = arena.take<Acc>(p.chunk * p.slots);
    s.write = arena.take<Acc>(p.chunk * p.slots);
    s.update = UpdateScratch<Acc>::take(arena, p);
    s.read = ReadScratch<Acc>::take(arena, p);
    return s;
  }
  static std::size_t bytes(const ChunkPlan& plan) noexcept {
    Arena arena(nullptr);
    take(arena, plan);
    return arena.used();
  }
};

/// One head's tokens of a call, read and left in the state.
template <class Arch, class T, class SlotScalar>
class PrefillHead {
 public:
  using Call = HeadCall<T, SlotScalar>;
  using Acc = accumulate_t<T>;
  using State = AttentionStateBase<T, SlotScalar>;

  /// Wide copies of slots of a half type are taken from `arena`.
  PrefillHead(const Call& head, const ChunkPlan& plan, State& state, Index sequence, Index kv_head,
              const HeadOutputs<T>& head_outputs, Arena& arena) noexcept
      : call(head, plan, state.max_rollback()),
        outputs(head_outputs),
        memory_(StateAccess::head(state, sequence, kv_head)),
        slots_(memory_.slots, arena),
        state_(state),
        sequence_(sequence),
        head_(kv_head) {}

  /// The slots to compute with: those of the state, or a wide copy.
  const SlotMemoryView<Acc>& slots() const noexcept { return slots_.view(); }

  /// Runs all chunks on this thread. `scratch` has ChunkScratch::bytes() bytes.
  void run(std::byte* scratch) const noexcept {
    if (call.tokens() == 0) return;
    Arena arena(scratch);
    const auto s = ChunkScratch<Acc>::take(arena, call.plan);
    const SlotPass<Arch, Call> pass(call, s.update, s.retention, s.write);
    ChunkReader<Arch, Call> reader(call, outputs, s.read);
    for (Chunk chunk = call.chunk_at(call.begin); chunk.count > 0;) {
      reader.load_band(chunk);
      const bool written = call.slots_are_written(chunk);
      const auto gates = written ? pass.gates(chunk) : cpu::EnteringGates<Acc>{};
      const Chunk next = chunk.end() < call.end ? call.chunk_at(chunk.end()) : Chunk{};
      reader.read(chunk, gates, slots(), next);
      if (written)
        pass.through(chunk, gates, reader.entering_values(chunk), slots(), slots(),
                     reader.next_rows());
      leave_slots(chunk.end(), slots());
      chunk = next;
    }
    remember_newest(s.retention, s.write);
  }

  /// Leaves the slots as of `position` in the state: at the end of the call, and where a rollback
  /// will need a copy.
  NHA_NOINLINE void leave_slots(std::int64_t position,
                                const SlotMemoryView<Acc>& as_of_position) const noexcept {
    if (position != call.end && !snapshot_is_due(position, call.max_rollback)) return;
    slots_.store(as_of_position, call.entering(position - 1));
    StateAccess::keep_snapshot(state_, sequence_, head_, position);
  }

  /// Leaves in the state the newest tokens that later ones will need, when all has been read.
  /// `retention` and `write` are scratch [plan.slots].
  NHA_NOINLINE void remember_newest(Acc* retention, Acc* write) const noexcept {
    const auto& [slots, window, pending] = memory_;
    for (std::int64_t p = std::max(call.begin, call.end - window.capacity); p < call.end; ++p)
      window.push(p, call.window > 0 ? call.window_key(p) : nullptr, call.value(p));
    if (slots.count == 0) return;
    for (std::int64_t p = std::max(call.begin, call.end - pending.capacity); p < call.end; ++p) {
      call.template gates_of<Arch>(p, retention, write);
      pending.push(p, call.slot_key(p), retention, write);
    }
  }

  const ChunkedCall<Call> call;
  const HeadOutputs<T> outputs;

 private:
  HeadState<T, SlotScalar> memory_;
  WorkingSlots<Arch, SlotScalar> slots_;
  State& state_;
  Index sequence_;
  Index head_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
