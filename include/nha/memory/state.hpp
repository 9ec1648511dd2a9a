// SPDX-License-Identifier: MIT
// AttentionState: everything an attention layer remembers of a batch of sequences, as one value.
//
// Saving and loading it is in memory/state_bytes.hpp.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/float_mode.hpp>
#include <nha/core/index.hpp>
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

/// Slots and window of every sequence and key/value head of a layer.
///
/// A value: it copies, moves and compares. All memory is one block whose size is known when it is
/// made; nothing allocates after that, except that assigning does, from a state of another layer or
/// batch or by moving from one of another memory resource. Window and slot delay are run-time
/// options, so layers that differ in them share one type. T is the type of the layer's tensors and
/// of the stored window. Slots are sums, kept in accumulate_t<T>, or at half the memory in bfloat16
/// or float16 where SlotScalar says so (T float or a half type): computed is in float all the same,
/// and each is rounded by a dither (core/dither.hpp) when a token has entered, after a prefill
/// once. Where calls of prefill are split then shows in the results, within that rounding. How
/// slots drift is in bench/README.md. Sequences are independent of each other and may have seen
/// unlike numbers of tokens; positions are 64-bit and nothing in the state depends on how large
/// they are. A state that was moved from holds no sequences. Which memory resource copies and
/// assignments use is as with Buffer.
///
/// One thread at a time may use a state; const access may be shared.
template <Scalar T, Index KeyDim = Dynamic, Index ValueDim = Dynamic, Index Slots = Dynamic,
          Scalar SlotScalar = accumulate_t<T>>
class AttentionState {
  static_assert(std::is_same_v<accumulate_t<SlotScalar>, accumulate_t<T>>,
                "slots are kept in the type sums over T are kept in, or a half type of it");

 public:
  using Acc = accumulate_t<T>;
  using SlotType = SlotScalar;
  using Head = HeadState<T, KeyDim, ValueDim, Slots, SlotScalar>;

  /// @param max_rollback how many tokens rollback() can take back; each costs two more tokens of
  ///   window and pending rows, and any at all two more copies of the slots.
  /// @throws ArgumentError if a size or option is out of range or differs from a static extent, or
  ///   all of it does not fit in memory.
  explicit AttentionState(const AttentionShape& shape, const AttentionOptions& options = {},
                          Index max_rollback = 0,
                          std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : layout_(shape, options, max_rollback), arena_(layout_.bytes(), memory) {}
  AttentionState(const AttentionState& other) = default;
  AttentionState(const AttentionState& other, std::pmr::memory_resource* memory)
      : layout_(other.layout_), arena_(other.arena_, memory) {}
  AttentionState(AttentionState&& other) noexcept
      : layout_(other.layout_.release()), arena_(std::move(other.arena_)) {}
  AttentionState& operator=(const AttentionState& other) {
    if (shape() == other.shape() && layout_.same_layer(other.layout_))
      arena_ = other.arena_;  // of one size: does not allocate
    else
      *this = AttentionState(other, arena_.memory());
    return *this;
  }
  AttentionState& operator=(AttentionState&& other) {
    if (this == &other) return *this;
    arena_ = std::move(other.arena_);  // first: where this cannot allocate, nothing has changed
    layout_ = other.layout_.release();
    return *this;
  }
  ~AttentionState() = default;

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
  /// Tokens sequence `sequence` has been given.
  /// @throws ArgumentError if there is no such sequence.
  std::int64_t tokens_seen(Index sequence) const {
    check_sequence(sequence);
    return header(sequence).tokens_seen;
  }
  /// Tokens seen that have not entered the slots of a head: the newest slot_delay of them; 0 where
  /// there are no slots.
  /// @throws ArgumentError if there is no such sequence or head.
  Index tokens_pending(Index sequence, Index head = 0) const {
    check_sequence(sequence);
    check_head(head);
    if (shape().slots == 0) return 0;
    return static_cast<Index>(std::min<std::int64_t>(header(sequence).tokens_seen,
                                                     head_options(options(), head).slot_delay));
  }
  /// Whether the sequence began from given slots (set_initial_slots) rather than from empty ones.
  /// @throws ArgumentError if there is no such sequence.
  bool has_initial_slots(Index sequence) const {
    check_sequence(sequence);
    return header(sequence).has_initial_slots != 0;
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
  /// Mass [M] of the slots of one head: the decayed sum of their write strengths, or ones at first
  /// where initial slots were given without it.
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
  void fork(Index from, AttentionState& target, Index to) const {
    check_sequence(from);
    target.check_sequence(to);
    check_argument(layout_.same_layer(target.layout_),
                   "target of fork has another shape, other options or another max_rollback");
    std::memmove(target.block(to), block(from), layout_.sequence_bytes());
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
                   "; the state keeps ", max_rollback(), " and can now go back ",
                   h.tokens_seen - h.oldest_reachable);
    if (tokens == 0) return;
    const FlushSubnormals flush;  // as when the tokens first entered
    const std::int64_t start = std::max(target - target % max_rollback(), h.history_begin);
    for (Index i = 0; i < shape().kv_heads; ++i) {
      const Head memories = head(sequence, i);
      const Index delay = head_options(options(), i).slot_delay;
      memories.slots.copy_from(snapshot(sequence, i, start));
      if (shape().slots == 0) continue;
      for (std::int64_t j = std::max<std::int64_t>(start - delay, 0); j < target - delay; ++j)
        memories.slots.enter(memories.pending.retention_row(j), memories.pending.write_row(j),
                             memories.pending.key_row(j), memories.window.value_row(j), j);
    }
    h.tokens_seen = target;
  }

  /// Starts every sequence anew from given slots, as if earlier tokens had left them: slot_k
  /// [B, Hkv, M, Dk], slot_v [B, Hkv, M, Dv] and mass [B, Hkv, M], ones where left out. Slots of a
  /// half type take the nearest number.
  /// None of them may lie in this state.
  /// @throws ArgumentError if a shape does not fit, slot_k or slot_v has no data, one lies in this
  ///   state, or a mass is negative or not finite; the state is then as it was.
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
  friend bool operator==(const AttentionState& a, const AttentionState& b) {
    if (!(a.shape() == b.shape() && a.options() == b.options())) return false;
    for (Index n = 0; n < a.shape().batch; ++n)
      if (!a.same_sequence(n, b, n)) return false;
    return true;
  }

 private:
  friend struct detail::StateAccess;
  using Layout = detail::StateLayout<T, KeyDim, ValueDim, Slots, SlotScalar>;
  using Sequence = typename Layout::Sequence;
  using Sections = typename Layout::Sections;

  void begin_history(Index sequence, std::int64_t tokens_seen, bool has_initial_slots) noexcept {
    header(sequence) = {tokens_seen, tokens_seen, tokens_seen, has_initial_slots ? 1 : 0};
    if (max_rollback() > 0)
      for (Index h = 0; h < shape().kv_heads; ++h)
        snapshot(sequence, h, tokens_seen).copy_from(head(sequence, h).slots);
  }

  std::byte* block(Index sequence) noexcept {
    return arena_.data() + layout_.sequence_bytes() * static_cast<std::size_t>(sequence);
  }
  const std::byte* block(Index sequence) const noexcept {
    return arena_.data() + layout_.sequence_bytes() * static_cast<std::size_t>(sequence);
  }
  Sequence& header(Index sequence) noexcept {
    return *reinterpret_cast<Sequence*>(block(sequence));
  }
  const Sequence& header(Index sequence) const noexcept {
    return *reinterpret_cast<const Sequence*>(block(sequence));
  }
  // Views do not know a state that is const: what comes of one is only read, here and by those who
  // use StateAccess, and the public accessors hand out views of const numbers.
  Sections sections(Index sequence, Index head) const noexcept {
    return layout_.head(const_cast<std::byte*>(block(sequence)), head);
  }
  Head head(Index sequence, Index head) const noexcept { return sections(sequence, head).state; }
  Head checked_head(Index sequence, Index head) const {
    check_sequence(sequence);
    check_head(head);
    return this->head(sequence, head);
  }
  /// The copy of the slots as of `position`, a multiple of max_rollback, or history_begin where
  /// that lies after the multiple.
  typename Layout::SlotView snapshot(Index sequence, Index head,
                                     std::int64_t position) const noexcept {
    return sections(sequence, head).snapshots[(position / max_rollback()) % 2];
  }

  bool same_sequence(Index n, const AttentionState& other, Index other_n) const {
    const std::int64_t seen = header(n).tokens_seen;
    if (seen != other.header(other_n).tokens_seen ||
        header(n).has_initial_slots != other.header(other_n).has_initial_slots)
      return false;
    const auto same = [](const auto* a, const auto* b, Index count) {
      return count == 0 || std::memcmp(a, b, static_cast<std::size_t>(count) * sizeof *a) == 0;
    };
    for (Index h = 0; h < shape().kv_heads; ++h) {
      const Head a = head(n, h);
      const Head b = other.head(other_n, h);
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

/// How kernels and state_bytes.hpp reach what a state remembers: no checks, no exceptions.
struct StateAccess {
  /// The memories of a head; those of a const state are to be read only.
  template <class State>
  static auto head(const State& state, Index sequence, Index head) noexcept {
    return state.head(sequence, head);
  }
  /// Says what a sequence is whose memories have been filled from elsewhere, after reset(): its
  /// tokens and whether it began from given slots. It can be rolled back to here and no further.
  template <class State>
  static void begin_history(State& state, Index sequence, std::int64_t tokens_seen,
                            bool has_initial_slots) noexcept {
    state.begin_history(sequence, tokens_seen, has_initial_slots);
  }
  /// Moves a sequence on, after kernels have put `tokens` tokens into the memories of all heads.
  template <class State>
  static void advance(State& state, Index sequence, std::int64_t tokens) noexcept {
    auto& h = state.header(sequence);
    h.tokens_seen += tokens;
    h.oldest_reachable = std::max(h.oldest_reachable, h.tokens_seen - state.max_rollback());
  }
  /// Kernels call this when the slots of a head are as of `position` tokens seen; it keeps a copy
  /// where rollback() will need one.
  template <class State>
  static void keep_snapshot(State& state, Index sequence, Index head,
                            std::int64_t position) noexcept {
    if (snapshot_is_due(state, position))
      state.snapshot(sequence, head, position).copy_from(state.head(sequence, head).slots);
  }
  template <class State>
  static bool snapshot_is_due(const State& state, std::int64_t position) noexcept {
    return state.max_rollback() > 0 && position % state.max_rollback() == 0;
  }
  /// The next position after `position` at which a snapshot is due on the way to `end`; `end` if
  /// there is none. Only the last two before the end are ever needed.
  template <class State>
  static std::int64_t next_snapshot(const State& state, std::int64_t position,
                                    std::int64_t end) noexcept {
    const Index every = state.max_rollback();
    if (every == 0) return end;
    const std::int64_t first_needed = (end / every - 1) * every;
    const std::int64_t next = (position / every + 1) * every;
    return std::min(std::max(next, first_needed), end);
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
