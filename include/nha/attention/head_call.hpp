// SPDX-License-Identifier: MIT
// ChunkCall: one call's tokens of one sequence in one key/value head, cut into chunks, as the parts
// of the chunked algorithm see them.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/wide_slots.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/memory/state.hpp>

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

/// Where the tokens of a call lie for one sequence and key/value head, and what the options say of
/// them. Positions count from the sequence's first token ever; those before `start` came with
/// earlier calls and are found in the state.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar = accumulate_t<T>>
struct ChunkCall {
  using Scalar = T;
  using Acc = accumulate_t<T>;
  using Inputs = AttentionInputs<T, KeyDim, ValueDim, Slots>;
  using Outputs = AttentionOutputs<T, ValueDim>;
  using Cotangents = AttentionCotangents<T, ValueDim>;
  using Gradients = AttentionGradients<T, KeyDim, ValueDim, Slots>;
  using Saved = AttentionSaved<T, ValueDim>;
  using State = AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>;
  using SlotView = SlotMemoryView<Acc, KeyDim, ValueDim, Slots>;

  /// The tokens begin where `state_before` ends. Memory for a wide copy of slots that are stored in
  /// a half type is taken from `cursor`; widen() fills it.
  ChunkCall(const Inputs& inputs, const State& state_before, const ChunkPlan& chunk_plan,
            Index sequence_index, Index head_index, Arena& cursor) noexcept
      : in(inputs),
        state(state_before),
        memory(StateAccess::head(state, sequence_index, head_index)),
        slots(wide_slots(memory.slots, cursor)),
        plan(chunk_plan),
        sequence(sequence_index),
        head(head_index),
        span(sequence_span(inputs, sequence)),
        start(state.tokens_seen(sequence)),
        end(start + span.count),
        initial_slots(state.has_initial_slots(sequence)),
        empty_slots(state.options().empty_slots),
        scale(static_cast<Acc>(softmax_scale(state.options(), plan.key_dim))) {}

  /// The chunk that begins at `position`: as many tokens as the plan says, fewer before the end and
  /// where a rollback will need a copy of the slots.
  Chunk chunk_at(std::int64_t position) const noexcept {
    const std::int64_t stop = StateAccess::next_snapshot(state, position, end);
    return {position, static_cast<Index>(std::min<std::int64_t>(plan.chunk, stop - position))};
  }
  bool has_slots() const noexcept { return plan.slots > 0; }
  /// Whether something is in the slots by the end of the chunk. Until the first token has entered
  /// them, with a window as long as the text always, their products are left out.
  bool slots_are_written(const Chunk& chunk) const noexcept {
    return has_slots() && (initial_slots || chunk.end() > plan.slot_delay);
  }
  /// Of the tokens that enter the slots during a chunk, one for each of its own, the first that is
  /// not before the sequence's beginning.
  Index first_entering(const Chunk& chunk) const noexcept {
    return static_cast<Index>(
        std::clamp<std::int64_t>(plan.slot_delay - chunk.position, 0, chunk.count));
  }
  /// Position of the i-th token that enters during a chunk.
  std::int64_t entering(const Chunk& chunk, Index i) const noexcept {
    return chunk.position - plan.slot_delay + i;
  }

  /// Index in the inputs of a position of this call.
  Index token_of(std::int64_t position) const noexcept {
    return span.first + static_cast<Index>(position - start);
  }
  const T* input_row(const auto& view, std::int64_t position) const noexcept {
    return &view(span.row, token_of(position), head, 0);
  }
  const T* window_key(std::int64_t position) const noexcept {
    return position >= start ? input_row(in.k_window, position) : memory.window.key_row(position);
  }
  const T* value(std::int64_t position) const noexcept {
    return position >= start ? input_row(in.v, position) : memory.window.value_row(position);
  }
  const T* slot_key(std::int64_t position) const noexcept {
    return position >= start ? input_row(in.k_slot, position) : memory.pending.key_row(position);
  }
  /// Retention and write strengths of a position of this call.
  template <class Arch>
  void input_gates(std::int64_t position, Acc* retention, Acc* write) const noexcept {
    const Acc* given =
        in.write.data() != nullptr ? &in.write(span.row, token_of(position), head, 0) : nullptr;
    cpu::pack_gates<Arch>(&in.log_gate(span.row, token_of(position), head, 0), given,
                          memory.slots.slots, retention, write);
  }
  /// Retention and write strengths of the tokens that enter during a chunk, into rows
  /// [chunk, slots].
  template <class Arch>
  cpu::EnteringGates<Acc> entering_gates(const Chunk& chunk, Acc* retention,
                                         Acc* write) const noexcept {
    const cpu::EnteringGates<Acc> gates{retention, write, plan.slots, first_entering(chunk),
                                        chunk.count};
    for (Index i = gates.first; i < chunk.count; ++i) {
      const std::int64_t position = entering(chunk, i);
      Acc* keep = retention + i * plan.slots;
      Acc* add = write + i * plan.slots;
      if (position >= start) {
        input_gates<Arch>(position, keep, add);
      } else {
        std::copy_n(memory.pending.retention_row(position), plan.slots, keep);
        std::copy_n(memory.pending.write_row(position), plan.slots, add);
      }
    }
    return gates;
  }

  template <class Arch>
  void widen() const noexcept {
    widen_slots<Arch>(memory.slots, slots);
  }
  /// Leaves the slots as of `position` in the state, which is the call's, at the end of the call
  /// and where a rollback will need a copy.
  template <class Arch>
  void leave_slots(State& state_of_call, std::int64_t position,
                   const SlotView& as_of_position) const noexcept {
    if (position != end && !StateAccess::snapshot_is_due(state_of_call, position)) return;
    if (as_of_position.mass != memory.slots.mass)
      std::copy_n(as_of_position.mass, memory.slots.key_stride(), memory.slots.mass);
    if constexpr (kIsHalf<SlotScalar>)
      round_slots<Arch>(as_of_position, memory.slots, position - 1 - plan.slot_delay);
    else if (as_of_position.key != memory.slots.key)
      memory.slots.copy_from(as_of_position);
    StateAccess::keep_snapshot(state_of_call, sequence, head, position);
  }

  /// Leaves in the state the newest tokens that later ones will need: when all has been read.
  /// `retention` and `write` are scratch [slots].
  template <class Arch>
  void remember_newest(Acc* retention, Acc* write) const noexcept {
    const auto& window = memory.window;
    for (std::int64_t p = std::max(start, end - window.capacity); p < end; ++p)
      window.push(p, plan.window > 0 ? input_row(in.k_window, p) : nullptr, input_row(in.v, p));
    if (!has_slots()) return;
    for (std::int64_t p = std::max(start, end - memory.pending.capacity); p < end; ++p) {
      input_gates<Arch>(p, retention, write);
      memory.pending.push(p, input_row(in.k_slot, p), retention, write);
    }
  }

  const Inputs& in;
  const State& state;
  HeadState<T, KeyDim, ValueDim, Slots, SlotScalar> memory;  // only read where the state is const
  SlotView slots;                                            // those of memory, or a wide copy
  ChunkPlan plan;
  Index sequence;
  Index head;
  SequenceSpan span;
  std::int64_t start;  // positions of the call: [start, end)
  std::int64_t end;
  bool initial_slots;
  EmptySlots empty_slots;
  Acc scale;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
