// SPDX-License-Identifier: MIT
// ChunkPipeline: one head's chunks worked on by several threads, for long sequences of few heads.
//
// Chunks can be read in any order once the slots as of their starts are known, and finding those,
// one chunk after the other, is the smaller part of the work. So a thread takes a piece of some
// chunks, moves the slots through it, keeping a copy as of each start, and leaves them to the
// thread that takes the next piece while it reads its own. The chunks, and so the results to the
// bit, are those of run_chunks().
#pragma once

#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/read.hpp>
#include <nha/attention/chunked/update.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state.hpp>

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

/// A call's chunks of one sequence in one key/value head, worked on by any number of threads.
template <class Arch, class Call>
class ChunkPipeline {
 public:
  using State = typename Call::State;
  using Outputs = typename Call::Outputs;

  /// @param state the call's
  /// @param workers how many threads will call work()
  ChunkPipeline(const Call& call, State& state, const Outputs& outputs, Index workers) noexcept
      : call_(call), state_(state), out_(outputs), next_(call.start) {
    call_.template widen<Arch>();
    Index chunks = 0;
    for (std::int64_t at = call.start; at < call.end; at = call.chunk_at(at).end()) ++chunks;
    // Small enough to be shared evenly, large enough that what a thread loads of the window before
    // its piece is little.
    piece_ = std::clamp<Index>(chunks / (16 * workers), 1, kLargestPiece);
    unread_.store((chunks + piece_ - 1) / piece_, std::memory_order_relaxed);
  }
  ChunkPipeline(const ChunkPipeline&) = delete;
  ChunkPipeline& operator=(const ChunkPipeline&) = delete;

  /// Bytes of scratch memory of a thread.
  static std::size_t scratch_bytes(const ChunkPlan& plan, const AttentionShape& shape) noexcept {
    Arena cursor(nullptr);
    Scratch::take(cursor, plan, shape);
    return cursor.used();
  }

  /// Works until nothing is left to take. Once every thread has returned the call is done.
  /// `scratch` has scratch_bytes() bytes and is this thread's.
  void work(std::byte* scratch) noexcept {
    Arena cursor(scratch);
    const Scratch s = Scratch::take(cursor, call_.plan, call_.state.shape());
    const ChunkUpdate<Arch, Call> update(call_, s.of_chunk.update);
    ChunkReader<Arch, Call> reader(call_, out_, s.of_chunk.read);
    Entry entries[kLargestPiece];
    for (;;) {
      while (taking_.exchange(true, std::memory_order_acquire)) std::this_thread::yield();
      const Index count = take_piece(s, update, entries);
      taking_.store(false, std::memory_order_release);
      if (count == 0) return;
      for (Index i = 0; i < count; ++i) {
        reader.load_band(entries[i].chunk);
        reader.read(entries[i].chunk, entries[i].gates, entries[i].slots,
                    i + 1 < count ? entries[i + 1].chunk : Chunk{});
      }
      if (unread_.fetch_sub(1, std::memory_order_acq_rel) == 1)
        call_.template remember_newest<Arch>(s.of_chunk.retention, s.of_chunk.write);
    }
  }

 private:
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;

  /// What reading a chunk needs beside the inputs.
  struct Entry {
    Chunk chunk;
    cpu::EnteringGates<Acc> gates = {};
    SlotView slots;  // as of the chunk's start
  };

  struct Scratch {
    ChunkScratch<Acc> of_chunk;
    Acc* retention;  // [piece, chunk, slots]
    Acc* write;      // [piece, chunk, slots]
    SlotView slots[kLargestPiece];

    static Scratch take(Arena& cursor, const ChunkPlan& plan, const AttentionShape& shape) {
      Scratch s;
      s.of_chunk = ChunkScratch<Acc>::take(cursor, plan);
      s.retention = cursor.take<Acc>(kLargestPiece * plan.chunk * plan.slots);
      s.write = cursor.take<Acc>(kLargestPiece * plan.chunk * plan.slots);
      for (SlotView& slots : s.slots)
        slots = SlotView::take(cursor, shape.key_dim, shape.value_dim, shape.slots);
      return s;
    }
  };

  /// Takes the next chunks, at most a piece, and moves the call's slots past them; returns how
  /// many. One thread at a time.
  template <class Update>
  Index take_piece(const Scratch& s, const Update& update, Entry* entries) noexcept {
    const SlotView& newest = call_.slots;
    Index count = 0;
    for (; count < piece_ && next_ < call_.end; ++count) {
      Entry& entry = entries[count];
      entry.chunk = call_.chunk_at(next_);
      next_ = entry.chunk.end();
      const bool last = count + 1 == piece_ || next_ == call_.end;
      if (call_.slots_are_written(entry.chunk)) {
        const Index at = count * call_.plan.chunk * call_.plan.slots;
        entry.gates =
            call_.template entering_gates<Arch>(entry.chunk, s.retention + at, s.write + at);
        // The first to be written in a piece start from the call's; the last go back there.
        if (count == 0 || !call_.slots_are_written(entries[count - 1].chunk))
          s.slots[count].copy_from(newest);
        entry.slots = s.slots[count];
        const SlotView& after = last ? newest : s.slots[count + 1];
        update.run(entry.chunk, entry.gates, update.pack_values(entry.chunk), entry.slots, after,
                   update.rows_after(entry.chunk));
        call_.template leave_slots<Arch>(state_, next_, after);
      } else {
        entry.slots = newest;  // not read
        call_.template leave_slots<Arch>(state_, next_, newest);
      }
    }
    return count;
  }

  const Call call_;
  State& state_;
  const Outputs& out_;
  Index piece_;  // chunks
  alignas(kAlignment) std::atomic<bool> taking_{false};
  std::int64_t next_;  // position of the first token that no thread has taken
  alignas(kAlignment) std::atomic<Index> unread_;  // pieces
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
