// SPDX-License-Identifier: MIT
// AttentionStateBase: what an AttentionState holds, whatever its static sizes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/options.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/memory/state_layout.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <memory_resource>
#include <type_traits>
#include <utility>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {
struct StateAccess;
}

/// What an AttentionState holds, with all sizes known at run time. Every algorithm of the operator
/// works on this. The type depends on the stored numbers alone, so states whose static sizes differ
/// share one compiled algorithm.
template <Scalar T, Scalar SlotScalar = accumulate_t<T>>
class AttentionStateBase {
  static_assert(std::is_same_v<accumulate_t<SlotScalar>, accumulate_t<T>>,
                "slots are kept in the type sums over T are kept in, or a half type of it");

 public:
  using Acc = accumulate_t<T>;
  using SlotType = SlotScalar;

  const AttentionShape& shape() const noexcept { return layout_.shape(); }
  const AttentionOptions& options() const noexcept { return layout_.options(); }
  Index max_rollback() const noexcept { return layout_.max_rollback(); }

  /// Bytes of the one block of memory; the same for every number of tokens.
  std::size_t bytes() const noexcept { return arena_.size(); }

  /// @throws ArgumentError if there is no such sequence.
  void check_sequence(Index sequence) const {
    const Index batch = shape().batch;
    check_argument(batch > 0, "sequence is ", sequence, "; the state holds no sequences");
    check_argument(sequence >= 0 && sequence < batch, "sequence is ", sequence, "; expected 0 to ",
                   batch - 1);
  }
  /// How many tokens a sequence has been given.
  /// @throws ArgumentError if there is no such sequence.
  std::int64_t tokens_seen(Index sequence) const {
    check_sequence(sequence);
    return history(sequence).tokens_seen;
  }
  /// Tokens seen that have not entered the slots of a head: the newest slot_delay of them; 0 where
  /// there are no slots.
  /// @throws ArgumentError if there is no such sequence or head.
  Index tokens_pending(Index sequence, Index head = 0) const {
    check_sequence(sequence);
    check_head(head);
    if (shape().slots == 0) return 0;
    return static_cast<Index>(std::min<std::int64_t>(history(sequence).tokens_seen,
                                                     head_options(options(), head).slot_delay));
  }
  /// Whether the sequence began from given slots (set_initial_slots) rather than from empty ones.
  /// @throws ArgumentError if there is no such sequence.
  bool has_initial_slots(Index sequence) const {
    check_sequence(sequence);
    return history(sequence).has_initial_slots != 0;
  }

  /// Slot keys [M, Dk] of one head.
  /// @throws ArgumentError if there is no such sequence or head.
  TensorView<const SlotScalar, Dynamic, Dynamic> slot_k(Index sequence, Index head) const {
    return checked_head(sequence, head).slots.keys();
  }
  /// Slot values [M, Dv] of one head.
  /// @throws ArgumentError if there is no such sequence or head.
  TensorView<const SlotScalar, Dynamic, Dynamic> slot_v(Index sequence, Index head) const {
    return checked_head(sequence, head).slots.values();
  }
  /// Mass [M] of the slots of one head: the decayed sum of their write strengths. Initial slots
  /// given without mass begin with 1.
  /// @throws ArgumentError if there is no such sequence or head.
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
    std::memset(block(sequence), 0, layout_.sequence_bytes());
  }

  /// Copies one sequence to a place of another state, or of this one: a conversation continued
  /// twice, a beam, a shared prompt. The states may differ in batch only.
  /// @throws ArgumentError if a sequence does not exist or the states do not match.
  void fork(Index from, AttentionStateBase& target, Index to) const {
    check_sequence(from);
    target.check_sequence(to);
    check_argument(layout_.same_layer(target.layout_),
                   "target of fork has another shape, other options or another max_rollback");
    std::memmove(target.block(to), block(from), layout_.sequence_bytes());
  }

  /// Takes back the newest `tokens` tokens of a sequence: the state is what it was before them.
  /// Costs at most max_rollback slot updates a head.
  ///
  /// Exact to the bit where every token after the place gone back to came in a step. So a state
  /// goes back to the end of a prefill as that prefill left it. Going back to a place inside or
  /// before a prefill gives slots that differ by rounding from a state that ended there.
  /// @throws ArgumentError if the sequence has not that many tokens, or they lie further back than
  ///   max_rollback from the furthest position it has reached.
  void rollback(Index sequence, Index tokens) {
    check_sequence(sequence);
    History& h = history(sequence);
    check_argument(tokens >= 0 && tokens <= h.tokens_seen, "tokens to roll back is ", tokens,
                   "; expected 0 to the ", h.tokens_seen, " seen");
    const std::int64_t target = h.tokens_seen - tokens;
    check_argument(tokens == 0 || target >= h.oldest_reachable, "tokens to roll back is ", tokens,
                   "; the state keeps ", max_rollback(), " and can now go back ",
                   h.tokens_seen - h.oldest_reachable);
    if (tokens == 0) return;
    const FlushSubnormals flush;  // as when the tokens first entered
    const auto start = h.newest(target, max_rollback());
    for (Index i = 0; i < shape().kv_heads; ++i) {
      const auto sections = layout_.head(block(sequence), i);
      const auto& [slots, window, pending] = sections.memories;
      const Index delay = head_options(options(), i).slot_delay;
      slots.copy_from(sections.snapshots[start.index]);
      if (shape().slots == 0) continue;
      for (std::int64_t j = std::max<std::int64_t>(start.position - delay, 0); j < target - delay;
           ++j)
        slots.enter(pending.retention_row(j), pending.write_row(j), pending.key_row(j),
                    window.value_row(j), j);
    }
    h.go_back(target);
  }

  /// Starts every sequence anew from given slots, as if earlier tokens had left them. Shapes:
  /// slot_k [B, Hkv, M, Dk], slot_v [B, Hkv, M, Dv] and mass [B, Hkv, M], ones where left out.
  /// Slots of a half type take the nearest number.
  /// @throws ArgumentError if a shape does not fit, slot_k or slot_v has no data, or a tensor lies
  ///   in this state. Also if a mass is negative or not finite. The state is then as it was.
  void set_initial_slots(TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_k,
                         TensorView<const Acc, Dynamic, Dynamic, Dynamic, Dynamic> slot_v,
                         TensorView<const Acc, Dynamic, Dynamic, Dynamic> mass = {}) {
    const bool with_mass = mass.data() != nullptr;
    check_initial("slot_k", slot_k, shape().key_dim);
    check_initial("slot_v", slot_v, shape().value_dim);
    if (with_mass) {
      check_outside("mass", mass.data());
      check_argument(mass.extent(0) == shape().batch && mass.extent(1) == shape().kv_heads &&
                         mass.extent(2) == shape().slots,
                     "mass is [", mass.extent(0), ", ", mass.extent(1), ", ", mass.extent(2),
                     "]; expected [", shape().batch, ", ", shape().kv_heads, ", ", shape().slots,
                     "]");
      for_each_slot([&](Index n, Index h, Index m) {
        check_argument(mass(n, h, m) >= 0 && mass(n, h, m) <= std::numeric_limits<Acc>::max(),
                       "mass of sequence ", n, ", head ", h, ", slot ", m, " is ", mass(n, h, m),
                       "; expected a finite number, 0 or more");
      });
    }
    reset();
    for_each_slot([&](Index n, Index h, Index m) {
      const auto slots = head(n, h).slots;
      for (Index d = 0; d < shape().key_dim; ++d)
        slots.key_at(m, d) = static_cast<SlotScalar>(slot_k(n, h, m, d));
      for (Index d = 0; d < shape().value_dim; ++d)
        slots.value_at(m, d) = static_cast<SlotScalar>(slot_v(n, h, m, d));
      slots.mass[m] = with_mass ? mass(n, h, m) : Acc{1};
    });
    for (Index n = 0; n < shape().batch; ++n) begin_history(n, 0, true);
  }

  /// Whether two states would treat every future token alike: same layer, same memories to the bit.
  /// How far back they can go is not compared.
  friend bool operator==(const AttentionStateBase& a, const AttentionStateBase& b) {
    if (!(a.shape() == b.shape() && a.options() == b.options())) return false;
    for (Index n = 0; n < a.shape().batch; ++n)
      if (!a.same_sequence(n, b, n)) return false;
    return true;
  }

 protected:
  AttentionStateBase(const AttentionShape& shape, const AttentionOptions& options,
                     Index max_rollback, std::pmr::memory_resource* memory)
      : layout_(shape, options, max_rollback), arena_(layout_.bytes(), memory) {}
  AttentionStateBase(const AttentionStateBase& other) = default;
  AttentionStateBase(const AttentionStateBase& other, std::pmr::memory_resource* memory)
      : layout_(other.layout_), arena_(other.arena_, memory) {}
  AttentionStateBase(AttentionStateBase&& other) noexcept
      : layout_(other.layout_.release()), arena_(std::move(other.arena_)) {}
  AttentionStateBase& operator=(const AttentionStateBase& other) {
    if (shape() == other.shape() && layout_.same_layer(other.layout_))
      arena_ = other.arena_;  // of one size: does not allocate
    else
      *this = AttentionStateBase(other, arena_.memory());
    return *this;
  }
  AttentionStateBase& operator=(AttentionStateBase&& other) {
    if (this == &other) return *this;
    arena_ = std::move(other.arena_);  // first: where this cannot allocate, nothing has changed
    layout_ = other.layout_.release();
    return *this;
  }
  ~AttentionStateBase() = default;

 private:
  friend struct detail::StateAccess;
  using Layout = detail::StateLayout<T, SlotScalar>;
  using History = detail::SequenceHistory;

  void begin_history(Index sequence, std::int64_t tokens_seen, bool has_initial_slots) noexcept {
    history(sequence) = {.tokens_seen = tokens_seen,
                         .oldest_reachable = tokens_seen,
                         .begin = tokens_seen,
                         .has_initial_slots = has_initial_slots ? 1 : 0};
    for (Index h = 0; h < shape().kv_heads; ++h) keep_snapshot(sequence, h, tokens_seen);
  }

  std::byte* block(Index sequence) noexcept {
    return arena_.data() + layout_.sequence_bytes() * static_cast<std::size_t>(sequence);
  }
  const std::byte* block(Index sequence) const noexcept {
    return arena_.data() + layout_.sequence_bytes() * static_cast<std::size_t>(sequence);
  }
  History& history(Index sequence) noexcept { return *reinterpret_cast<History*>(block(sequence)); }
  const History& history(Index sequence) const noexcept {
    return *reinterpret_cast<const History*>(block(sequence));
  }
  HeadState<T, SlotScalar> head(Index sequence, Index head) noexcept {
    return layout_.head(block(sequence), head).memories;
  }
  ConstHeadState<T, SlotScalar> head(Index sequence, Index head) const noexcept {
    return layout_.head(block(sequence), head);
  }
  ConstHeadState<T, SlotScalar> checked_head(Index sequence, Index head) const {
    check_sequence(sequence);
    check_head(head);
    return this->head(sequence, head);
  }
  /// Copies the slots of a head, which are as of `position` tokens, to the regular copy.
  void keep_snapshot(Index sequence, Index head, std::int64_t position) noexcept {
    if (max_rollback() == 0) return;
    const auto sections = layout_.head(block(sequence), head);
    sections.snapshots[history(sequence).regular(position, max_rollback()).index].copy_from(
        sections.memories.slots);
  }

  bool same_sequence(Index n, const AttentionStateBase& other, Index other_n) const {
    const std::int64_t seen = history(n).tokens_seen;
    if (seen != other.history(other_n).tokens_seen ||
        history(n).has_initial_slots != other.history(other_n).has_initial_slots)
      return false;
    const auto same = [](const auto* a, const auto* b, Index count) {
      return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof *a) == 0;
    };
    for (Index h = 0; h < shape().kv_heads; ++h) {
      const auto a = head(n, h);
      const auto b = other.head(other_n, h);
      const HeadOptions o = head_options(options(), h);
      if (!same(a.slots.key, b.slots.key, shape().key_dim * a.slots.key_stride()) ||
          !same(a.slots.value, b.slots.value, shape().slots * a.slots.value_stride()) ||
          !same(a.slots.mass, b.slots.mass, a.slots.key_stride()))
        return false;
      for (std::int64_t t = std::max<std::int64_t>(0, seen - o.window); t < seen; ++t)
        if (!same(a.window.key_row(t), b.window.key_row(t), shape().key_dim) ||
            !same(a.window.value_row(t), b.window.value_row(t), shape().value_dim))
          return false;
      for (std::int64_t t = std::max<std::int64_t>(0, seen - o.slot_delay);
           t < seen && shape().slots > 0; ++t)
        if (!same(a.pending.key_row(t), b.pending.key_row(t), shape().key_dim) ||
            !same(a.pending.retention_row(t), b.pending.retention_row(t), shape().slots) ||
            !same(a.pending.write_row(t), b.pending.write_row(t), shape().slots))
          return false;
    }
    return true;
  }

  template <class F>
  void for_each_slot(F&& visit) const {
    for (Index n = 0; n < shape().batch; ++n)
      for (Index h = 0; h < shape().kv_heads; ++h)
        for (Index m = 0; m < shape().slots; ++m) visit(n, h, m);
  }

  void check_head(Index head) const {
    check_argument(head >= 0 && head < shape().kv_heads, "head is ", head, "; expected 0 to ",
                   shape().kv_heads - 1);
  }
  template <class View>
  void check_initial(const char* name, const View& view, Index dim) const {
    const AttentionShape& s = shape();
    check_argument(view.extent(0) == s.batch && view.extent(1) == s.kv_heads &&
                       view.extent(2) == s.slots && view.extent(3) == dim,
                   "initial ", name, " is [", view.extent(0), ", ", view.extent(1), ", ",
                   view.extent(2), ", ", view.extent(3), "]; expected [", s.batch, ", ", s.kv_heads,
                   ", ", s.slots, ", ", dim, "]");
    check_argument(view.data() != nullptr || view.empty(), "initial ", name, " has no data");
    check_outside(name, view.data());
  }
  void check_outside(const char* name, const void* data) const {
    const std::less<const void*> before;
    const bool inside = !before(data, arena_.data()) && before(data, arena_.data() + arena_.size());
    check_argument(!inside, "initial ", name, " lies in the state itself; give a copy of it");
  }

  Layout layout_;
  Buffer arena_;
};

namespace detail {

/// How the operator's algorithms and the archive reach what a state remembers: no checks, no
/// exceptions.
struct StateAccess {
  template <class T, class SlotScalar>
  static HeadState<T, SlotScalar> head(AttentionStateBase<T, SlotScalar>& state, Index sequence,
                                       Index head) noexcept {
    return state.head(sequence, head);
  }
  template <class T, class SlotScalar>
  static ConstHeadState<T, SlotScalar> head(const AttentionStateBase<T, SlotScalar>& state,
                                            Index sequence, Index head) noexcept {
    return state.head(sequence, head);
  }
  /// Says what a sequence is whose memories have been filled from elsewhere, after reset(): its
  /// tokens, and whether it began from given slots. It can be rolled back to here and no further.
  template <class T, class SlotScalar>
  static void begin_history(AttentionStateBase<T, SlotScalar>& state, Index sequence,
                            std::int64_t tokens_seen, bool has_initial_slots) noexcept {
    state.begin_history(sequence, tokens_seen, has_initial_slots);
  }
  /// Moves a sequence on, after `tokens` tokens have been put into the memories of all heads.
  template <class T, class SlotScalar>
  static void advance(AttentionStateBase<T, SlotScalar>& state, Index sequence,
                      std::int64_t tokens) noexcept {
    state.history(sequence).advance(tokens, state.max_rollback());
  }
  /// Keeps the slots of a head, which are as of `position` tokens seen, if a copy is due.
  template <class T, class SlotScalar>
  static void keep_snapshot(AttentionStateBase<T, SlotScalar>& state, Index sequence, Index head,
                            std::int64_t position) noexcept {
    if (snapshot_is_due(position, state.max_rollback()))
      state.keep_snapshot(sequence, head, position);
  }
  /// Keeps the slots of all heads as the end of a prefill, after advance().
  template <class T, class SlotScalar>
  static void keep_prefill_end(AttentionStateBase<T, SlotScalar>& state, Index sequence) noexcept {
    if (state.max_rollback() == 0) return;
    auto& history = state.history(sequence);
    history.prefill_end = history.tokens_seen;
    for (Index h = 0; h < state.shape().kv_heads; ++h) {
      const auto sections = state.layout_.head(state.block(sequence), h);
      sections.snapshots[history.of_prefill().index].copy_from(sections.memories.slots);
    }
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
