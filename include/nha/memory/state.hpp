// SPDX-License-Identifier: MIT
// AttentionState: everything an attention layer remembers of a batch of sequences, as one value.
//
// Saving and loading it is in memory/state_bytes.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/subnormals.hpp>
#include <nha/memory/pending_tokens.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <limits>
#include <memory_resource>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

/// The memories of one key/value head of one sequence, as kernels see them. Owns nothing.
template <class T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
struct HeadState {
  SlotMemoryView<accumulate_t<T>, KeyDim, ValueDim, Slots> slots;
  SlidingWindowView<T, KeyDim, ValueDim> window;
  PendingTokensView<T, KeyDim, Slots> pending;
};

/// Slots and window of every sequence and key/value head of a layer.
///
/// A value: it copies, moves and compares. All memory is one block whose size is known when it is
/// made; nothing allocates after that, except that assigning a state of another size does. Window
/// and slot delay are run-time options, so layers that differ in them share one type. T is the type
/// of the layer's tensors and of the stored window; slots are accumulate_t<T>. Sequences are
/// independent of each other and may have seen unlike numbers of tokens; positions are 64-bit and
/// nothing in the state depends on how large they are.
///
/// One thread at a time may use a state; const access may be shared.
template <Scalar T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic>
class AttentionState {
 public:
  using Acc = accumulate_t<T>;
  using Head = HeadState<T, KeyDim, ValueDim, Slots>;

  /// @param max_rollback how many tokens rollback() can take back; each costs two more tokens of
  ///   window and pending rows, and any at all two more copies of the slots.
  /// @throws ArgumentError if a size or option is out of range, or differs from a static extent.
  explicit AttentionState(const AttentionShape& shape, const AttentionOptions& options = {},
                          Index max_rollback = 0,
                          std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : shape_(shape), options_(options), max_rollback_(max_rollback) {
    validate(shape);
    validate(options, shape.kv_heads);
    check_static("key_dim", shape.key_dim, KeyDim);
    check_static("value_dim", shape.value_dim, ValueDim);
    check_static("slots", shape.slots, Slots);
    check_argument(max_rollback >= 0 && max_rollback <= kLargest, "max_rollback is ", max_rollback,
                   "; expected 0 to ", kLargest);
    head_offsets_.reserve(static_cast<std::size_t>(shape.kv_heads));
    SectionCursor cursor(nullptr);
    cursor.take<Sequence>(1);
    double total = 0;  // in floating point first: a product of absurd sizes must not wrap around
    for (Index head = 0; head < shape.kv_heads; ++head) {
      total += head_numbers(head);
      check_argument(total * static_cast<double>(shape.batch) < 1e15,
                     "the state of this shape and window does not fit in memory");
      head_offsets_.push_back(cursor.used());
      take_sections(cursor, head);
    }
    sequence_bytes_ = cursor.used();
    arena_ = Buffer(sequence_bytes_ * static_cast<std::size_t>(shape.batch), memory);
  }

  const AttentionShape& shape() const noexcept { return shape_; }
  const AttentionOptions& options() const noexcept { return options_; }
  Index max_rollback() const noexcept { return max_rollback_; }

  /// Bytes of the one block of memory; the same for every number of tokens.
  std::size_t bytes() const noexcept { return arena_.size(); }

  /// @throws ArgumentError if there is no such sequence.
  void check_sequence(Index sequence) const {
    check_argument(sequence >= 0 && sequence < shape_.batch, "sequence is ", sequence,
                   "; expected 0 to ", shape_.batch - 1);
  }
  /// Tokens sequence `sequence` has been given.
  std::int64_t tokens_seen(Index sequence) const {
    check_sequence(sequence);
    return header(sequence).tokens_seen;
  }
  /// Tokens seen that have not entered the slots of a head: the newest slot_delay of them.
  Index tokens_pending(Index sequence, Index head = 0) const {
    check_sequence(sequence);
    check_head(head);
    return static_cast<Index>(std::min<std::int64_t>(header(sequence).tokens_seen,
                                                     head_options(options_, head).slot_delay));
  }
  /// Whether the sequence began from given slots (set_initial_slots) rather than from empty ones.
  bool has_initial_slots(Index sequence) const {
    check_sequence(sequence);
    return header(sequence).has_initial_slots != 0;
  }

  /// Slot keys [M, Dk], values [M, Dv] and mass [M] of one head. Mass is the decayed sum of the
  /// write strengths, or ones at first where initial slots were given without it.
  TensorView<const Acc, Dynamic, Dynamic> slot_k(Index sequence, Index head) const {
    return checked_head(sequence, head).slots.keys();
  }
  TensorView<const Acc, Dynamic, Dynamic> slot_v(Index sequence, Index head) const {
    return checked_head(sequence, head).slots.values();
  }
  TensorView<const Acc, Dynamic> slot_mass(Index sequence, Index head) const {
    return checked_head(sequence, head).slots.masses();
  }

  /// Forgets everything: as newly made.
  void reset() noexcept {
    if (arena_.size() != 0) std::memset(arena_.data(), 0, arena_.size());
  }
  /// Forgets one sequence.
  /// @throws ArgumentError if there is no such sequence.
  void reset(Index sequence) {
    check_sequence(sequence);
    std::memset(block(sequence), 0, sequence_bytes_);
  }

  /// Copies one sequence to a place of another state, or of this one: a conversation continued
  /// twice, a beam, a shared prompt. The states may differ in batch only.
  /// @throws ArgumentError if a sequence does not exist or the states do not match.
  void fork(Index from, AttentionState& target, Index to) const {
    check_sequence(from);
    target.check_sequence(to);
    check_argument(same_layer(target),
                   "target of fork has another shape, other options or another max_rollback");
    std::memmove(target.block(to), block(from), sequence_bytes_);
  }

  /// Takes back the newest `tokens` tokens of a sequence: the state is what it was before them, so
  /// what follows is as if they had never been. Costs at most max_rollback slot updates a head.
  /// Tokens given one at a time are taken back to the bit; of those given in a chunk, the slots
  /// differ by rounding from a state that ended where the rollback ends.
  /// @throws ArgumentError if the sequence has not that many tokens, or they lie further back than
  ///   max_rollback from the furthest position it has reached.
  void rollback(Index sequence, Index tokens) {
    check_sequence(sequence);
    Sequence& h = header(sequence);
    check_argument(tokens >= 0 && tokens <= h.tokens_seen, "tokens to roll back is ", tokens,
                   "; expected 0 to the ", h.tokens_seen, " seen");
    const std::int64_t target = h.tokens_seen - tokens;
    check_argument(tokens == 0 || target >= h.oldest_reachable, "tokens to roll back is ", tokens,
                   "; the state keeps ", max_rollback_, " and can now go back ",
                   h.tokens_seen - h.oldest_reachable);
    if (tokens == 0) return;
    const FlushSubnormals flush;  // as when the tokens first entered
    const std::int64_t start = std::max(target - target % max_rollback_, h.history_begin);
    for (Index i = 0; i < shape_.kv_heads; ++i) {
      const Head memories = head(sequence, i);
      const Index delay = head_options(options_, i).slot_delay;
      memories.slots.copy_from(snapshot(sequence, i, start));
      if (shape_.slots == 0) continue;
      for (std::int64_t j = std::max<std::int64_t>(start - delay, 0); j < target - delay; ++j)
        memories.slots.enter(memories.pending.retention_row(j), memories.pending.write_row(j),
                             memories.pending.key_row(j), memories.window.value_row(j));
    }
    h.tokens_seen = target;
  }

  /// Starts every sequence anew from given slots, as if earlier tokens had left them: slot_k
  /// [B, Hkv, M, Dk], slot_v [B, Hkv, M, Dv] and mass [B, Hkv, M], ones where left out.
  /// @throws ArgumentError if a shape does not fit or a mass is negative or not finite; the state
  ///   is then as it was.
  void set_initial_slots(TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_k,
                         TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_v,
                         TensorView<const Acc, Dynamic, Dynamic, Dynamic> mass = {}) {
    const bool with_mass = mass.data() != nullptr;
    check_initial("slot_k", slot_k.extents(), slot_k.data(), shape_.key_dim);
    check_initial("slot_v", slot_v.extents(), slot_v.data(), shape_.value_dim);
    if (with_mass) {
      check_argument(mass.extent(0) == shape_.batch && mass.extent(1) == shape_.kv_heads &&
                         mass.extent(2) == shape_.slots,
                     "mass is [", mass.extent(0), ", ", mass.extent(1), ", ", mass.extent(2),
                     "]; expected [", shape_.batch, ", ", shape_.kv_heads, ", ", shape_.slots, "]");
      for_each_slot([&](Index n, Index h, Index m) {
        check_argument(mass(n, h, m) >= 0 && mass(n, h, m) <= std::numeric_limits<Acc>::max(),
                       "mass of sequence ", n, ", head ", h, ", slot ", m, " is ", mass(n, h, m),
                       "; expected a finite number, 0 or more");
      });
    }
    reset();
    for_each_slot([&](Index n, Index h, Index m) {
      const auto slots = head(n, h).slots;
      for (Index d = 0; d < shape_.key_dim; ++d) slots.key_at(m, d) = slot_k(n, h, m, d);
      for (Index d = 0; d < shape_.value_dim; ++d) slots.value_at(m, d) = slot_v(n, h, m, d);
      slots.mass[m] = with_mass ? mass(n, h, m) : Acc{1};
    });
    for (Index n = 0; n < shape_.batch; ++n) begin_history(n, 0, true);
  }

  /// Whether two states would treat every future token alike: same layer, same memories to the bit.
  /// How far back they can go is not compared.
  friend bool operator==(const AttentionState& a, const AttentionState& b) {
    if (!(a.shape_ == b.shape_ && a.options_ == b.options_)) return false;
    for (Index n = 0; n < a.shape_.batch; ++n)
      if (!a.same_sequence(n, b, n)) return false;
    return true;
  }

  // What follows is for kernels and for state_bytes.hpp: no checks, no exceptions.

  /// The memories of a head; those of a const state are to be read only.
  Head head(Index sequence, Index head) const noexcept { return take(sequence, head).state; }
  /// Says what a sequence is whose memories have been filled from elsewhere, after reset(): its
  /// tokens and whether it began from given slots. It can be rolled back to here and no further.
  void begin_history(Index sequence, std::int64_t tokens_seen, bool has_initial_slots) noexcept {
    header(sequence) = {tokens_seen, tokens_seen, tokens_seen, has_initial_slots ? 1 : 0};
    if (max_rollback_ > 0)
      for (Index h = 0; h < shape_.kv_heads; ++h)
        snapshot(sequence, h, tokens_seen).copy_from(head(sequence, h).slots);
  }
  /// Moves a sequence on, after kernels have put `tokens` tokens into the memories of all heads.
  void advance(Index sequence, std::int64_t tokens) noexcept {
    Sequence& h = header(sequence);
    h.tokens_seen += tokens;
    h.oldest_reachable = std::max(h.oldest_reachable, h.tokens_seen - max_rollback_);
  }
  /// Kernels call this when the slots of a head are as of `position` tokens seen; it keeps a copy
  /// where rollback() will need one.
  void keep_snapshot(Index sequence, Index head_index, std::int64_t position) noexcept {
    if (max_rollback_ > 0 && position % max_rollback_ == 0)
      snapshot(sequence, head_index, position).copy_from(head(sequence, head_index).slots);
  }
  /// The next position after `position` at which a snapshot is due on the way to `end`; `end` if
  /// there is none. Only the last two before the end are ever needed.
  std::int64_t next_snapshot(std::int64_t position, std::int64_t end) const noexcept {
    if (max_rollback_ == 0) return end;
    const std::int64_t first_needed = (end / max_rollback_ - 1) * max_rollback_;
    const std::int64_t next = (position / max_rollback_ + 1) * max_rollback_;
    return std::min(std::max(next, first_needed), end);
  }

 private:
  static constexpr Index kLargest = Index{1} << 24;

  /// What a sequence has besides the memories of its heads.
  struct Sequence {
    std::int64_t tokens_seen;
    std::int64_t oldest_reachable;  // position up to which rollback() can go back
    std::int64_t history_begin;     // position of the first snapshot
    std::int64_t has_initial_slots;
  };
  using SlotView = SlotMemoryView<Acc, KeyDim, ValueDim, Slots>;
  struct Sections {
    Head state;
    SlotView snapshots[2];
  };

  // Tokens that must be found again: a rollback restores the slots of up to 2 max_rollback - 1
  // tokens ago and replays what entered them since.
  Index pending_capacity(Index head) const noexcept {
    return shape_.slots == 0 ? 0 : head_options(options_, head).slot_delay + 2 * max_rollback_;
  }
  Index window_capacity(Index head) const noexcept {
    return std::max(head_options(options_, head).window + max_rollback_, pending_capacity(head));
  }
  double head_numbers(Index head) const noexcept {
    const auto real = [](Index count) { return static_cast<double>(padded(count)); };
    const auto capacity = static_cast<double>(head_options(options_, head).window) +
                          2 * static_cast<double>(max_rollback_);
    return (capacity + 3 * real(shape_.slots)) *
           (2 * real(shape_.key_dim) + real(shape_.value_dim) + 2 * real(shape_.slots));
  }

  Sections take_sections(SectionCursor& cursor, Index head) const noexcept {
    Sections sections;
    const AttentionShape& s = shape_;
    sections.state.slots = SlotView::take(cursor, s.key_dim, s.value_dim, s.slots);
    sections.state.window = decltype(sections.state.window)::take(cursor, window_capacity(head),
                                                                  s.key_dim, s.value_dim);
    sections.state.pending =
        decltype(sections.state.pending)::take(cursor, pending_capacity(head), s.key_dim, s.slots);
    if (max_rollback_ > 0)
      for (SlotView& copy : sections.snapshots)
        copy = SlotView::take(cursor, s.key_dim, s.value_dim, s.slots);
    return sections;
  }
  Sections take(Index sequence, Index head) const noexcept {
    // A view of memory this state owns; constness is restored by the public accessors.
    SectionCursor cursor(const_cast<std::byte*>(block(sequence)) +
                         head_offsets_[static_cast<std::size_t>(head)]);
    return take_sections(cursor, head);
  }
  /// The copy of the slots as of `position`, a multiple of max_rollback, or history_begin where
  /// that lies after the multiple.
  SlotView snapshot(Index sequence, Index head, std::int64_t position) const noexcept {
    return take(sequence, head).snapshots[(position / max_rollback_) % 2];
  }

  std::byte* block(Index sequence) noexcept {
    return arena_.data() + sequence_bytes_ * static_cast<std::size_t>(sequence);
  }
  const std::byte* block(Index sequence) const noexcept {
    return arena_.data() + sequence_bytes_ * static_cast<std::size_t>(sequence);
  }
  Sequence& header(Index sequence) noexcept {
    return *reinterpret_cast<Sequence*>(block(sequence));
  }
  const Sequence& header(Index sequence) const noexcept {
    return *reinterpret_cast<const Sequence*>(block(sequence));
  }
  Head checked_head(Index sequence, Index head) const {
    check_sequence(sequence);
    check_head(head);
    return take(sequence, head).state;
  }

  bool same_layer(const AttentionState& other) const {
    AttentionShape shape = other.shape_;
    shape.batch = shape_.batch;
    return shape_ == shape && options_ == other.options_ && max_rollback_ == other.max_rollback_;
  }
  bool same_sequence(Index n, const AttentionState& other, Index other_n) const {
    const std::int64_t seen = header(n).tokens_seen;
    if (seen != other.header(other_n).tokens_seen ||
        header(n).has_initial_slots != other.header(other_n).has_initial_slots)
      return false;
    const auto same = [](const auto* a, const auto* b, Index count) {
      return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof *a) == 0;
    };
    for (Index h = 0; h < shape_.kv_heads; ++h) {
      const Head a = take(n, h).state;
      const Head b = other.take(other_n, h).state;
      const HeadOptions o = head_options(options_, h);
      if (!same(a.slots.key, b.slots.key, shape_.key_dim * a.slots.key_stride()) ||
          !same(a.slots.value, b.slots.value, shape_.slots * a.slots.value_stride()) ||
          !same(a.slots.mass, b.slots.mass, a.slots.key_stride()))
        return false;
      for (std::int64_t t = std::max<std::int64_t>(0, seen - o.window); t < seen; ++t)
        if (!same(a.window.key_row(t), b.window.key_row(t), shape_.key_dim) ||
            !same(a.window.value_row(t), b.window.value_row(t), shape_.value_dim))
          return false;
      for (std::int64_t t = std::max<std::int64_t>(0, seen - o.slot_delay);
           t < seen && shape_.slots > 0; ++t)
        if (!same(a.pending.key_row(t), b.pending.key_row(t), shape_.key_dim) ||
            !same(a.pending.retention_row(t), b.pending.retention_row(t), shape_.slots) ||
            !same(a.pending.write_row(t), b.pending.write_row(t), shape_.slots))
          return false;
    }
    return true;
  }

  template <class F>
  void for_each_slot(F&& visit) const {
    for (Index n = 0; n < shape_.batch; ++n)
      for (Index h = 0; h < shape_.kv_heads; ++h)
        for (Index m = 0; m < shape_.slots; ++m) visit(n, h, m);
  }

  static void check_static(const char* name, Index size, Index static_size) {
    check_argument(static_size == Dynamic || static_size == size, name, " is ", size,
                   "; the state's type says ", static_size);
  }
  void check_head(Index head) const {
    check_argument(head >= 0 && head < shape_.kv_heads, "head is ", head, "; expected 0 to ",
                   shape_.kv_heads - 1);
  }
  template <class Sizes>
  void check_initial(const char* name, const Sizes& sizes, const void* data, Index dim) const {
    check_argument(sizes[0] == shape_.batch && sizes[1] == shape_.kv_heads &&
                       sizes[2] == shape_.slots && sizes[3] == dim,
                   "initial ", name, " is [", sizes[0], ", ", sizes[1], ", ", sizes[2], ", ",
                   sizes[3], "]; expected [", shape_.batch, ", ", shape_.kv_heads, ", ",
                   shape_.slots, ", ", dim, "]");
    check_argument(data != nullptr || shape_.batch * shape_.slots == 0, "initial ", name,
                   " has no data");
  }

  AttentionShape shape_;
  AttentionOptions options_;
  Index max_rollback_;
  std::vector<std::size_t> head_offsets_;  // where each head begins in a sequence's block
  std::size_t sequence_bytes_ = 0;
  Buffer arena_;
};

NHA_ISA_NAMESPACE_END
