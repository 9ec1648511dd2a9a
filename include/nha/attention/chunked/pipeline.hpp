// SPDX-License-Identifier: MIT
// ChunkPipeline: one head's chunks worked on by several threads, for long sequences of few heads.
//
// Chunks can be read in any order once the slots as of their starts are known. Finding those, one
// chunk after the other, is the smaller part of the work. So a thread takes a piece of some chunks
// and moves the slots through it, keeping a copy as of each start. It leaves them to the thread
// that takes the next piece and reads its own. The chunks are those of PrefillHead::run(), and so
// are the results, to the bit.
#pragma once

#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/prefill_head.hpp>
#include <nha/attention/chunked/read.hpp>
#include <nha/attention/chunked/slot_pass.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <thread>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

// The most chunks of a piece.
inline constexpr Index kLargestPiece = 8;

/// Whether `tokens` tokens of one head are worth sharing among `workers` threads.
inline bool enough_to_share(Index tokens, Index workers) noexcept {
  return workers > 1 && tokens >= 64 * workers;
}

/// A head's chunks, worked on by any number of threads.
template <class Arch, class T, class SlotScalar>
class ChunkPipeline {
  using Acc = accumulate_t<T>;
  using Call = HeadCall<T, SlotScalar>;
  using Head = PrefillHead<Arch, T, SlotScalar>;

 public:
  /// @param workers how many threads will call work()
  ChunkPipeline(const Head& head, Index workers) noexcept
      : head_(head), call_(head_.call), next_(call_.begin) {
    Index chunks = 0;
    for (std::int64_t at = call_.begin; at < call_.end; at = call_.chunk_at(at).end()) ++chunks;
    // Small enough to be shared evenly, large enough that what a thread loads of the window before
    // its piece is little.
    piece_ = std::clamp<Index>(chunks / (16 * workers), 1, kLargestPiece);
    unread_.store((chunks + piece_ - 1) / piece_, std::memory_order_relaxed);
  }
  ChunkPipeline(const ChunkPipeline&) = delete;
  ChunkPipeline& operator=(const ChunkPipeline&) = delete;

  /// Bytes of scratch memory of a thread.
  static std::size_t scratch_bytes(const ChunkPlan& plan, const AttentionShape& shape) noexcept {
    Arena arena(nullptr);
    Scratch::take(arena, plan, shape.value_dim, shape.slots);
    return arena.used();
  }

  /// Works until nothing is left to take. Once every thread has returned the call is done.
  /// `scratch` has scratch_bytes() bytes and is this thread's.
  void work(std::byte* scratch) noexcept {
    Arena arena(scratch);
    const Scratch s = Scratch::take(arena, call_.plan, call_.value_dim(), call_.slots());
    ChunkReader<Arch, Call> reader(call_, head_.outputs, s.of_chunk.read);
    Entry entries[kLargestPiece];
    for (;;) {
      while (taking_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
      const Index count = take_piece(s, entries);
      taking_.store(false, std::memory_order_release);
      if (count == 0) return;
      for (Index i = 0; i < count; ++i) {
        reader.load_band(entries[i].chunk);
        reader.read(entries[i].chunk, entries[i].gates, entries[i].slots,
                    i + 1 < count ? entries[i + 1].chunk : Chunk{});
      }
      if (unread_.fetch_sub(1, std::memory_order_acq_rel) == 1)
        head_.remember_newest(s.of_chunk.retention, s.of_chunk.write);
    }
  }

 private:
  /// What reading a chunk needs beside the inputs.
  struct Entry {
    Chunk chunk;
    cpu::EnteringGates<Acc> gates = {};
    SlotMemoryView<Acc> slots;  // as of the chunk's start
  };

  struct Scratch {
    ChunkScratch<Acc> of_chunk;
    Acc* retention;  // [piece, chunk, slots]
    Acc* write;      // [piece, chunk, slots]
    SlotMemoryView<Acc> slots[kLargestPiece];

    static Scratch take(Arena& arena, const ChunkPlan& plan, Index value_dim, Index slot_count) {
      Scratch s;
      s.of_chunk = ChunkScratch<Acc>::take(arena, plan);
      s.retention = arena.take<Acc>(kLargestPiece * plan.chunk * plan.slots);
      s.write = arena.take<Acc>(kLargestPiece * plan.chunk * plan.slots);
      for (auto& slots : s.slots) slots = slots.take(arena, plan.key_dim, value_dim, slot_count);
      return s;
    }
  };

  /// Takes the next chunks, at most a piece, and moves the call's slots past them; returns how
  /// many. One thread at a time.
  Index take_piece(const Scratch& s, Entry* entries) noexcept {
    const SlotMemoryView<Acc>& newest = head_.slots();
    Index count = 0;
    for (; count < piece_ && next_ < call_.end; ++count) {
      Entry& entry = entries[count];
      entry.chunk = call_.chunk_at(next_);
      next_ = entry.chunk.end();
      const bool last = count + 1 == piece_ || next_ == call_.end;
      if (call_.slots_are_written(entry.chunk)) {
        const Index at = count * call_.plan.chunk * call_.plan.slots;
        const SlotPass<Arch, Call> pass(call_, s.of_chunk.update, s.retention + at, s.write + at);
        entry.gates = pass.gates(entry.chunk);
        // The first to be written in a piece start from the call's; the last go back there.
        entry.slots = s.slots[count];
        if (count == 0 || !call_.slots_are_written(entries[count - 1].chunk))
          entry.slots.copy_from(newest);
        const SlotMemoryView<Acc>& after = last ? newest : s.slots[count + 1];
        pass.through(entry.chunk, entry.gates, entry.slots, after);
        head_.leave_slots(next_, after);
      } else {
        // Read for queries that are not finite alone. By then others may have moved the call's.
        entry.slots = s.slots[count];
        if (call_.rule.slots_take_part(false)) entry.slots.copy_from(newest);
        head_.leave_slots(next_, newest);
      }
    }
    return count;
  }

  const Head head_;
  const ChunkedCall<Call>& call_;  // the head's
  Index piece_;                    // chunks
  alignas(kAlignment) std::atomic<bool> taking_{false};
  std::int64_t next_;  // position of the first token that no thread has taken
  alignas(kAlignment) std::atomic<Index> unread_;  // pieces
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
