// SPDX-License-Identifier: MIT
// The chunkwise parallel algorithm: many tokens of one key/value head, by matrix products.
//
// A chunk is a few tokens (8 to 32, see chunk_plan.hpp) and the queries of all heads of the group.
// For each chunk:
//   slots    logits of the queries against the slots as of the chunk's start, one product, then
//            moved on to each query's own time inside the chunk (cpu/decay.hpp);
//   window   scores against the packed keys of the window, a band, one product;
//   softmax  over both at once; a band longer than a block is taken in blocks, online;
//   output   weights on the slots go back to the chunk's start and to the tokens that entered
//            since; these share columns with the window, so one product with the values serves
//            both;
//   update   the slots move on by a chunk: two products.
// The result is reference()'s. Memory is independent of the tokens unless the window holds them
// all.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/chunk_plan.hpp>
#include <nha/attention/packed_band.hpp>
#include <nha/attention/validate.hpp>
#include <nha/attention/wide_slots.hpp>
#include <nha/config.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Runs the chunked algorithm over one sequence's new tokens in one key/value head.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
class ChunkedHead {
  using Acc = accumulate_t<T>;
  using Inputs = AttentionInputs<T, KeyDim, ValueDim, Slots>;
  using Outputs = AttentionOutputs<T, ValueDim>;
  using State = AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>;

 public:
  ChunkedHead(const Inputs& inputs, State& state, const Outputs& outputs, const ChunkPlan& plan,
              std::byte* scratch, Index sequence, Index head) noexcept
      : in_(inputs),
        out_(outputs),
        state_(state),
        memory_(StateAccess::head(state, sequence, head)),
        plan_(plan),
        sequence_(sequence),
        head_(head),
        span_(sequence_span(inputs, sequence)),
        start_(state.tokens_seen(sequence)),
        initial_slots_(state.has_initial_slots(sequence)),
        empty_slots_(state.options().empty_slots),
        scale_(static_cast<Acc>(logit_scale(state.options(), plan.key_dim))) {
    SectionCursor cursor(scratch);
    s_ = ChunkScratch<Acc>::take(cursor, plan);
    slots_ = wide_slots(memory_.slots, cursor);
  }

  void run() noexcept {
    if (span_.count == 0) return;
    fill_band_from_state();
    widen_slots<Arch>(memory_.slots, slots_);
    const std::int64_t end = start_ + span_.count;
    for (std::int64_t position = start_; position < end;) {
      const std::int64_t stop = StateAccess::next_snapshot(state_, position, end);
      count_ = static_cast<Index>(std::min<std::int64_t>(plan_.chunk, stop - position));
      position_ = position;
      process_chunk();
      position += count_;
      if (position == end || StateAccess::snapshot_is_due(state_, position))
        round_slots<Arch>(slots_, memory_.slots, position - 1 - plan_.slot_delay);
      StateAccess::keep_snapshot(state_, sequence_, head_, position);
    }
    remember_newest(end);
  }

 private:
  bool has_slots() const noexcept { return plan_.slots > 0; }
  /// Whether something is in the slots by the end of the chunk. Until the first token has entered
  /// them, with a window as long as the text always, their products are left out.
  bool slots_are_written() const noexcept {
    return has_slots() && (initial_slots_ || position_ + count_ > plan_.slot_delay);
  }
  Index rows() const noexcept { return count_ * plan_.group; }
  /// Row of the inputs for a position of this call.
  Index token_of(std::int64_t position) const noexcept {
    return span_.first + static_cast<Index>(position - start_);
  }
  const T* input_row(const auto& view, std::int64_t position) const noexcept {
    return &view(span_.row, token_of(position), head_, 0);
  }

  void process_chunk() noexcept {
    append_to_band();
    pack_queries();
    if (slots_are_written()) {
      gather_entering();
      slot_logits();
    } else {
      entering_ = {};
    }
    if (has_slots()) weigh_empty_slots();
    attend();
    store_output();
    if (slots_are_written()) update_slots();
  }

  void fill_band_from_state() noexcept {
    const std::int64_t oldest = std::max<std::int64_t>(0, start_ - plan_.window);
    band_ = PackedBand<Acc>(plan_, s_.band_keys, s_.band_values, oldest);
    band_.template append<T>(
        static_cast<Index>(start_ - oldest),
        [&](Index i) { return memory_.window.key_row(oldest + i); },
        [&](Index i) { return memory_.window.value_row(oldest + i); }, memory_.slots.value_dim);
  }
  void append_to_band() noexcept {
    band_.make_room(count_);
    band_.template append<T>(
        count_, [&](Index i) { return input_row(in_.k_window, position_ + i); },
        [&](Index i) { return input_row(in_.v, position_ + i); }, memory_.slots.value_dim);
  }

  void pack_queries() noexcept {
    const Index stride = padded(plan_.key_dim);
    for (Index i = 0; i < count_; ++i)
      for (Index g = 0; g < plan_.group; ++g) {
        const Index token = token_of(position_ + i);
        const Index query_head = head_ * plan_.group + g;
        const Index row = i * plan_.group + g;
        if (slots_are_written())
          pack_scaled_row(&in_.q_slot(span_.row, token, query_head, 0), plan_.key_dim, scale_,
                          s_.q_slot + row * stride);
        if (plan_.window > 0)
          pack_scaled_row(&in_.q_window(span_.row, token, query_head, 0), plan_.key_dim, scale_,
                          s_.q_window + row * stride);
      }
  }

  // Slots.

  /// Keys, retention and write strengths of the tokens that enter during this chunk: from the
  /// inputs, or for tokens of earlier calls from the state.
  void gather_entering() noexcept {
    const Index key_stride = padded(plan_.key_dim);
    const std::int64_t oldest = position_ - plan_.slot_delay;
    const auto first = static_cast<Index>(std::clamp<std::int64_t>(-oldest, 0, count_));
    entering_ = {s_.retention, s_.write, plan_.slots, first, count_};
    const auto key_at = [&](Index i) {
      const std::int64_t p = oldest + i;
      return p >= start_ ? input_row(in_.k_slot, p) : memory_.pending.key_row(p);
    };
    pack_key_columns<T>(
        count_ - first, [&](Index i) { return key_at(first + i); }, plan_.key_dim, first,
        s_.entering_panels);
    for (Index i = first; i < count_; ++i) {
      pack_row<T>(key_at(i), memory_.pending.key_dim, s_.entering_keys + i * key_stride);
      const std::int64_t p = oldest + i;
      Acc* retention = s_.retention + i * plan_.slots;
      Acc* write = s_.write + i * plan_.slots;
      if (p >= start_) {
        input_gates(p, retention, write);
      } else {
        std::copy_n(memory_.pending.retention_row(p), plan_.slots, retention);
        std::copy_n(memory_.pending.write_row(p), plan_.slots, write);
      }
    }
  }
  void input_gates(std::int64_t position, Acc* retention, Acc* write) const noexcept {
    const Acc* given =
        in_.write.data() != nullptr ? &in_.write(span_.row, token_of(position), head_, 0) : nullptr;
    pack_gates<Arch>(&in_.log_gate(span_.row, token_of(position), head_, 0), given,
                     memory_.slots.slots, retention, write);
  }

  /// Logits of every query against the slots as it sees them, into the front of the score rows.
  void slot_logits() noexcept {
    const Index stride = plan_.row_stride();
    const Index pair_stride = padded(plan_.chunk);
    const Rows<Acc> queries{s_.q_slot, padded(plan_.key_dim)};
    gemm<Arch>(rows(), plan_.slots, plan_.key_dim, queries, row_major<Acc>(slots_.key, plan_.slots),
               s_.scores, stride, StartAtZero());
    gemm<Arch>(rows(), padded(count_), plan_.key_dim, queries,
               RightOperand<Acc>{s_.entering_panels, plan_.key_dim * kRowPadding, kRowPadding},
               s_.pairs, pair_stride, StartAtZero());
    decay_logits<Arch>(entering_, plan_.group, s_.pairs, pair_stride, s_.scores, stride);
    if (empty_slots_ == EmptySlots::mass_corrected) correct_by_mass();
  }

  /// What the rule for empty slots does to the logits; padding never takes part.
  void weigh_empty_slots() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      if (!slots_are_written()) std::fill_n(logits, Index{memory_.slots.slots}, Acc{0});
      const bool written = initial_slots_ || position_ + row / plan_.group >= plan_.slot_delay;
      const bool take_part = written || empty_slots_ == EmptySlots::participate;
      std::fill(logits + (take_part ? Index{memory_.slots.slots} : 0), logits + plan_.slots,
                -kInfinity<Acc>);
    }
  }

  /// Slots as weighted means: logit / mass + log(mass), and none where the mass is 0.
  void correct_by_mass() noexcept {
    decay_mass(entering_, slots_.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      const Index at = row / plan_.group * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m)
        logits[m] = logits[m] * s_.inverse_mass[at + m] + s_.log_mass[at + m];
    }
  }

  /// Slots and mass as of the chunk's end.
  void update_slots() noexcept {
    const auto& slots = slots_;
    const Index first = entering_.first;
    const Index depth = count_ - first;
    if (depth == 0) return;
    chunk_strengths<Arch>(entering_, s_.total, s_.strength);
    const Acc* strength = s_.strength + first * plan_.slots;
    const Index oldest = band_.column(position_ - plan_.slot_delay + first);
    // keys^T [Dk, M] <- keys^T . total + entering^T [Dk, n] strength [n, M]
    gemm<Arch>(
        plan_.key_dim, plan_.slots, depth,
        Transposed<Acc>{s_.entering_keys + first * padded(plan_.key_dim), padded(plan_.key_dim)},
        row_major(strength, plan_.slots), slots.key, slots.key_stride(),
        ScaleColumns<Acc>{s_.total});
    // values [M, Dv] <- total . values + strength^T [M, n] values [n, Dv]
    gemm<Arch>(slots.slots, plan_.value_dim, depth, Transposed<Acc>{strength, plan_.slots},
               band_.values(oldest), slots.value, slots.value_stride(), ScaleRows<Acc>{s_.total});
    for (Index i = first; i < count_; ++i)
      for (Index m = 0; m < plan_.slots; ++m)
        slots.mass[m] = multiply_add(s_.retention[i * plan_.slots + m], slots.mass[m],
                                     s_.write[i * plan_.slots + m]);
  }

  // One softmax over both.

  /// Columns of the band, [first, last).
  struct Columns {
    Index first;
    Index last;
    Index size() const noexcept { return last - first; }
  };

  void attend() noexcept {
    std::fill_n(s_.softmax, rows(), SoftmaxState<Acc>{});
    // The band reaches from the oldest token that the chunk's first query sees or that enters
    // during the chunk, to the chunk's last token.
    const Columns entering{band_.column(position_ - plan_.slot_delay + entering_.first),
                           band_.column(position_ - plan_.slot_delay + count_)};
    const bool any_entering = entering_.first < entering_.count;
    Columns band{band_.column(std::max<std::int64_t>(position_ - plan_.window + 1, 0)),
                 band_.column(position_ + count_)};
    if (plan_.window == 0) band.first = band.last;
    if (any_entering) {
      band.last = band.first < band.last ? band.last : entering.last;
      band.first = std::min(band.first, entering.first);
    }
    band = {band.first / kRowPadding * kRowPadding, padded(band.last)};

    // The first block holds the entering tokens' columns, whose weights come from the slots; it is
    // the whole band unless the window is long.
    Columns home = band;
    if (band.size() > plan_.block) {
      const Index wanted = any_entering ? entering.first / kRowPadding * kRowPadding : band.first;
      home.first = std::min(wanted, band.last - plan_.block);
      home.last = home.first + plan_.block;
    }
    first_block(home, any_entering ? entering.first : 0);
    for (Index at = home.last; at < band.last; at += plan_.block)
      next_block({at, std::min(at + plan_.block, band.last)});
    for (Index at = band.first; at < home.first; at += plan_.block)
      next_block({at, std::min(at + plan_.block, home.first)});
  }

  /// Window scores of the queries against some columns, -infinity outside each query's window.
  void window_scores(Columns columns) noexcept {
    const Index stride = plan_.row_stride();
    Acc* scores = s_.scores + plan_.slots;
    if (plan_.window > 0)
      gemm<Arch>(rows(), columns.size(), plan_.key_dim,
                 Rows<Acc>{s_.q_window, padded(plan_.key_dim)}, band_.keys(columns.first), scores,
                 stride, StartAtZero());
    for (Index row = 0; row < rows(); ++row) {
      const std::int64_t position = position_ + row / plan_.group;
      const std::int64_t oldest = std::max<std::int64_t>(position - plan_.window + 1, 0);
      const Index from = band_.column(oldest) - columns.first;
      const Index to = band_.column(position + 1) - columns.first;
      Acc* at = scores + row * stride;
      const Index size = columns.size();
      std::fill(at, at + std::clamp<Index>(from, 0, size), -kInfinity<Acc>);
      std::fill(at + std::clamp<Index>(to, 0, size), at + size, -kInfinity<Acc>);
    }
  }

  /// Slots and the block that holds the entering tokens' columns, from `entering` on.
  void first_block(Columns columns, Index entering) noexcept {
    const Index stride = plan_.row_stride();
    if (columns.size() > 0) window_scores(columns);
    absorb<Arch>(rows(), s_.softmax, s_.scores, stride, plan_.slots + columns.size(),
                 static_cast<Acc*>(nullptr));
    for (Index row = 0; row < rows(); ++row)
      s_.share[row] = sum_row<Arch>(s_.scores + row * stride, plan_.slots);
    if (slots_are_written()) {
      if (empty_slots_ == EmptySlots::mass_corrected)
        for (Index row = 0; row < rows(); ++row)
          for (Index m = 0; m < plan_.slots; ++m)
            s_.scores[row * stride + m] *= s_.inverse_mass[row / plan_.group * plan_.slots + m];
      // Column `entering` is that of the first entering token, row entering_.first of the gates.
      decay_weights<Arch>(entering_, plan_.group, s_.scores, stride,
                          s_.scores + plan_.slots + entering - columns.first - entering_.first,
                          stride);
      gemm<Arch>(rows(), plan_.value_dim, memory_.slots.slots, Rows<Acc>{s_.scores, stride},
                 row_major<Acc>(slots_.value, plan_.value_dim), s_.output, plan_.value_dim,
                 StartAtZero());
    } else {
      std::fill_n(s_.output, rows() * plan_.value_dim, Acc{0});
    }
    if (columns.size() > 0) add_values(columns, Accumulate());
  }

  /// A further block of a long window.
  void next_block(Columns columns) noexcept {
    window_scores(columns);
    absorb<Arch>(rows(), s_.softmax, s_.scores + plan_.slots, plan_.row_stride(), columns.size(),
                 s_.factor);
    for (Index row = 0; row < rows(); ++row) s_.share[row] *= s_.factor[row];
    add_values(columns, ScaleRows<Acc>{s_.factor});
  }

  /// output <- start(output) + weights * values of some columns; columns past the newest token hold
  /// nothing and are left out.
  template <class Start>
  void add_values(Columns columns, const Start& start) noexcept {
    const Index used = std::min(columns.last, band_.size());
    gemm<Arch>(rows(), plan_.value_dim, used - columns.first,
               Rows<Acc>{s_.scores + plan_.slots, plan_.row_stride()}, band_.values(columns.first),
               s_.output, plan_.value_dim, start);
  }

  void store_output() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index token = token_of(position_ + row / plan_.group);
      const Index query_head = head_ * plan_.group + row % plan_.group;
      const Acc normalizer = s_.softmax[row].normalizer();
      const Acc* output = s_.output + row * plan_.value_dim;
      T* o = &out_.o(span_.row, token, query_head, 0);
      for (Index d = 0; d < memory_.slots.value_dim; ++d)
        o[d] = static_cast<T>(output[d] * normalizer);
      if (out_.lse.data() != nullptr)
        out_.lse(span_.row, token, query_head) = s_.softmax[row].lse();
      if (out_.slot_share.data() != nullptr)
        out_.slot_share(span_.row, token, query_head) = s_.share[row] * normalizer;
    }
  }

  /// Leaves in the state the newest tokens that later ones will need.
  void remember_newest(std::int64_t end) noexcept {
    const auto& window = memory_.window;
    for (std::int64_t p = std::max(start_, end - window.capacity); p < end; ++p)
      window.push(p, plan_.window > 0 ? input_row(in_.k_window, p) : nullptr, input_row(in_.v, p));
    if (!has_slots()) return;
    for (std::int64_t p = std::max(start_, end - memory_.pending.capacity); p < end; ++p) {
      input_gates(p, s_.retention, s_.write);
      memory_.pending.push(p, input_row(in_.k_slot, p), s_.retention, s_.write);
    }
  }

  const Inputs& in_;
  const Outputs& out_;
  State& state_;
  HeadState<T, KeyDim, ValueDim, Slots, SlotScalar> memory_;
  SlotMemoryView<Acc, KeyDim, ValueDim, Slots> slots_;  // those of memory_, or a wide copy
  const ChunkPlan& plan_;
  Index sequence_;
  Index head_;
  SequenceSpan span_;
  std::int64_t start_;  // position of the call's first token
  bool initial_slots_;
  EmptySlots empty_slots_;
  Acc scale_;
  ChunkScratch<Acc> s_;
  PackedBand<Acc> band_;
  std::int64_t position_ = 0;  // of the chunk's first token
  Index count_ = 0;            // its tokens
  EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
