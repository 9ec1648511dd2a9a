// SPDX-License-Identifier: MIT
// ChunkBackward: back through what the queries of a chunk read and what its tokens did to the
// slots, by matrix products.
//
// The chunk's logits are computed again from the slots as of its start (as chunk_read.hpp does) and
// so are the derivatives of the loss by the weights, which are products with the values in place of
// the keys. The softmax turns both into d_logits, and every gradient is then a product with weights
// or d_logits: of queries with keys, of keys with queries, of values with d_output. What goes
// through the decays inside the chunk is in cpu/decay.hpp and cpu/decay_backward.hpp.
#pragma once

#include <nha/attention/backward_band.hpp>
#include <nha/attention/backward_plan.hpp>
#include <nha/attention/chunk_call.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/decay_backward.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/cpu/softmax_backward.hpp>

#include <algorithm>
#include <array>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Goes back through the chunks of a call, the newest first.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots>
class ChunkBackward {
 public:
  using Call = ChunkCall<T, KeyDim, ValueDim, Slots>;
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;
  using Cotangents = AttentionCotangents<T, ValueDim>;
  using Gradients = AttentionGradients<T, KeyDim, ValueDim, Slots>;
  using Saved = AttentionSaved<T, ValueDim>;

  ChunkBackward(const Call& call, const BackwardPlan& plan, const Saved& saved,
                const Cotangents& cotangents, const Gradients& gradients,
                const BackwardScratch<Acc>& scratch) noexcept
      : call_(call),
        plan_(plan.chunks),
        saved_(saved),
        cotangents_(cotangents),
        gradients_(gradients),
        s_(scratch),
        band_(plan, s_.band, call.end),
        key_dim_(call.memory.slots.key_dim),
        value_dim_(call.memory.slots.value_dim),
        key_stride_(plan.padded_key_dim()),
        by_mass_(call.empty_slots == EmptySlots::mass_corrected) {
    begin_with_final_slots();
  }

  /// Loads the band for the chunks of [first, end).
  void load_region(std::int64_t first, std::int64_t end) noexcept { band_.load(call_, first, end); }

  /// Back through a chunk of the region, given the slots as of its start.
  void run(const Chunk& chunk, const SlotView& slots) noexcept {
    chunk_ = chunk;
    // Slots that nothing has entered are 0, and so is all that comes of them, but for the gradients
    // of the slots themselves.
    reads_slots_ = call_.slots_are_written(chunk) || (call_.has_slots() && wants_slots());
    pack_rows();
    if (reads_slots_) slot_products(slots);
    if (call_.has_slots()) weigh_empty_slots();
    attend();
    if (reads_slots_) back_through_slots(slots);
  }

  /// Writes the gradients of the region's keys and values: nothing older reads them.
  void store_region(std::int64_t first, std::int64_t end) const noexcept {
    for (std::int64_t p = first; p < end; ++p) {
      const Index column = band_.column(p);
      store(gradients_.v, p, call_.head, band_.d_values(column), value_dim_, Acc{1});
      if (plan_.window > 0)
        store(gradients_.k_window, p, call_.head, band_.d_keys(column), key_dim_, Acc{1});
      else
        clear(gradients_.k_window, p, call_.head, key_dim_);
      // What enters the slots after the call has no gradient through them.
      if (p >= call_.end - plan_.slot_delay || !call_.has_slots()) {
        clear(gradients_.k_slot, p, call_.head, key_dim_);
        clear(gradients_.log_gate, p, call_.head, call_.memory.slots.slots);
        clear(gradients_.write, p, call_.head, call_.memory.slots.slots);
      }
    }
  }

  /// Writes the gradients of the slots at the beginning of the call.
  void store_slots() const noexcept {
    const Index n = call_.sequence, h = call_.head;
    for (Index m = 0; m < call_.memory.slots.slots; ++m) {
      if (gradients_.slot_k.data() != nullptr)
        std::copy_n(s_.d_slot_keys + m * key_stride_, key_dim_, &gradients_.slot_k(n, h, m, 0));
      if (gradients_.slot_v.data() != nullptr)
        std::copy_n(s_.d_slot_values + m * plan_.value_dim, value_dim_,
                    &gradients_.slot_v(n, h, m, 0));
      if (gradients_.mass.data() != nullptr) gradients_.mass(n, h, m) = s_.d_slot_mass[m];
    }
  }

 private:
  bool wants_slots() const noexcept {
    return gradients_.slot_k.data() != nullptr || gradients_.slot_v.data() != nullptr ||
           gradients_.mass.data() != nullptr;
  }
  Index rows() const noexcept { return chunk_.count * plan_.group; }
  std::int64_t position_of(Index row) const noexcept { return chunk_.position + row / plan_.group; }
  Index query_head(Index row) const noexcept {
    return call_.head * plan_.group + row % plan_.group;
  }
  /// A number that came back for each query, 0 where it was left out.
  Acc of_query(const auto& view, Index row) const noexcept {
    return view.data() == nullptr
               ? Acc{0}
               : view(call_.span.row, call_.token_of(position_of(row)), query_head(row));
  }

  void begin_with_final_slots() noexcept {
    std::fill_n(s_.d_slot_keys, plan_.slots * key_stride_, Acc{0});
    std::fill_n(s_.d_slot_values, plan_.slots * plan_.value_dim, Acc{0});
    std::fill_n(s_.d_slot_mass, plan_.slots, Acc{0});
    const Index n = call_.sequence, h = call_.head;
    for (Index m = 0; m < call_.memory.slots.slots; ++m) {
      if (cotangents_.slot_k.data() != nullptr)
        std::copy_n(&cotangents_.slot_k(n, h, m, 0), key_dim_, s_.d_slot_keys + m * key_stride_);
      if (cotangents_.slot_v.data() != nullptr)
        std::copy_n(&cotangents_.slot_v(n, h, m, 0), value_dim_,
                    s_.d_slot_values + m * plan_.value_dim);
      if (cotangents_.mass.data() != nullptr) s_.d_slot_mass[m] = cotangents_.mass(n, h, m);
    }
  }

  void pack_rows() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index token = call_.token_of(position_of(row));
      if (reads_slots_)
        pack_scaled_row(&call_.in.q_slot(call_.span.row, token, query_head(row), 0), key_dim_,
                        call_.scale, s_.q_slot + row * key_stride_);
      if (plan_.window > 0)
        pack_scaled_row(&call_.in.q_window(call_.span.row, token, query_head(row), 0), key_dim_,
                        call_.scale, s_.q_window + row * key_stride_);
      pack_row<T>(&cotangents_.o(call_.span.row, token, query_head(row), 0), value_dim_,
                  s_.d_output + row * plan_.value_dim);
    }
  }

  // Slots.

  /// Logits over the slots and the derivatives by their weights, as each row sees them, into the
  /// front of scores and d_scores.
  void slot_products(const SlotView& slots) noexcept {
    entering_ = call_.template entering_gates<Arch>(chunk_, s_.retention, s_.write);
    const Index first = entering_.first;
    const auto key_at = [&](Index i) { return call_.slot_key(call_.entering(chunk_, first + i)); };
    const auto value_at = [&](Index i) { return call_.value(call_.entering(chunk_, first + i)); };
    const Index entering = entering_.count - first;
    pack_key_columns<T>(entering, key_at, key_dim_, first, s_.key_panels);
    pack_key_columns<T>(entering, value_at, value_dim_, first, s_.value_panels);
    for (Index i = 0; i < entering; ++i)
      pack_row<T>(key_at(i), key_dim_, s_.entering_keys + (first + i) * key_stride_);

    transpose(slots.key, key_dim_, plan_.slots, slots.key_stride(), s_.slot_keys, key_stride_);
    transpose(slots.value, slots.slots, value_dim_, slots.value_stride(), s_.slot_values,
              plan_.slots);
    slot_product({s_.q_slot, key_stride_}, key_dim_, row_major<Acc>(slots.key, plan_.slots),
                 key_panels(), s_.start_logits, s_.key_pairs, s_.scores);
    slot_product({s_.d_output, plan_.value_dim}, value_dim_,
                 row_major<Acc>(s_.slot_values, plan_.slots), value_panels(), s_.start_values,
                 s_.value_pairs, s_.d_scores);
    if (by_mass_) correct_by_mass(slots);
  }
  RightOperand<Acc> key_panels() const noexcept {
    return {s_.key_panels, key_dim_ * kRowPadding, kRowPadding};
  }
  RightOperand<Acc> value_panels() const noexcept {
    return {s_.value_panels, value_dim_ * kRowPadding, kRowPadding};
  }
  void slot_product(const Rows<Acc>& left, Index depth, const RightOperand<Acc>& at_start,
                    const RightOperand<Acc>& entering, Acc* start, Acc* pairs,
                    Acc* seen) const noexcept {
    const Index pair_stride = padded(plan_.chunk);
    gemm<Arch>(rows(), plan_.slots, depth, left, at_start, start, plan_.slots, StartAtZero());
    gemm<Arch>(rows(), padded(chunk_.count), depth, left, entering, pairs, pair_stride,
               StartAtZero());
    for (Index row = 0; row < rows(); ++row)
      std::copy_n(start + row * plan_.slots, plan_.slots, seen + row * plan_.row_stride());
    decay_logits<Arch>(entering_, plan_.group, pairs, pair_stride, seen, plan_.row_stride());
  }

  /// Slots as weighted means: logit / mass + log(mass) and value / mass, none where the mass is 0.
  void correct_by_mass(const SlotView& slots) noexcept {
    decay_mass(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      Acc* d_weights = s_.d_scores + row * plan_.row_stride();
      Acc* products = s_.products + row * plan_.slots;
      const Index at = row / plan_.group * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m) {
        products[m] = logits[m] * s_.inverse_mass[at + m];
        logits[m] = products[m] + s_.log_mass[at + m];
        d_weights[m] *= s_.inverse_mass[at + m];
      }
    }
  }

  /// What the rule for empty slots does to the logits; padding never takes part.
  void weigh_empty_slots() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      Acc* d_weights = s_.d_scores + row * plan_.row_stride();
      if (!reads_slots_) {
        std::fill_n(logits, Index{call_.memory.slots.slots}, Acc{0});
        std::fill_n(d_weights, plan_.slots, Acc{0});
      }
      const bool entered = call_.initial_slots || position_of(row) >= plan_.slot_delay;
      const bool take_part = entered || (call_.empty_slots == EmptySlots::participate);
      std::fill(logits + (take_part ? Index{call_.memory.slots.slots} : 0), logits + plan_.slots,
                -kInfinity<Acc>);
      const Acc d_share = of_query(cotangents_.slot_share, row);
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
      band = {band_.column(std::max<std::int64_t>(chunk_.position - plan_.window + 1, 0)) /
                  kRowPadding * kRowPadding,
              padded(band_.column(chunk_.end()))};
    if (plan_.window > 0) std::fill_n(s_.d_query, rows() * key_stride_, Acc{0});
    if (band.size() <= plan_.block) {
      // Everything a row reads is there at once.
      if (band.size() > 0) window_scores(band);
      std::fill_n(s_.softmax, rows(), SoftmaxState<Acc>{});
      const Index width = plan_.slots + band.size();
      absorb<Arch>(rows(), s_.softmax, s_.scores, plan_.row_stride(), width,
                   static_cast<Acc*>(nullptr));
      for (Index row = 0; row < rows(); ++row) {
        Acc* weights = s_.scores + row * plan_.row_stride();
        scale_row<Arch>(weights, width, s_.softmax[row].normalizer());
        s_.mean[row] = dot_row<Arch>(weights, s_.d_scores + row * plan_.row_stride(), width);
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
    for (Index row = 0; row < rows(); ++row) {
      if (plan_.window > 0)
        store(gradients_.q_window, position_of(row), query_head(row),
              s_.d_query + row * key_stride_, key_dim_, call_.scale);
      else
        clear(gradients_.q_window, position_of(row), query_head(row), key_dim_);
      if (!reads_slots_) clear(gradients_.q_slot, position_of(row), query_head(row), key_dim_);
    }
  }

  /// lse and mean of every row, where the window is too long to keep its weights: as the forward
  /// pass has left them, or computed again block by block.
  void row_statistics(Columns band) noexcept {
    const bool share_given = cotangents_.slot_share.data() == nullptr || plan_.slots == 0 ||
                             saved_.slot_share.data() != nullptr;
    if (saved_.o.data() != nullptr && saved_.lse.data() != nullptr && share_given) {
      for (Index row = 0; row < rows(); ++row) {
        const Index token = call_.token_of(position_of(row));
        const T* o = &saved_.o(call_.span.row, token, query_head(row), 0);
        const Acc* d_o = s_.d_output + row * plan_.value_dim;
        Acc mean = of_query(cotangents_.slot_share, row) * of_query(saved_.slot_share, row);
        for (Index d = 0; d < value_dim_; ++d) mean += widen(o[d]) * d_o[d];
        s_.lse[row] = of_query(saved_.lse, row);
        s_.mean[row] = mean;
      }
      return;
    }
    std::fill_n(s_.softmax, rows(), SoftmaxState<Acc>{});
    std::fill_n(s_.mean, rows(), Acc{0});
    // The slots' logits are needed again: their weights go where d_logits of a block will be.
    Acc* weights = s_.scores + plan_.slots;
    Acc* d_weights = s_.d_scores + plan_.slots;
    const Index stride = plan_.row_stride();
    for (Index row = 0; row < rows(); ++row) {
      std::copy_n(s_.scores + row * stride, plan_.slots, weights + row * stride);
      std::copy_n(s_.d_scores + row * stride, plan_.slots, d_weights + row * stride);
    }
    add_to_statistics(plan_.slots);
    for (Index at = band.first; at < band.last; at += plan_.block) {
      const Columns block{at, std::min(at + plan_.block, band.last)};
      window_scores(block);
      add_to_statistics(block.size());
    }
    for (Index row = 0; row < rows(); ++row) {
      s_.lse[row] = s_.softmax[row].lse();
      s_.mean[row] *= s_.softmax[row].normalizer();
    }
  }
  void add_to_statistics(Index count) noexcept {
    for (Index row = 0; row < rows(); ++row) {
      Acc* weights = s_.scores + row * plan_.row_stride() + plan_.slots;
      const Acc kept = absorb<Arch>(s_.softmax[row], weights, count);
      s_.mean[row] =
          s_.mean[row] * kept +
          dot_row<Arch>(weights, s_.d_scores + row * plan_.row_stride() + plan_.slots, count);
    }
  }
  void weigh(Index from, Index count) noexcept {
    for (Index row = 0; row < rows(); ++row)
      weigh_row<Arch>(s_.scores + row * plan_.row_stride() + from, count, s_.lse[row]);
  }
  /// d_scores become d_logits, for `count` columns of the rows.
  void back_through_softmax(Index from, Index count) noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index at = row * plan_.row_stride() + from;
      if (by_mass_ && from == 0 && reads_slots_) d_mass_of_value(row);
      softmax_backward_row<Arch>(s_.scores + at, s_.d_scores + at, count,
                                 of_query(cotangents_.lse, row) - s_.mean[row]);
    }
  }

  /// Scores and derivatives by the weights for some columns; outside a row's window the scores are
  /// -infinity and the others 0.
  void window_scores(Columns columns) noexcept {
    const Index stride = plan_.row_stride();
    Acc* scores = s_.scores + plan_.slots;
    Acc* d_scores = s_.d_scores + plan_.slots;
    gemm<Arch>(rows(), columns.size(), key_dim_, Rows<Acc>{s_.q_window, key_stride_},
               band_.key_panels(columns.first), scores, stride, StartAtZero());
    gemm<Arch>(rows(), columns.size(), value_dim_, Rows<Acc>{s_.d_output, plan_.value_dim},
               band_.value_panels(columns.first, value_dim_), d_scores, stride, StartAtZero());
    const Index size = columns.size();
    for (Index row = 0; row < rows(); ++row) {
      const std::int64_t position = position_of(row);
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
    gemm<Arch>(rows(), key_stride_, used, Rows<Acc>{d_logits, stride}, band_.keys(columns.first),
               s_.d_query, key_stride_, Accumulate());
    gemm<Arch>(used, key_stride_, rows(), Transposed<Acc>{d_logits, stride},
               row_major<Acc>(s_.q_window, key_stride_), band_.d_keys(columns.first), key_stride_,
               Accumulate());
    gemm<Arch>(used, plan_.value_dim, rows(), Transposed<Acc>{weights, stride},
               row_major<Acc>(s_.d_output, plan_.value_dim), band_.d_values(columns.first),
               plan_.value_dim, Accumulate());
  }

  // Back through the slots: weights and d_logits stand in the front of scores and d_scores.

  void back_through_slots(const SlotView& slots) noexcept {
    const Index stride = plan_.row_stride();
    const Index pair_stride = padded(plan_.chunk);
    if (by_mass_) d_products();
    chunk_strengths<Arch>(entering_, s_.total, s_.strength);
    gate_gradients(slots);

    // From weights on the slots as each row saw them to those at the chunk's start and those on the
    // entering tokens.
    std::fill_n(s_.key_weights, rows() * pair_stride, Acc{0});
    std::fill_n(s_.value_weights, rows() * pair_stride, Acc{0});
    decay_weights<Arch>(entering_, plan_.group, s_.d_scores, stride, s_.key_weights, pair_stride);
    decay_weights<Arch>(entering_, plan_.group, s_.scores, stride, s_.value_weights, pair_stride);

    const Index first = entering_.first;
    const Index entering = entering_.count - first;
    const auto q_slot = row_major<Acc>(s_.q_slot, key_stride_);
    const auto d_output = row_major<Acc>(s_.d_output, plan_.value_dim);
    // d_query = d_logits * keys
    gemm<Arch>(rows(), key_stride_, slots.slots, Rows<Acc>{s_.d_scores, stride},
               row_major<Acc>(s_.slot_keys, key_stride_), s_.d_query, key_stride_, StartAtZero());
    gemm<Arch>(rows(), key_stride_, entering, Rows<Acc>{s_.key_weights + first, pair_stride},
               row_major<Acc>(s_.entering_keys + first * key_stride_, key_stride_), s_.d_query,
               key_stride_, Accumulate());
    for (Index row = 0; row < rows(); ++row)
      store(gradients_.q_slot, position_of(row), query_head(row), s_.d_query + row * key_stride_,
            key_dim_, call_.scale);
    // Entering tokens: what is left of them at the chunk's end, and what the rows read of them.
    const Rows<Acc> strength{s_.strength + first * plan_.slots, plan_.slots};
    gemm<Arch>(entering, key_stride_, slots.slots, strength,
               row_major<Acc>(s_.d_slot_keys, key_stride_), s_.d_entering_key, key_stride_,
               StartAtZero());
    gemm<Arch>(entering, key_stride_, rows(), Transposed<Acc>{s_.key_weights + first, pair_stride},
               q_slot, s_.d_entering_key, key_stride_, Accumulate());
    gemm<Arch>(entering, plan_.value_dim, slots.slots, strength,
               row_major<Acc>(s_.d_slot_values, plan_.value_dim), s_.d_entering_value,
               plan_.value_dim, StartAtZero());
    gemm<Arch>(entering, plan_.value_dim, rows(),
               Transposed<Acc>{s_.value_weights + first, pair_stride}, d_output,
               s_.d_entering_value, plan_.value_dim, Accumulate());
    for (Index i = 0; i < entering; ++i) {
      const std::int64_t position = call_.entering(chunk_, first + i);
      if (position < call_.start) continue;
      store(gradients_.k_slot, position, call_.head, s_.d_entering_key + i * key_stride_, key_dim_,
            Acc{1});
      Acc* d_value = band_.d_values(band_.column(position));
      for (Index d = 0; d < plan_.value_dim; ++d)
        d_value[d] += s_.d_entering_value[i * plan_.value_dim + d];
    }
    // The slots at the chunk's start.
    gemm<Arch>(slots.slots, key_stride_, rows(), Transposed<Acc>{s_.d_scores, stride}, q_slot,
               s_.d_slot_keys, key_stride_, ScaleRows<Acc>{s_.total, s_.d_slot_keys, key_stride_});
    gemm<Arch>(slots.slots, plan_.value_dim, rows(), Transposed<Acc>{s_.scores, stride}, d_output,
               s_.d_slot_values, plan_.value_dim,
               ScaleRows<Acc>{s_.total, s_.d_slot_values, plan_.value_dim});
  }

  /// Gradients of retention and write strengths, and of the mass at the chunk's start.
  void gate_gradients(const SlotView& slots) noexcept {
    const Index columns = padded(entering_.count);
    // Gradient of the slots at the chunk's end times the entering tokens, and times the slots at
    // its start.
    gemm<Arch>(slots.slots, columns, key_dim_, Rows<Acc>{s_.d_slot_keys, key_stride_}, key_panels(),
               s_.end_pairs_turned, columns, StartAtZero());
    gemm<Arch>(slots.slots, columns, value_dim_, Rows<Acc>{s_.d_slot_values, plan_.value_dim},
               value_panels(), s_.end_pairs_turned, columns, Accumulate());
    for (Index m = 0; m < plan_.slots; ++m) {
      const bool real = m < slots.slots;
      for (Index i = entering_.first; i < entering_.count; ++i)
        s_.end_pairs[i * plan_.slots + m] = real ? s_.end_pairs_turned[m * columns + i] : Acc{0};
      s_.end_start[m] =
          real ? dot_row<Arch>(s_.d_slot_keys + m * key_stride_, s_.slot_keys + m * key_stride_,
                               key_stride_) +
                     dot_row<Arch>(s_.d_slot_values + m * plan_.value_dim,
                                   slots.value + m * slots.value_stride(), plan_.value_dim)
               : Acc{0};
    }
    const Index pair_stride = padded(plan_.chunk);
    const std::array<SlotReading<Acc>, 2> readings{
        SlotReading<Acc>{s_.start_logits, plan_.slots, s_.key_pairs, pair_stride, s_.d_scores,
                         plan_.row_stride()},
        SlotReading<Acc>{s_.start_values, plan_.slots, s_.value_pairs, pair_stride, s_.scores,
                         plan_.row_stride()}};
    decay_gradients<Arch>(entering_, plan_.group, readings, s_.end_start, s_.end_pairs,
                          s_.d_retention, s_.d_write);
    back_through_mass(slots);
    for (Index i = entering_.first; i < entering_.count; ++i)
      store_gates(call_.entering(chunk_, i), i * plan_.slots);
  }
  void store_gates(std::int64_t position, Index at) const noexcept {
    if (position < call_.start) return;
    const Index token = call_.token_of(position);
    // retention = exp(log_gate), and write = 1 - exp(log_gate) unless it is given.
    const bool write_given = call_.in.write.data() != nullptr;
    for (Index m = 0; m < call_.memory.slots.slots; ++m) {
      const Acc d_write = s_.d_write[at + m];
      if (gradients_.log_gate.data() != nullptr)
        gradients_.log_gate(call_.span.row, token, call_.head, m) =
            s_.retention[at + m] * (s_.d_retention[at + m] - (write_given ? Acc{0} : d_write));
      if (gradients_.write.data() != nullptr)
        gradients_.write(call_.span.row, token, call_.head, m) = d_write;
    }
  }

  // Mass. A row's logit is product / mass + log(mass) and its value sum / mass.

  /// What goes through the value, before d_weights become d_logits.
  void d_mass_of_value(Index row) noexcept {
    const Index at = row / plan_.group * plan_.slots;
    const Acc* weights = s_.scores + row * plan_.row_stride();
    const Acc* d_weights = s_.d_scores + row * plan_.row_stride();
    const Acc d_share = of_query(cotangents_.slot_share, row);
    if (row % plan_.group == 0) std::fill_n(s_.d_mass + at, plan_.slots, Acc{0});
    for (Index m = 0; m < plan_.slots; ++m)
      s_.d_mass[at + m] -= weights[m] * (d_weights[m] - d_share) * s_.inverse_mass[at + m];
  }
  /// What goes through the logit; weights and d_logits then become those of the sums themselves.
  void d_products() noexcept {
    for (Index row = 0; row < rows(); ++row) {
      const Index at = row / plan_.group * plan_.slots;
      Acc* weights = s_.scores + row * plan_.row_stride();
      Acc* d_logits = s_.d_scores + row * plan_.row_stride();
      const Acc* products = s_.products + row * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m) {
        const Acc inverse = s_.inverse_mass[at + m];
        s_.d_mass[at + m] += d_logits[m] * (Acc{1} - products[m]) * inverse;
        weights[m] *= inverse;
        d_logits[m] *= inverse;
      }
    }
  }
  /// mass <- retention mass + write.
  void back_through_mass(const SlotView& slots) noexcept {
    if (!by_mass_ && entering_.first < entering_.count)
      decay_mass(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index i = entering_.count - 1; i >= 0; --i) {
      const Index at = i * plan_.slots;
      const Acc* before = i > 0 ? s_.mass + at - plan_.slots : slots.mass;
      for (Index m = 0; m < plan_.slots; ++m) {
        if (by_mass_) s_.d_slot_mass[m] += s_.d_mass[at + m];
        if (i < entering_.first) continue;
        s_.d_retention[at + m] += s_.d_slot_mass[m] * before[m];
        s_.d_write[at + m] += s_.d_slot_mass[m];
        s_.d_slot_mass[m] *= s_.retention[at + m];
      }
    }
  }

  // Results.

  /// Writes a row of a gradient, times a factor, if it is wanted.
  void store(const auto& view, std::int64_t position, Index head, const Acc* row, Index count,
             Acc factor) const noexcept {
    if (view.data() == nullptr) return;
    Acc* to = &view(call_.span.row, call_.token_of(position), head, 0);
    for (Index d = 0; d < count; ++d) to[d] = factor * row[d];
  }
  void clear(const auto& view, std::int64_t position, Index head, Index count) const noexcept {
    if (view.data() != nullptr)
      std::fill_n(&view(call_.span.row, call_.token_of(position), head, 0), count, Acc{0});
  }

  const Call& call_;
  const ChunkPlan& plan_;
  const Saved& saved_;
  const Cotangents& cotangents_;
  const Gradients& gradients_;
  BackwardScratch<Acc> s_;
  BackwardBand<Acc> band_;
  Index key_dim_;
  Index value_dim_;
  Index key_stride_;
  bool by_mass_;

  // The chunk that is being gone back through.
  Chunk chunk_;
  bool reads_slots_ = false;
  EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
