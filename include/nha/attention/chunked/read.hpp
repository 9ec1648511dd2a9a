// SPDX-License-Identifier: MIT
// ChunkReader: how the queries of a chunk read slots and window, by matrix products.
#pragma once

#include <nha/attention/chunked/band.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/seen_products.hpp>
#include <nha/attention/fused_softmax.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Reads chunks of a call, one after the other; others may read other chunks at the same time.
template <class Arch, class Call>
class ChunkReader {
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;

 public:
  ChunkReader(const ChunkedCall<Call>& call, const HeadOutputs<T>& outputs,
              const ReadScratch<Acc>& scratch) noexcept
      : call_(call),
        out_(outputs),
        plan_(call.plan),
        s_(scratch),
        softmax_{scratch.scores, plan_.row_stride(), call.slots(), scratch.softmax} {}

  /// Brings keys and values up to the end of a chunk into the band. Chunks must come in order, but
  /// some may be left out, as when others read them.
  NHA_NOINLINE void load_band(const Chunk& chunk) noexcept {
    // The first column of a band is that of the oldest token the call's first query sees, or a
    // whole number of panels later: so that the columns of a chunk fall into the same panels
    // whoever reads it, and the sums are the same to the bit.
    const std::int64_t oldest = std::max<std::int64_t>(0, call_.begin - plan_.window);
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
          [&](Index i) { return call_.value(from + i); }, call_.value_dim());
    }
  }
  /// The values in the band from those of the tokens on that enter during the chunk loaded last.
  cpu::RightOperand<Acc> entering_values(const Chunk& chunk) const noexcept {
    const Index first = call_.first_entering(chunk);
    return band_.values(first < chunk.count ? band_.column(call_.entering(chunk, first)) : 0);
  }

  /// Output, and lse and slot share where wanted, of the queries of the chunk loaded last, given
  /// the slots as of its start and the gates of the tokens that enter during it. `next` is the
  /// chunk that comes after it, if any: its rows are prefetched meanwhile.
  NHA_NOINLINE void read(const Chunk& chunk, const cpu::EnteringGates<Acc>& gates,
                         const SlotMemoryView<const Acc>& slots, const Chunk& next = {}) noexcept {
    chunk_ = chunk;
    prefetch(next);
    slots_ = slots;
    const bool written = call_.slots_are_written(chunk);
    entering_ = written ? gates : cpu::EnteringGates<Acc>{};
    // Slots that nothing has entered are 0, and so are their logits, unless a query is not finite.
    const bool zeros_count = call_.slots() > 0 && call_.rule.slots_take_part(false);
    pack_queries(written || zeros_count);
    reads_slots_ = written || (zeros_count && !cpu::all_finite(s_.q_slot, rows() * key_stride()));
    if (reads_slots_) slot_logits();
    if (call_.slots() > 0) apply_rule();
    attend();
    store_output();
  }

  /// Prefetches what is left of the rows of the chunk after the one read last.
  cpu::RowPrefetcher& next_rows() noexcept { return next_rows_; }

 private:
  Index rows() const noexcept { return chunk_.count * plan_.group; }
  std::int64_t position(Index row) const noexcept { return chunk_.position + row / plan_.group; }

  /// Lists the rows of a chunk: those that will be read, by the update of the slots too, and those
  /// of the outputs.
  void prefetch(const Chunk& next) noexcept {
    const bool with_slots = call_.slots_are_written(next);
    // The window's products alone have few tiles.
    next_rows_ = cpu::RowPrefetcher(with_slots ? 1 : 3);
    if (next.count == 0) return;
    const std::int64_t first = next.position, end = next.end();
    const Index keys = call_.key_dim(), values = call_.value_dim();
    call_.list_rows(next_rows_, call_.v, first, end, 1, values);
    if (plan_.window > 0) {
      call_.list_rows(next_rows_, call_.k_window, first, end, 1, keys);
      call_.list_rows(next_rows_, call_.q_window, first, end, plan_.group, keys);
    }
    if (with_slots) {
      call_.list_rows(next_rows_, call_.q_slot, first, end, plan_.group, keys);
      const std::int64_t entering = call_.entering(next, 0), last = entering + next.count;
      call_.list_rows(next_rows_, call_.k_slot, entering, last, 1, keys);
      call_.list_rows(next_rows_, call_.log_gate, entering, last, 1, call_.slots());
    }
    call_.list_rows(next_rows_, out_.o, first, end, plan_.group, values);
  }

  Index key_stride() const noexcept { return padded(plan_.key_dim); }

  void pack_queries(bool for_slots) noexcept {
    const Index stride = key_stride();
    for (Index i = 0; i < chunk_.count; ++i)
      for (Index g = 0; g < plan_.group; ++g) {
        const Index token = call_.token(chunk_.position + i);
        const Index row = i * plan_.group + g;
        if (for_slots)
          cpu::pack_scaled_row(call_.q_slot.row(token, g), plan_.key_dim, call_.softmax_scale,
                               s_.q_slot + row * stride);
        if (plan_.window > 0)
          cpu::pack_scaled_row(call_.q_window.row(token, g), plan_.key_dim, call_.softmax_scale,
                               s_.q_window + row * stride);
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
                    cpu::StartAtZero(), &next_rows_);
    cpu::gemm<Arch>(
        rows(), padded(chunk_.count), plan_.key_dim, queries,
        cpu::RightOperand<Acc>{s_.entering_panels, plan_.key_dim * kRowPadding, kRowPadding},
        s_.pairs, pair_stride, cpu::StartAtZero(), &next_rows_);
    cpu::decay_logits<Arch>(entering_, plan_.group, s_.pairs, pair_stride, s_.scores, stride);
    if (!call_.rule.reads_means()) return;
    cpu::decay_mass<Arch>(entering_, slots_.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows(); ++row)
      softmax_.correct_logits(row, s_.inverse_mass + mass_at(row), s_.log_mass + mass_at(row));
  }
  /// Where the terms of the masses that a row sees begin.
  Index mass_at(Index row) const noexcept { return row / plan_.group * plan_.slots; }

  /// What the rule for empty slots does to the logits.
  void apply_rule() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      if (!reads_slots_) std::fill_n(softmax_.slot_scores(row), call_.slots(), Acc{0});
      softmax_.hide_slots(row, call_.slots_take_part(position(row)));
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
    // The band reaches from the oldest token that the chunk's first query sees or that enters
    // during the chunk, to the chunk's last token.
    const Columns entering{band_.column(call_.entering(chunk_, entering_.first)),
                           band_.column(call_.entering(chunk_, chunk_.count))};
    const bool any_entering = entering_.first < entering_.count;
    Columns band{band_.column(call_.oldest_visible(chunk_.position)), band_.column(chunk_.end())};
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
  NHA_NOINLINE void window_scores(Columns columns) noexcept {
    if (plan_.window > 0)
      cpu::gemm<Arch>(rows(), columns.size(), plan_.key_dim,
                      cpu::Rows<Acc>{s_.q_window, padded(plan_.key_dim)}, band_.keys(columns.first),
                      softmax_.window_scores(0), plan_.row_stride(), cpu::StartAtZero(),
                      &next_rows_);
    for (Index row = 0; row < rows(); ++row) {
      const Columns seen = visible(row);
      softmax_.hide_columns(row, seen.first - columns.first, seen.last - columns.first,
                            columns.size());
    }
  }
  /// The columns that a row sees through the window.
  Columns visible(Index row) const noexcept {
    return {band_.column(call_.oldest_visible(position(row))), band_.column(position(row) + 1)};
  }

  /// Slots and the block that holds the entering tokens' columns, from `entering` on.
  void first_block(Columns columns, Index entering) noexcept {
    const Index stride = plan_.row_stride();
    if (columns.size() > 0) window_scores(columns);
    softmax_.weigh(rows(), columns.size());
    for (Index row = 0; row < rows(); ++row) s_.share[row] = softmax_.weight_on_slots(row);
    if (reads_slots_) {
      if (call_.rule.reads_means())
        for (Index row = 0; row < rows(); ++row)
          softmax_.correct_weights(row, s_.inverse_mass + mass_at(row));
      // Column `entering` is that of the first entering token, row entering_.first of the gates.
      cpu::decay_weights<Arch>(
          entering_, plan_.group, s_.scores, stride,
          softmax_.window_scores(0) + entering - columns.first - entering_.first, stride);
      cpu::gemm<Arch>(rows(), plan_.value_dim, call_.slots(), cpu::Rows<Acc>{s_.scores, stride},
                      cpu::row_major<Acc>(slots_.value, plan_.value_dim), s_.output,
                      plan_.value_dim, cpu::StartAtZero(), &next_rows_);
    } else {
      std::fill_n(s_.output, rows() * plan_.value_dim, Acc{0});
    }
    if (columns.size() > 0) add_values(columns, cpu::Accumulate());
  }

  /// A further block of a long window.
  void next_block(Columns columns) noexcept {
    window_scores(columns);
    softmax_.weigh_further(rows(), columns.size(), s_.factor);
    for (Index row = 0; row < rows(); ++row) s_.share[row] *= s_.factor[row];
    add_values(columns, cpu::ScaleRows<Acc>{s_.factor, s_.output, plan_.value_dim});
  }

  /// output <- start(output) + weights * values of some columns; columns past the newest token hold
  /// nothing and are left out.
  NHA_NOINLINE void add_values(Columns columns, const cpu::Start<Acc>& start) noexcept {
    const Index used = std::min(columns.last, band_.size()) - columns.first;
    const Index depth = band_.is_finite_from(band_.position(columns.first)) ? used : Index{0};
    cpu::gemm<Arch>(rows(), plan_.value_dim, depth,
                    cpu::Rows<Acc>{softmax_.window_scores(0), plan_.row_stride()},
                    band_.values(columns.first), s_.output, plan_.value_dim, start, &next_rows_);
    if (depth == used) return;
    add_seen<Acc>(rows(), used, {softmax_.window_scores(0), plan_.row_stride()},
                  {band_.values(columns.first).data, plan_.value_dim}, plan_.value_dim,
                  {s_.output, plan_.value_dim},
                  [&](Index row, Index column) { return sees(row, columns.first + column); });
  }
  /// Whether a row's output has a part of a column's value: through the window, or through the
  /// slots once its token has entered.
  bool sees(Index row, Index column) const noexcept {
    const Columns seen = visible(row);
    const Index first = band_.column(call_.entering(chunk_, entering_.first));
    const Index last = band_.column(call_.entering(position(row)));
    return (plan_.window > 0 && column >= seen.first && column < seen.last) ||
           (entering_.first < entering_.count && column >= first && column <= last);
  }

  void store_output() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index token = call_.token(position(row)), g = row % plan_.group;
      const Acc normalizer = s_.softmax[row].normalizer();
      const Acc* output = s_.output + row * plan_.value_dim;
      T* o = out_.o.row(token, g);
      for (Index d = 0; d < call_.value_dim(); ++d) o[d] = static_cast<T>(output[d] * normalizer);
      if (out_.lse) *out_.lse.row(token, g) = s_.softmax[row].lse();
      if (out_.slot_share) *out_.slot_share.row(token, g) = s_.share[row] * normalizer;
    }
  }

  const ChunkedCall<Call>& call_;
  const HeadOutputs<T> out_;
  const ChunkPlan& plan_;
  ReadScratch<Acc> s_;
  FusedSoftmaxView<Acc, Arch> softmax_;
  PackedBand<Acc> band_;
  cpu::RowPrefetcher next_rows_;

  // The chunk that is being read.
  Chunk chunk_;
  SlotMemoryView<const Acc> slots_;
  bool reads_slots_ = false;
  cpu::EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
