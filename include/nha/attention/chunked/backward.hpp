// SPDX-License-Identifier: MIT
// ChunkBackward: back through the chunks of a call, by matrix products.
//
// A chunk's scores are computed again as chunk_read.hpp does, and so are the derivatives of the
// loss by the weights, the same products with d_output and values in place of queries and keys. The
// softmax turns both into d_logits, and every gradient is then a product with weights or d_logits:
// of queries with keys, of keys with queries, of values with d_output. The window's part is here,
// that of the slots in slot_backward.hpp.
#pragma once

#include <nha/attention/chunked/backward_band.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/row_prefetcher.hpp>
#include <nha/attention/chunked/rows.hpp>
#include <nha/attention/chunked/slot_backward.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/cpu/softmax_backward.hpp>

#include <algorithm>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Goes back through the chunks of a call, the newest first.
template <class Arch, class Call>
class ChunkBackward {
 public:
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;
  using Cotangents = typename Call::Cotangents;
  using Gradients = typename Call::Gradients;
  using Saved = typename Call::Saved;

  ChunkBackward(const Call& call, const BackwardPlan& plan, const Saved& saved,
                const Cotangents& cotangents, const Gradients& gradients,
                const BackwardScratch<Acc>& scratch) noexcept
      : call_(call),
        plan_(plan.chunks),
        saved_(saved),
        cotangents_(cotangents),
        gradients_(gradients),
        s_(scratch),
        slots_(call, plan, cotangents, gradients, scratch),
        band_(plan, s_.band, call.end),
        rows_{call},
        region_(plan.region),
        key_dim_(call.memory.slots.key_dim),
        value_dim_(call.memory.slots.value_dim),
        key_stride_(plan.padded_key_dim()) {}

  /// Loads the band for the chunks of [first, end).
  void load_region(std::int64_t first, std::int64_t end) noexcept { band_.load(call_, first, end); }

  /// Back through a chunk of the region, given the slots as of its start. `next` is the chunk that
  /// comes after it, an older one, if any: its rows are asked for meanwhile.
  void run(const Chunk& chunk, const SlotView& slots, const Chunk& next = {}) noexcept {
    rows_.chunk = chunk;
    ask_for(next);
    // Slots that nothing has entered are 0, and so is all that comes of them, but for the gradients
    // of the slots themselves.
    reads_slots_ = call_.slots_are_written(chunk) || (call_.has_slots() && slots_.wants_slots());
    pack_rows();
    if (reads_slots_) slots_.products(chunk, slots);
    if (call_.has_slots()) weigh_empty_slots();
    attend();
    if (reads_slots_) slots_.run(slots, band_, next_rows_);
  }

  /// Writes the gradients of the region's keys and values: nothing older reads them.
  void store_region(std::int64_t first, std::int64_t end) const noexcept {
    for (std::int64_t p = first; p < end; ++p) {
      const Index column = band_.column(p);
      rows_.store(gradients_.v, p, call_.head, band_.d_values(column), value_dim_);
      if (plan_.window > 0)
        rows_.store(gradients_.k_window, p, call_.head, band_.d_keys(column), key_dim_);
      else
        rows_.clear(gradients_.k_window, p, call_.head, key_dim_);
      // What enters the slots after the call has no gradient through them.
      if (p >= call_.end - plan_.slot_delay || !call_.has_slots()) {
        rows_.clear(gradients_.k_slot, p, call_.head, key_dim_);
        rows_.clear(gradients_.log_gate, p, call_.head, call_.memory.slots.slots);
        rows_.clear(gradients_.write, p, call_.head, call_.memory.slots.slots);
      }
    }
  }
  /// Writes the gradients of the slots at the beginning of the call.
  void store_slots() const noexcept { slots_.store(); }

 private:
  /// Lists the rows of a chunk that will be read, but for those that the pass over the slots has
  /// just read, and those of the gradients; of the window, what the next region's band will load.
  void ask_for(const Chunk& next) noexcept {
    next_rows_ = {};
    if (next.count == 0) return;
    const std::int64_t first = next.position, end = next.end();
    next_rows_.add(call_, cotangents_.o, first, end, plan_.group);
    if (plan_.window > 0) {
      next_rows_.add(call_, call_.in.q_window, first, end, plan_.group);
      next_rows_.add(call_, gradients_.q_window, first, end, plan_.group);
      next_rows_.add(call_, call_.in.k_window, first - region_, end - region_, 1);
      next_rows_.add(call_, call_.in.v, first - region_, end - region_, 1);
    }
    if (call_.slots_are_written(next)) {
      next_rows_.add(call_, call_.in.q_slot, first, end, plan_.group);
      next_rows_.add(call_, gradients_.q_slot, first, end, plan_.group);
      const std::int64_t entering = call_.entering(next, 0);
      next_rows_.add(call_, gradients_.k_slot, entering, entering + next.count, 1);
      next_rows_.add(call_, gradients_.log_gate, entering, entering + next.count, 1);
    }
  }

  void pack_rows() noexcept {
    for (Index row = 0; row < rows_.rows(); ++row) {
      if (reads_slots_)
        cpu::pack_scaled_row(rows_.query(call_.in.q_slot, row), key_dim_, call_.scale,
                             s_.q_slot + row * key_stride_);
      if (plan_.window > 0)
        cpu::pack_scaled_row(rows_.query(call_.in.q_window, row), key_dim_, call_.scale,
                             s_.q_window + row * key_stride_);
      cpu::pack_row<T>(rows_.query(cotangents_.o, row), value_dim_,
                       s_.d_output + row * plan_.value_dim);
    }
  }

  /// What the rule for empty slots does to the logits; padding never takes part.
  void weigh_empty_slots() noexcept {
    for (Index row = 0; row < rows_.rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      Acc* d_weights = s_.d_scores + row * plan_.row_stride();
      if (!reads_slots_) {
        std::fill_n(logits, Index{call_.memory.slots.slots}, Acc{0});
        std::fill_n(d_weights, plan_.slots, Acc{0});
      }
      const bool entered = call_.initial_slots || rows_.position(row) >= plan_.slot_delay;
      const bool take_part = entered || (call_.empty_slots == EmptySlots::participate);
      std::fill(logits + (take_part ? Index{call_.memory.slots.slots} : 0), logits + plan_.slots,
                -kInfinity<Acc>);
      const Acc d_share = rows_.number(cotangents_.slot_share, row);
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
    if (plan_.window > 0)
      band = {band_.column(std::max<std::int64_t>(rows_.chunk.position - plan_.window + 1, 0)) /
                  kRowPadding * kRowPadding,
              padded(band_.column(rows_.chunk.end()))};
    if (plan_.window > 0) std::fill_n(s_.d_query, rows_.rows() * key_stride_, Acc{0});
    if (band.size() <= plan_.block) {
      // Everything a row reads is there at once.
      if (band.size() > 0) window_scores(band);
      std::fill_n(s_.softmax, rows_.rows(), SoftmaxState<Acc>{});
      const Index width = plan_.slots + band.size();
      cpu::online_softmax_update<Arch>(rows_.rows(), s_.softmax, s_.scores, plan_.row_stride(),
                                       width, static_cast<Acc*>(nullptr));
      for (Index row = 0; row < rows_.rows(); ++row) {
        Acc* weights = s_.scores + row * plan_.row_stride();
        cpu::scale_row<Arch>(weights, width, s_.softmax[row].normalizer());
        s_.mean[row] = cpu::dot_row<Arch>(weights, s_.d_scores + row * plan_.row_stride(), width);
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
    for (Index row = 0; row < rows_.rows(); ++row) {
      if (plan_.window > 0)
        rows_.store(gradients_.q_window, rows_.position(row), rows_.query_head(row),
                    s_.d_query + row * key_stride_, key_dim_, call_.scale);
      else
        rows_.clear(gradients_.q_window, rows_.position(row), rows_.query_head(row), key_dim_);
      if (!reads_slots_)
        rows_.clear(gradients_.q_slot, rows_.position(row), rows_.query_head(row), key_dim_);
    }
  }

  /// lse and mean of every row, where the window is too long to keep its weights: as the forward
  /// pass has left them, or computed again block by block.
  void row_statistics(Columns band) noexcept {
    const bool share_given = cotangents_.slot_share.data() == nullptr || plan_.slots == 0 ||
                             saved_.slot_share.data() != nullptr;
    if (saved_.o.data() != nullptr && saved_.lse.data() != nullptr && share_given) {
      for (Index row = 0; row < rows_.rows(); ++row) {
        const T* o = rows_.query(saved_.o, row);
        const Acc* d_o = s_.d_output + row * plan_.value_dim;
        Acc mean = rows_.number(cotangents_.slot_share, row) * rows_.number(saved_.slot_share, row);
        for (Index d = 0; d < value_dim_; ++d) mean += widen(o[d]) * d_o[d];
        s_.lse[row] = rows_.number(saved_.lse, row);
        s_.mean[row] = mean;
      }
      return;
    }
    std::fill_n(s_.softmax, rows_.rows(), SoftmaxState<Acc>{});
    std::fill_n(s_.mean, rows_.rows(), Acc{0});
    // The slots' logits are needed again: their weights go where d_logits of a block will be.
    Acc* weights = s_.scores + plan_.slots;
    Acc* d_weights = s_.d_scores + plan_.slots;
    const Index stride = plan_.row_stride();
    for (Index row = 0; row < rows_.rows(); ++row) {
      std::copy_n(s_.scores + row * stride, plan_.slots, weights + row * stride);
      std::copy_n(s_.d_scores + row * stride, plan_.slots, d_weights + row * stride);
    }
    add_to_statistics(plan_.slots);
    for (Index at = band.first; at < band.last; at += plan_.block) {
      const Columns block{at, std::min(at + plan_.block, band.last)};
      window_scores(block);
      add_to_statistics(block.size());
    }
    for (Index row = 0; row < rows_.rows(); ++row) {
      s_.lse[row] = s_.softmax[row].lse();
      s_.mean[row] *= s_.softmax[row].normalizer();
    }
  }
  void add_to_statistics(Index count) noexcept {
    for (Index row = 0; row < rows_.rows(); ++row) {
      Acc* weights = s_.scores + row * plan_.row_stride() + plan_.slots;
      const Acc kept = cpu::online_softmax_update<Arch>(s_.softmax[row], weights, count);
      s_.mean[row] =
          s_.mean[row] * kept +
          cpu::dot_row<Arch>(weights, s_.d_scores + row * plan_.row_stride() + plan_.slots, count);
    }
  }
  void weigh(Index from, Index count) noexcept {
    for (Index row = 0; row < rows_.rows(); ++row)
      cpu::weigh_row<Arch>(s_.scores + row * plan_.row_stride() + from, count, s_.lse[row]);
  }
  /// d_scores become d_logits, for `count` columns of the rows.
  void back_through_softmax(Index from, Index count) noexcept {
    for (Index row = 0; row < rows_.rows(); ++row) {
      const Index at = row * plan_.row_stride() + from;
      if (from == 0 && reads_slots_) slots_.keep_d_values(row);
      cpu::softmax_backward_row<Arch>(s_.scores + at, s_.d_scores + at, count,
                                      rows_.number(cotangents_.lse, row) - s_.mean[row]);
    }
  }

  /// Scores and derivatives by the weights for some columns; outside a row's window the scores are
  /// -infinity and the others 0.
  void window_scores(Columns columns) noexcept {
    const Index stride = plan_.row_stride();
    Acc* scores = s_.scores + plan_.slots;
    Acc* d_scores = s_.d_scores + plan_.slots;
    cpu::gemm<Arch>(rows_.rows(), columns.size(), key_dim_,
                    cpu::Rows<Acc>{s_.q_window, key_stride_}, band_.key_panels(columns.first),
                    scores, stride, cpu::StartAtZero(), next_rows_);
    cpu::gemm<Arch>(rows_.rows(), columns.size(), value_dim_,
                    cpu::Rows<Acc>{s_.d_output, plan_.value_dim},
                    band_.value_panels(columns.first, value_dim_), d_scores, stride,
                    cpu::StartAtZero(), next_rows_);
    const Index size = columns.size();
    for (Index row = 0; row < rows_.rows(); ++row) {
      const std::int64_t position = rows_.position(row);
      const std::int64_t oldest = std::max<std::int64_t>(position - plan_.window + 1, 0);
      const Index from = std::clamp<Index>(band_.column(oldest) - columns.first, 0, size);
      const Index to = std::clamp<Index>(band_.column(position + 1) - columns.first, 0, size);
      Acc* at = scores + row * stride;
      Acc* d_at = d_scores + row * stride;
      std::fill(at, at + from, -kInfinity<Acc>);
      std::fill(at + to, at + size, -kInfinity<Acc>);
      std::fill(d_at, d_at + from, Acc{0});
      std::fill(d_at + to, d_at + size, Acc{0});
    }
  }

  /// d_query, d_keys and d_values of some columns of the window.
  void back_through_window(Columns columns) noexcept {
    const Index stride = plan_.row_stride();
    const Index used = std::min(columns.last, band_.size()) - columns.first;
    const Acc* weights = s_.scores + plan_.slots;
    const Acc* d_logits = s_.d_scores + plan_.slots;
    cpu::gemm<Arch>(rows_.rows(), key_stride_, used, cpu::Rows<Acc>{d_logits, stride},
                    band_.keys(columns.first), s_.d_query, key_stride_, cpu::Accumulate(),
                    next_rows_);
    cpu::gemm<Arch>(used, key_stride_, rows_.rows(), cpu::Transposed<Acc>{d_logits, stride},
                    cpu::row_major<Acc>(s_.q_window, key_stride_), band_.d_keys(columns.first),
                    key_stride_, cpu::Accumulate(), next_rows_);
    cpu::gemm<Arch>(used, plan_.value_dim, rows_.rows(), cpu::Transposed<Acc>{weights, stride},
                    cpu::row_major<Acc>(s_.d_output, plan_.value_dim),
                    band_.d_values(columns.first), plan_.value_dim, cpu::Accumulate(), next_rows_);
  }

  const Call& call_;
  const ChunkPlan& plan_;
  const Saved& saved_;
  const Cotangents& cotangents_;
  const Gradients& gradients_;
  BackwardScratch<Acc> s_;
  SlotBackward<Arch, Call> slots_;
  BackwardBand<Acc> band_;
  ChunkRows<Call> rows_;
  RowPrefetcher next_rows_;
  Index region_;  // tokens
  Index key_dim_;
  Index value_dim_;
  Index key_stride_;
  bool reads_slots_ = false;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
