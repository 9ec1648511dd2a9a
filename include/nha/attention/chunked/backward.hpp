// SPDX-License-Identifier: MIT
// ChunkBackward: back through the chunks of a call, by matrix products.
//
// A chunk's scores are computed again as read.hpp does, and so are the derivatives of the loss by
// the weights: the same products with d_output and values in place of queries and keys. The softmax
// turns both into d_logits. Every gradient is then a product with weights or d_logits: of queries
// with keys, of keys with queries, of values with d_output. The window's half is here, that of the
// slots in slot_backward.hpp.
#pragma once

#include <nha/attention/chunked/backward_band.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/rows.hpp>
#include <nha/attention/chunked/seen_products.hpp>
#include <nha/attention/chunked/slot_backward.hpp>
#include <nha/attention/fused_softmax.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/cpu/softmax_backward.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Goes back through the chunks of a call, the newest first.
template <class Arch, class Call>
class ChunkBackward {
 public:
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;

  ChunkBackward(const ChunkedCall<Call>& call, const BackwardPlan& plan, const HeadSaved<T>& saved,
                const HeadCotangents<T>& cotangents, const HeadGradients<T>& gradients,
                const BackwardScratch<Acc>& scratch) noexcept
      : call_(call),
        plan_(plan.chunks),
        saved_(saved),
        gradients_(gradients),
        s_(scratch.window),
        rows_{call, cotangents, scratch.rows},
        softmax_{scratch.rows.scores, plan_.row_stride(), call.slots(), s_.softmax},
        slots_(call, cotangents, gradients, scratch.slots),
        band_(plan, s_.band, call.end),
        region_(plan.region) {}

  /// Loads the band for the chunks of [first, end).
  void load_region(std::int64_t first, std::int64_t end) noexcept { band_.load(call_, first, end); }

  /// Back through a chunk of the region, given the slots as of its start. `next` is the chunk that
  /// comes after it, an older one, if any: its rows are prefetched meanwhile.
  void run(const Chunk& chunk, const SlotMemoryView<const Acc>& slots,
           const Chunk& next = {}) noexcept {
    prefetch(next);
    // Slots that nothing has entered are 0, and so is all that comes of them, but for the gradients
    // of the slots themselves.
    rows_.pack(chunk, call_.slots() > 0);
    reads_slots_ = call_.slots_are_written(chunk) ||
                   (call_.slots() > 0 && (slots_.wants_slots() || !rows_.finite));
    if (reads_slots_) slots_.products(rows_, slots);
    if (call_.slots() > 0) apply_rule();
    attend();
    if (reads_slots_) slots_.run(rows_, slots, band_, next_rows_);
  }

  /// Writes the gradients of the region's keys and values: nothing older reads them.
  void store_region(std::int64_t first, std::int64_t end) const noexcept {
    for (std::int64_t p = first; p < end; ++p) {
      const Index column = band_.column(p), token = call_.token(p);
      gradients_.store(gradients_.v, token, 0, band_.d_values(column), call_.value_dim());
      if (call_.window > 0)
        gradients_.store(gradients_.k_window, token, 0, band_.d_keys(column), call_.key_dim());
      else
        gradients_.clear(gradients_.k_window, token, 0, call_.key_dim());
      // What enters the slots after the call has no gradient through them.
      if (p >= call_.end - call_.slot_delay || call_.slots() == 0) {
        gradients_.clear(gradients_.k_slot, token, 0, call_.key_dim());
        gradients_.clear(gradients_.log_gate, token, 0, call_.slots());
        gradients_.clear(gradients_.write, token, 0, call_.slots());
      }
    }
  }
  /// Writes the gradients of the slots at the beginning of the call.
  void store_slots() const noexcept { slots_.store(); }

 private:
  /// Lists the rows of a chunk that will be read, but for those that the pass over the slots has
  /// just read, and those of the gradients. Of the window, those that the next region's band will
  /// load.
  void prefetch(const Chunk& next) noexcept {
    next_rows_ = {};
    if (next.count == 0) return;
    const std::int64_t first = next.position, end = next.end();
    const Index keys = call_.key_dim(), values = call_.value_dim();
    call_.list_rows(next_rows_, rows_.cotangents.o, first, end, plan_.group, values);
    if (call_.window > 0) {
      call_.list_rows(next_rows_, call_.q_window, first, end, plan_.group, keys);
      call_.list_rows(next_rows_, gradients_.q_window, first, end, plan_.group, keys);
      call_.list_rows(next_rows_, call_.k_window, first - region_, end - region_, 1, keys);
      call_.list_rows(next_rows_, call_.v, first - region_, end - region_, 1, values);
    }
    if (call_.slots_are_written(next)) {
      call_.list_rows(next_rows_, call_.q_slot, first, end, plan_.group, keys);
      call_.list_rows(next_rows_, gradients_.q_slot, first, end, plan_.group, keys);
      const std::int64_t entering = call_.entering(next, 0), last = entering + next.count;
      call_.list_rows(next_rows_, gradients_.k_slot, entering, last, 1, keys);
      call_.list_rows(next_rows_, gradients_.log_gate, entering, last, 1, call_.slots());
    }
  }

  /// What the rule for empty slots does to the logits; padding never takes part.
  void apply_rule() noexcept {
    for (Index row = 0; row < rows_.count(); ++row) {
      Acc* d_weights = rows_.d_scores(row);
      if (!reads_slots_) {
        std::fill_n(softmax_.slot_scores(row), call_.slots(), Acc{0});
        std::fill_n(d_weights, plan_.slots, Acc{0});
      }
      softmax_.hide_slots(row, call_.slots_take_part(rows_.position(row)));
      const Acc d_share = rows_.number(rows_.cotangents.slot_share, row);
      for (Index m = 0; m < plan_.slots; ++m) d_weights[m] += d_share;
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
    Columns band{0, 0};
    if (call_.window > 0) {
      band = {band_.column(call_.oldest_visible(rows_.chunk.position)) / kRowPadding * kRowPadding,
              padded(band_.column(rows_.chunk.end()))};
      std::fill_n(s_.d_query, rows_.count() * rows_.key_stride(), Acc{0});
    }
    if (band.size() <= plan_.block) {
      // Everything a row reads is there at once.
      if (band.size() > 0) window_scores(band);
      softmax_.weigh(rows_.count(), band.size());
      const Index width = plan_.slots + band.size();
      for (Index row = 0; row < rows_.count(); ++row) {
        softmax_.normalize(row, band.size());
        s_.mean[row] = cpu::dot_row<Arch>(rows_.scores(row), rows_.d_scores(row), width);
      }
      back_through_softmax(0, width);
      if (band.size() > 0) back_through_window(band);
    } else {
      row_statistics(band);
      weigh(0, plan_.slots);
      back_through_softmax(0, plan_.slots);
      for (Index at = band.first; at < band.last; at += plan_.block) {
        const Columns block{at, std::min(at + plan_.block, band.last)};
        window_scores(block);
        weigh(plan_.slots, block.size());
        back_through_softmax(plan_.slots, block.size());
        back_through_window(block);
      }
    }
    for (Index row = 0; row < rows_.count(); ++row) {
      const Index token = rows_.call_token(row), head = rows_.head(row);
      if (call_.window > 0)
        gradients_.store(gradients_.q_window, token, head, s_.d_query + row * rows_.key_stride(),
                         call_.key_dim(), call_.softmax_scale);
      else
        gradients_.clear(gradients_.q_window, token, head, call_.key_dim());
      if (!reads_slots_) gradients_.clear(gradients_.q_slot, token, head, call_.key_dim());
    }
  }

  /// lse and mean of every row, where the window is too long to keep its weights: as the forward
  /// pass has left them, or computed again block by block.
  void row_statistics(Columns band) noexcept {
    const auto& d_share = rows_.cotangents.slot_share;
    const bool share_given = !d_share || plan_.slots == 0 || saved_.slot_share;
    if (saved_.o && saved_.lse && share_given) {
      for (Index row = 0; row < rows_.count(); ++row) {
        const T* o = saved_.o.row(rows_.call_token(row), rows_.head(row));
        const Acc* d_o = rows_.s.d_output + row * rows_.value_stride();
        Acc mean = rows_.number(d_share, row) * rows_.number(saved_.slot_share, row);
        for (Index d = 0; d < call_.value_dim(); ++d) mean += widen(o[d]) * d_o[d];
        s_.lse[row] = rows_.number(saved_.lse, row);
        s_.mean[row] = mean;
      }
      return;
    }
    std::fill_n(s_.softmax, rows_.count(), SoftmaxState<Acc>{});
    std::fill_n(s_.mean, rows_.count(), Acc{0});
    // The slots' logits are needed again: their weights go where d_logits of a block will be.
    for (Index row = 0; row < rows_.count(); ++row) {
      std::copy_n(rows_.scores(row), plan_.slots, rows_.scores(row) + plan_.slots);
      std::copy_n(rows_.d_scores(row), plan_.slots, rows_.d_scores(row) + plan_.slots);
    }
    add_to_statistics(plan_.slots);
    for (Index at = band.first; at < band.last; at += plan_.block) {
      const Columns block{at, std::min(at + plan_.block, band.last)};
      window_scores(block);
      add_to_statistics(block.size());
    }
    for (Index row = 0; row < rows_.count(); ++row) {
      s_.lse[row] = s_.softmax[row].lse();
      s_.mean[row] *= s_.softmax[row].normalizer();
    }
  }
  void add_to_statistics(Index count) noexcept {
    for (Index row = 0; row < rows_.count(); ++row) {
      Acc* weights = rows_.scores(row) + plan_.slots;
      const Acc kept = cpu::online_softmax_update<Arch>(s_.softmax[row], weights, count);
      s_.mean[row] = s_.mean[row] * kept +
                     cpu::dot_row<Arch>(weights, rows_.d_scores(row) + plan_.slots, count);
    }
  }
  void weigh(Index from, Index count) noexcept {
    for (Index row = 0; row < rows_.count(); ++row)
      cpu::weigh_row<Arch>(rows_.scores(row) + from, count, s_.lse[row]);
  }
  /// d_scores become d_logits, for `count` columns of the rows.
  NHA_NOINLINE void back_through_softmax(Index from, Index count) noexcept {
    for (Index row = 0; row < rows_.count(); ++row) {
      if (from == 0 && reads_slots_) slots_.keep_d_values(rows_, row);
      const Acc shift = rows_.number(rows_.cotangents.lse, row) - s_.mean[row];
      // Then 0 times it, for what the row does not see, is not 0.
      if (!std::isfinite(shift)) rows_.finite = false;
      cpu::softmax_backward_row<Arch>(rows_.scores(row) + from, rows_.d_scores(row) + from, count,
                                      shift);
    }
  }

  /// Scores and derivatives by the weights for some columns; outside a row's window the scores are
  /// -infinity and the others 0.
  NHA_NOINLINE void window_scores(Columns columns) noexcept {
    const Index stride = plan_.row_stride(), size = columns.size();
    cpu::gemm<Arch>(rows_.count(), size, call_.key_dim(),
                    cpu::Rows<Acc>{rows_.s.q_window, rows_.key_stride()},
                    band_.key_panels(columns.first), rows_.scores(0) + plan_.slots, stride,
                    cpu::StartAtZero(), &next_rows_);
    cpu::gemm<Arch>(rows_.count(), size, call_.value_dim(),
                    cpu::Rows<Acc>{rows_.s.d_output, rows_.value_stride()},
                    band_.value_panels(columns.first, call_.value_dim()),
                    rows_.d_scores(0) + plan_.slots, stride, cpu::StartAtZero(), &next_rows_);
    for (Index row = 0; row < rows_.count(); ++row) {
      const Columns seen = visible(row, columns);
      softmax_.hide_columns(row, seen.first, seen.last, size);
      Acc* d_at = rows_.d_scores(row) + plan_.slots;
      std::fill(d_at, d_at + seen.first, Acc{0});
      std::fill(d_at + seen.last, d_at + size, Acc{0});
    }
  }
  /// Of some columns those that a row sees, counted from the first of them.
  Columns visible(Index row, Columns columns) const noexcept {
    const std::int64_t position = rows_.position(row);
    const auto inside = [&](std::int64_t at) {
      return std::clamp<Index>(band_.column(at) - columns.first, 0, columns.size());
    };
    return {inside(call_.oldest_visible(position)), inside(position + 1)};
  }

  /// d_query, d_keys and d_values of some columns of the window.
  NHA_NOINLINE void back_through_window(Columns columns) noexcept {
    const Index stride = plan_.row_stride(), keys = rows_.key_stride();
    const Index used = std::min(columns.last, band_.size()) - columns.first;
    const Acc* weights = rows_.scores(0) + plan_.slots;
    const Acc* d_logits = rows_.d_scores(0) + plan_.slots;
    if (!rows_.finite || !band_.is_finite()) {
      const auto sees = [&](Index row, Index column) {
        const Columns seen = visible(row, columns);
        return column >= seen.first && column < seen.last;
      };
      add_seen<Acc>(rows_.count(), used, {d_logits, stride}, {band_.keys(columns.first).data, keys},
                    keys, {s_.d_query, keys}, sees);
      add_to_seen<Acc>(rows_.count(), used, {d_logits, stride}, {rows_.s.q_window, keys}, keys,
                       {band_.d_keys(columns.first), keys}, sees);
      add_to_seen<Acc>(rows_.count(), used, {weights, stride}, {rows_.s.d_output, plan_.value_dim},
                       plan_.value_dim, {band_.d_values(columns.first), plan_.value_dim}, sees);
      return;
    }
    cpu::gemm<Arch>(rows_.count(), keys, used, cpu::Rows<Acc>{d_logits, stride},
                    band_.keys(columns.first), s_.d_query, keys, cpu::Accumulate(), &next_rows_);
    cpu::gemm<Arch>(used, keys, rows_.count(), cpu::Transposed<Acc>{d_logits, stride},
                    cpu::row_major<Acc>(rows_.s.q_window, keys), band_.d_keys(columns.first), keys,
                    cpu::Accumulate(), &next_rows_);
    cpu::gemm<Arch>(used, plan_.value_dim, rows_.count(), cpu::Transposed<Acc>{weights, stride},
                    cpu::row_major<Acc>(rows_.s.d_output, plan_.value_dim),
                    band_.d_values(columns.first), plan_.value_dim, cpu::Accumulate(), &next_rows_);
  }

  const ChunkedCall<Call>& call_;
  const ChunkPlan& plan_;
  const HeadSaved<T>& saved_;
  const HeadGradients<T>& gradients_;
  WindowBackwardScratch<Acc> s_;
  BackwardRows<Call> rows_;
  FusedSoftmaxView<Acc, Arch> softmax_;
  SlotBackward<Arch, Call> slots_;
  BackwardBand<Acc> band_;
  cpu::RowPrefetcher next_rows_;
  Index region_;  // tokens
  bool reads_slots_ = false;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
