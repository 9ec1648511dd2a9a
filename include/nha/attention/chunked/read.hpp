// SPDX-License-Identifier: MIT
// ChunkReader: how the queries of a chunk read slots and window, by matrix products.
#pragma once

#include <nha/attention/chunked/band.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/row_prefetcher.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Reads chunks of a call, one after the other; others may read other chunks at the same time.
template <class Arch, class Call>
class ChunkReader {
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;
  using Outputs = typename Call::Outputs;

 public:
  ChunkReader(const Call& call, const Outputs& outputs, const ReadScratch<Acc>& scratch) noexcept
      : call_(call), out_(outputs), plan_(call.plan), s_(scratch) {}

  /// Brings keys and values up to the end of a chunk into the band. Chunks must come in order, but
  /// some may be left out, as when others read them.
  void load_band(const Chunk& chunk) noexcept {
    // The first column of a band is that of the oldest token the call's first query sees, or a
    // whole number of panels later: so that the columns of a chunk fall into the same panels
    // whoever reads it, and the sums are the same to the bit.
    const std::int64_t oldest = std::max<std::int64_t>(0, call_.start - plan_.window);
    const std::int64_t needed = std::max<std::int64_t>(0, chunk.position - plan_.window);
    if (!band_.is_open() || band_.end() < needed)
      band_ = PackedBand<Acc>(plan_, s_.band_keys, s_.band_values,
                              oldest + (needed - oldest) / kRowPadding * kRowPadding);
    while (band_.end() < chunk.end()) {
      const std::int64_t from = band_.end();
      const auto count = static_cast<Index>(std::min<std::int64_t>(
          plan_.chunk, (from < chunk.position ? chunk.position : chunk.end()) - from));
      band_.make_room(count);
      band_.template append<T>(
          count, [&](Index i) { return call_.window_key(from + i); },
          [&](Index i) { return call_.value(from + i); }, call_.memory.slots.value_dim);
    }
  }
  /// The values in the band from those of the tokens on that enter during the chunk loaded last.
  cpu::RightOperand<Acc> entering_values(const Chunk& chunk) const noexcept {
    const Index first = call_.first_entering(chunk);
    return band_.values(first < chunk.count ? band_.column(call_.entering(chunk, first)) : 0);
  }

  /// Output, and lse and slot share where wanted, of the queries of the chunk loaded last, given
  /// the slots as of its start and the gates of the tokens that enter during it. `next` is the
  /// chunk that comes after it, if any: its rows are asked for meanwhile.
  void read(const Chunk& chunk, const cpu::EnteringGates<Acc>& gates, const SlotView& slots,
            const Chunk& next = {}) noexcept {
    chunk_ = chunk;
    ask_for(next);
    slots_ = slots;
    written_ = call_.slots_are_written(chunk);
    entering_ = written_ ? gates : cpu::EnteringGates<Acc>{};
    pack_queries();
    if (written_) slot_logits();
    if (call_.has_slots()) weigh_empty_slots();
    attend();
    store_output();
  }

  /// Asks for the rows of the chunk after the one read last that have not been asked for yet.
  RowPrefetcher& next_rows() noexcept { return next_rows_; }

 private:
  Index rows() const noexcept { return chunk_.count * plan_.group; }

  /// Lists the rows of a chunk: those that will be read, by the update of the slots too, and those
  /// of the outputs.
  void ask_for(const Chunk& next) noexcept {
    const bool with_slots = call_.slots_are_written(next);
    // The window's products alone have few tiles.
    next_rows_ = RowPrefetcher(with_slots ? 1 : 3);
    if (next.count == 0) return;
    const auto& in = call_.in;
    const std::int64_t first = next.position, end = next.end();
    next_rows_.add(call_, in.v, first, end, 1);
    if (plan_.window > 0) {
      next_rows_.add(call_, in.k_window, first, end, 1);
      next_rows_.add(call_, in.q_window, first, end, plan_.group);
    }
    if (with_slots) {
      next_rows_.add(call_, in.q_slot, first, end, plan_.group);
      const std::int64_t entering = call_.entering(next, 0);
      next_rows_.add(call_, in.k_slot, entering, entering + next.count, 1);
      next_rows_.add(call_, in.log_gate, entering, entering + next.count, 1);
    }
    next_rows_.add(call_, out_.o, first, end, plan_.group);
  }

  void pack_queries() noexcept {
    const Index stride = padded(plan_.key_dim);
    for (Index i = 0; i < chunk_.count; ++i)
      for (Index g = 0; g < plan_.group; ++g) {
        const Index token = call_.token_of(chunk_.position + i);
        const Index query_head = call_.head * plan_.group + g;
        const Index row = i * plan_.group + g;
        if (written_)
          cpu::pack_scaled_row(&call_.in.q_slot(call_.span.row, token, query_head, 0),
                               plan_.key_dim, call_.scale, s_.q_slot + row * stride);
        if (plan_.window > 0)
          cpu::pack_scaled_row(&call_.in.q_window(call_.span.row, token, query_head, 0),
                               plan_.key_dim, call_.scale, s_.q_window + row * stride);
      }
  }

  /// Logits of every query against the slots as it sees them, into the front of the score rows.
  void slot_logits() noexcept {
    const Index stride = plan_.row_stride();
    const Index pair_stride = padded(plan_.chunk);
    const cpu::Rows<Acc> queries{s_.q_slot, padded(plan_.key_dim)};
    cpu::pack_key_columns<T>(
        entering_.count - entering_.first,
        [&](Index i) { return call_.slot_key(call_.entering(chunk_, entering_.first + i)); },
        plan_.key_dim, entering_.first, s_.entering_panels);
    cpu::gemm<Arch>(rows(), plan_.slots, plan_.key_dim, queries,
                    cpu::row_major<Acc>(slots_.key, plan_.slots), s_.scores, stride,
                    cpu::StartAtZero(), next_rows_);
    cpu::gemm<Arch>(
        rows(), padded(chunk_.count), plan_.key_dim, queries,
        cpu::RightOperand<Acc>{s_.entering_panels, plan_.key_dim * kRowPadding, kRowPadding},
        s_.pairs, pair_stride, cpu::StartAtZero(), next_rows_);
    cpu::decay_logits<Arch>(entering_, plan_.group, s_.pairs, pair_stride, s_.scores, stride);
    if (call_.empty_slots == EmptySlots::mass_corrected) correct_by_mass();
  }

  /// What the rule for empty slots does to the logits; padding never takes part.
  void weigh_empty_slots() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      if (!written_) std::fill_n(logits, Index{slots_.slots}, Acc{0});
      const bool written =
          call_.initial_slots || chunk_.position + row / plan_.group >= plan_.slot_delay;
      const bool take_part = written || call_.empty_slots == EmptySlots::participate;
      std::fill(logits + (take_part ? Index{slots_.slots} : 0), logits + plan_.slots,
                -kInfinity<Acc>);
    }
  }

  /// Slots as weighted means: logit / mass + log(mass), and none where the mass is 0.
  void correct_by_mass() noexcept {
    cpu::decay_mass(entering_, slots_.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      const Index at = row / plan_.group * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m)
        logits[m] = logits[m] * s_.inverse_mass[at + m] + s_.log_mass[at + m];
    }
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
    const Columns entering{band_.column(chunk_.position - plan_.slot_delay + entering_.first),
                           band_.column(chunk_.position - plan_.slot_delay + chunk_.count)};
    const bool any_entering = entering_.first < entering_.count;
    Columns band{band_.column(std::max<std::int64_t>(chunk_.position - plan_.window + 1, 0)),
                 band_.column(chunk_.position + chunk_.count)};
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
      cpu::gemm<Arch>(rows(), columns.size(), plan_.key_dim,
                      cpu::Rows<Acc>{s_.q_window, padded(plan_.key_dim)}, band_.keys(columns.first),
                      scores, stride, cpu::StartAtZero(), next_rows_);
    for (Index row = 0; row < rows(); ++row) {
      const std::int64_t position = chunk_.position + row / plan_.group;
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
    cpu::online_softmax_update<Arch>(rows(), s_.softmax, s_.scores, stride,
                                     plan_.slots + columns.size(), static_cast<Acc*>(nullptr));
    for (Index row = 0; row < rows(); ++row)
      s_.share[row] = cpu::sum_row<Arch>(s_.scores + row * stride, plan_.slots);
    if (written_) {
      if (call_.empty_slots == EmptySlots::mass_corrected)
        for (Index row = 0; row < rows(); ++row)
          for (Index m = 0; m < plan_.slots; ++m)
            s_.scores[row * stride + m] *= s_.inverse_mass[row / plan_.group * plan_.slots + m];
      // Column `entering` is that of the first entering token, row entering_.first of the gates.
      cpu::decay_weights<Arch>(entering_, plan_.group, s_.scores, stride,
                               s_.scores + plan_.slots + entering - columns.first - entering_.first,
                               stride);
      cpu::gemm<Arch>(rows(), plan_.value_dim, slots_.slots, cpu::Rows<Acc>{s_.scores, stride},
                      cpu::row_major<Acc>(slots_.value, plan_.value_dim), s_.output,
                      plan_.value_dim, cpu::StartAtZero(), next_rows_);
    } else {
      std::fill_n(s_.output, rows() * plan_.value_dim, Acc{0});
    }
    if (columns.size() > 0) add_values(columns, cpu::Accumulate());
  }

  /// A further block of a long window.
  void next_block(Columns columns) noexcept {
    window_scores(columns);
    cpu::online_softmax_update<Arch>(rows(), s_.softmax, s_.scores + plan_.slots,
                                     plan_.row_stride(), columns.size(), s_.factor);
    for (Index row = 0; row < rows(); ++row) s_.share[row] *= s_.factor[row];
    add_values(columns, cpu::ScaleRows<Acc>{s_.factor, s_.output, plan_.value_dim});
  }

  /// output <- start(output) + weights * values of some columns; columns past the newest token hold
  /// nothing and are left out.
  template <class Start>
  void add_values(Columns columns, const Start& start) noexcept {
    const Index used = std::min(columns.last, band_.size());
    cpu::gemm<Arch>(rows(), plan_.value_dim, used - columns.first,
                    cpu::Rows<Acc>{s_.scores + plan_.slots, plan_.row_stride()},
                    band_.values(columns.first), s_.output, plan_.value_dim, start, next_rows_);
  }

  void store_output() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index token = call_.token_of(chunk_.position + row / plan_.group);
      const Index query_head = call_.head * plan_.group + row % plan_.group;
      const Acc normalizer = s_.softmax[row].normalizer();
      const Acc* output = s_.output + row * plan_.value_dim;
      T* o = &out_.o(call_.span.row, token, query_head, 0);
      for (Index d = 0; d < slots_.value_dim; ++d) o[d] = static_cast<T>(output[d] * normalizer);
      if (out_.lse.data() != nullptr)
        out_.lse(call_.span.row, token, query_head) = s_.softmax[row].lse();
      if (out_.slot_share.data() != nullptr)
        out_.slot_share(call_.span.row, token, query_head) = s_.share[row] * normalizer;
    }
  }

  const Call& call_;
  const Outputs& out_;
  const ChunkPlan& plan_;
  ReadScratch<Acc> s_;
  PackedBand<Acc> band_;
  RowPrefetcher next_rows_;

  // The chunk that is being read.
  Chunk chunk_;
  SlotView slots_;
  bool written_ = false;
  cpu::EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
