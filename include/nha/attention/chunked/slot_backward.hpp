// SPDX-License-Identifier: MIT
// SlotBackward: back through what the queries of a chunk read of the slots and what its tokens did
// to them, by matrix products.
//
// The logits over the slots are computed again from the slots as of the chunk's start, as read.hpp
// does. So are the derivatives of the loss by their weights: the same products with values in place
// of keys. What goes through the decays inside the chunk is in cpu/decay.hpp and
// cpu/decay_backward.hpp.
#pragma once

#include <nha/attention/chunked/backward_band.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/chunked/rows.hpp>
#include <nha/attention/chunked/seen_products.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/decay_backward.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/cpu/softmax_backward.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <array>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The slots' half of backward; holds their gradients as of the place that has been reached.
template <class Arch, class Call>
class SlotBackward {
 public:
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;
  using Slots = SlotMemoryView<const Acc>;

  /// Begins with the cotangents of the slots at the end of the call.
  SlotBackward(const ChunkedCall<Call>& call, const HeadCotangents<T>& cotangents,
               const HeadGradients<T>& gradients, const SlotBackwardScratch<Acc>& scratch) noexcept
      : call_(call),
        plan_(call.plan),
        gradients_(gradients),
        s_(scratch),
        key_stride_(padded(call.plan.key_dim)),
        with_mass_(call.rule.reads_means() || cotangents.slots.mass != nullptr) {
    std::fill_n(s_.d_keys, plan_.slots * key_stride_, Acc{0});
    std::fill_n(s_.d_values, plan_.slots * plan_.value_dim, Acc{0});
    std::fill_n(s_.d_start_mass, plan_.slots, Acc{0});
    const auto& d_slots = cotangents.slots;
    for (Index m = 0; m < call_.slots(); ++m) {
      if (d_slots.key != nullptr)
        std::copy_n(d_slots.key_row(m), call_.key_dim(), s_.d_keys + m * key_stride_);
      if (d_slots.value != nullptr)
        std::copy_n(d_slots.value_row(m), call_.value_dim(), s_.d_values + m * plan_.value_dim);
      if (d_slots.mass != nullptr) s_.d_start_mass[m] = d_slots.mass_of(m);
    }
  }

  /// Whether gradients of the slots at the beginning of the call are wanted.
  bool wants_slots() const noexcept { return static_cast<bool>(gradients_.slots); }

  /// Logits over the slots and the derivatives by their weights, as each row sees them, into the
  /// front of its scores.
  void products(const BackwardRows<Call>& rows, const Slots& slots) noexcept {
    entering_ = call_.template entering_gates<Arch>(rows.chunk, s_.retention, s_.write);
    const Index first = entering_.first;
    const auto key_at = [&](Index i) {
      return call_.slot_key(call_.entering(rows.chunk, first + i));
    };
    const auto value_at = [&](Index i) {
      return call_.value(call_.entering(rows.chunk, first + i));
    };
    const Index entering = entering_.count - first;
    std::fill_n(s_.value_panels, padded(plan_.chunk) * call_.value_dim(), Acc{0});
    cpu::pack_key_columns<T>(entering, key_at, call_.key_dim(), first, s_.key_panels);
    cpu::pack_key_columns<T>(entering, value_at, call_.value_dim(), first, s_.value_panels);
    for (Index i = 0; i < entering; ++i)
      cpu::pack_row<T>(key_at(i), call_.key_dim(), s_.entering_keys + (first + i) * key_stride_);

    cpu::transpose(slots.key, call_.key_dim(), plan_.slots, slots.key_stride(), s_.keys,
                   key_stride_);
    cpu::transpose(slots.value, slots.count, call_.value_dim(), slots.value_stride(), s_.values,
                   plan_.slots);
    slot_product(rows, {rows.s.q_slot, key_stride_}, call_.key_dim(),
                 cpu::row_major<Acc>(slots.key, plan_.slots), key_panels(), s_.start_logits,
                 s_.key_pairs, rows.s.scores);
    slot_product(rows, {rows.s.d_output, plan_.value_dim}, call_.value_dim(),
                 cpu::row_major<Acc>(s_.values, plan_.slots), value_panels(), s_.start_values,
                 s_.value_pairs, rows.s.d_scores);
    if (call_.rule.reads_means()) correct_by_mass(rows, slots);
  }

  /// Takes what goes through the masses by which a row's values are divided, before d_weights
  /// become d_logits.
  void keep_d_values(const BackwardRows<Call>& rows, Index row) noexcept {
    if (!call_.rule.reads_means()) return;
    const Index at = rows.token(row) * plan_.slots;
    const Acc* weights = rows.scores(row);
    const Acc* d_weights = rows.d_scores(row);
    const Acc d_share = rows.number(rows.cotangents.slot_share, row);
    if (row % plan_.group == 0) std::fill_n(s_.d_mass + at, plan_.slots, Acc{0});
    for (Index m = 0; m < plan_.slots; ++m)
      s_.d_mass[at + m] -= weights[m] * (d_weights[m] - d_share) * s_.inverse_mass[at + m];
  }

  /// Back through the chunk, with the weights on the slots in the front of the scores and d_logits
  /// in that of d_scores. Adds to the gradients of the band's values.
  void run(const BackwardRows<Call>& rows, const Slots& slots, const BackwardBand<Acc>& band,
           cpu::RowPrefetcher& next_rows) noexcept {
    if (call_.rule.reads_means()) d_products(rows);
    cpu::chunk_strengths<Arch>(entering_, s_.total, s_.strength);
    gate_gradients(rows, slots);

    // From weights on the slots as each row saw them to those at the chunk's start and those on the
    // entering tokens.
    const Index pair_stride = padded(plan_.chunk);
    std::fill_n(s_.key_weights, rows.count() * pair_stride, Acc{0});
    std::fill_n(s_.value_weights, rows.count() * pair_stride, Acc{0});
    cpu::decay_weights<Arch>(entering_, plan_.group, rows.s.d_scores, plan_.row_stride(),
                             s_.key_weights, pair_stride);
    cpu::decay_weights<Arch>(entering_, plan_.group, rows.s.scores, plan_.row_stride(),
                             s_.value_weights, pair_stride);
    const bool finite = rows.finite &&
                        cpu::all_finite(s_.entering_keys + entering_.first * key_stride_,
                                        (entering_.count - entering_.first) * key_stride_) &&
                        cpu::all_finite(s_.value_panels, padded(plan_.chunk) * call_.value_dim());
    const Index depth = finite ? entering_.count - entering_.first : Index{0};
    d_queries(rows, slots, depth, next_rows);
    d_entering(rows, band, finite, next_rows);
    d_start(rows, slots, finite, next_rows);
  }

  /// Writes the gradients of the slots at the beginning of the call.
  void store() const noexcept {
    const auto& d_slots = gradients_.slots;
    for (Index m = 0; m < call_.slots(); ++m) {
      if (d_slots.key != nullptr)
        std::copy_n(s_.d_keys + m * key_stride_, call_.key_dim(), d_slots.key_row(m));
      if (d_slots.value != nullptr)
        std::copy_n(s_.d_values + m * plan_.value_dim, call_.value_dim(), d_slots.value_row(m));
      if (d_slots.mass != nullptr) d_slots.mass_of(m) = s_.d_start_mass[m];
    }
  }

 private:
  cpu::RightOperand<Acc> key_panels() const noexcept {
    return {s_.key_panels, call_.key_dim() * kRowPadding, kRowPadding};
  }
  cpu::RightOperand<Acc> value_panels() const noexcept {
    return {s_.value_panels, call_.value_dim() * kRowPadding, kRowPadding};
  }
  NHA_NOINLINE void slot_product(const BackwardRows<Call>& rows, const cpu::Rows<Acc>& left,
                                 Index depth, const cpu::RightOperand<Acc>& at_start,
                                 const cpu::RightOperand<Acc>& entering, Acc* start, Acc* pairs,
                                 Acc* seen) const noexcept {
    const Index pair_stride = padded(plan_.chunk);
    cpu::gemm<Arch>(rows.count(), plan_.slots, depth, left, at_start, start, plan_.slots,
                    cpu::StartAtZero());
    cpu::gemm<Arch>(rows.count(), padded(rows.chunk.count), depth, left, entering, pairs,
                    pair_stride, cpu::StartAtZero());
    for (Index row = 0; row < rows.count(); ++row)
      std::copy_n(start + row * plan_.slots, plan_.slots, seen + row * plan_.row_stride());
    cpu::decay_logits<Arch>(entering_, plan_.group, pairs, pair_stride, seen, plan_.row_stride());
  }

  /// Slots as weighted means: logit / mass + log(mass) and value / mass, none where the mass is 0.
  void correct_by_mass(const BackwardRows<Call>& rows, const Slots& slots) noexcept {
    cpu::decay_mass<Arch>(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows.count(); ++row) {
      Acc* logits = rows.scores(row);
      Acc* d_weights = rows.d_scores(row);
      Acc* products = s_.products + row * plan_.slots;
      const Index at = rows.token(row) * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m) {
        products[m] = logits[m] * s_.inverse_mass[at + m];
        logits[m] = products[m] + s_.log_mass[at + m];
        d_weights[m] *= s_.inverse_mass[at + m];
      }
    }
  }

  /// Whether a row reads the entering token of a row of the gates.
  bool reads(const BackwardRows<Call>& rows, Index row, Index entering) const noexcept {
    return entering <= rows.token(row);
  }

  /// d_query = d_logits * keys, of `depth` entering tokens by a product.
  void d_queries(const BackwardRows<Call>& rows, const Slots& slots, Index depth,
                 cpu::RowPrefetcher& next_rows) noexcept {
    const Index stride = plan_.row_stride();
    const Index pair_stride = padded(plan_.chunk);
    const Index first = entering_.first, entering = entering_.count - first;
    cpu::gemm<Arch>(rows.count(), key_stride_, slots.count, cpu::Rows<Acc>{rows.s.d_scores, stride},
                    cpu::row_major<Acc>(s_.keys, key_stride_), s_.d_query, key_stride_,
                    cpu::StartAtZero(), &next_rows);
    const Acc* keys = s_.entering_keys + first * key_stride_;
    cpu::gemm<Arch>(rows.count(), key_stride_, depth,
                    cpu::Rows<Acc>{s_.key_weights + first, pair_stride},
                    cpu::row_major<Acc>(keys, key_stride_), s_.d_query, key_stride_,
                    cpu::Accumulate(), &next_rows);
    if (depth < entering)
      add_seen<Acc>(rows.count(), entering, {s_.key_weights + first, pair_stride},
                    {keys, key_stride_}, key_stride_, {s_.d_query, key_stride_},
                    [&](Index row, Index i) { return reads(rows, row, first + i); });
    for (Index row = 0; row < rows.count(); ++row)
      gradients_.store(gradients_.q_slot, rows.call_token(row), rows.head(row),
                       s_.d_query + row * key_stride_, call_.key_dim(), call_.softmax_scale);
  }

  /// Entering tokens: what is left of them at the chunk's end, and what the rows read of them.
  void d_entering(const BackwardRows<Call>& rows, const BackwardBand<Acc>& band, bool finite,
                  cpu::RowPrefetcher& next_rows) noexcept {
    const Index pair_stride = padded(plan_.chunk);
    const Index first = entering_.first, entering = entering_.count - first;
    const Index depth = finite ? rows.count() : Index{0};
    const cpu::Rows<Acc> strength{s_.strength + first * plan_.slots, plan_.slots};
    cpu::gemm<Arch>(entering, key_stride_, call_.slots(), strength,
                    cpu::row_major<Acc>(s_.d_keys, key_stride_), s_.d_entering_key, key_stride_,
                    cpu::StartAtZero(), &next_rows);
    cpu::gemm<Arch>(entering, key_stride_, depth,
                    cpu::Transposed<Acc>{s_.key_weights + first, pair_stride},
                    cpu::row_major<Acc>(rows.s.q_slot, key_stride_), s_.d_entering_key, key_stride_,
                    cpu::Accumulate(), &next_rows);
    cpu::gemm<Arch>(entering, plan_.value_dim, call_.slots(), strength,
                    cpu::row_major<Acc>(s_.d_values, plan_.value_dim), s_.d_entering_value,
                    plan_.value_dim, cpu::StartAtZero(), &next_rows);
    cpu::gemm<Arch>(entering, plan_.value_dim, depth,
                    cpu::Transposed<Acc>{s_.value_weights + first, pair_stride},
                    cpu::row_major<Acc>(rows.s.d_output, plan_.value_dim), s_.d_entering_value,
                    plan_.value_dim, cpu::Accumulate(), &next_rows);
    if (!finite) {
      const auto read = [&](Index row, Index i) { return reads(rows, row, first + i); };
      add_to_seen<Acc>(rows.count(), entering, {s_.key_weights + first, pair_stride},
                       {rows.s.q_slot, key_stride_}, key_stride_, {s_.d_entering_key, key_stride_},
                       read);
      add_to_seen<Acc>(rows.count(), entering, {s_.value_weights + first, pair_stride},
                       {rows.s.d_output, plan_.value_dim}, plan_.value_dim,
                       {s_.d_entering_value, plan_.value_dim}, read);
    }
    for (Index i = 0; i < entering; ++i) {
      const std::int64_t position = call_.entering(rows.chunk, first + i);
      if (!call_.in_call(position)) continue;
      gradients_.store(gradients_.k_slot, call_.token(position), 0,
                       s_.d_entering_key + i * key_stride_, call_.key_dim());
      Acc* d_value = band.d_values(band.column(position));
      for (Index d = 0; d < plan_.value_dim; ++d)
        d_value[d] += s_.d_entering_value[i * plan_.value_dim + d];
    }
  }

  /// The slots at the chunk's start.
  void d_start(const BackwardRows<Call>& rows, const Slots& slots, bool finite,
               cpu::RowPrefetcher& next_rows) noexcept {
    const Index stride = plan_.row_stride();
    const Index depth = finite ? rows.count() : Index{0};
    cpu::gemm<Arch>(slots.count, key_stride_, depth, cpu::Transposed<Acc>{rows.s.d_scores, stride},
                    cpu::row_major<Acc>(rows.s.q_slot, key_stride_), s_.d_keys, key_stride_,
                    cpu::ScaleRows<Acc>{s_.total, s_.d_keys, key_stride_}, &next_rows);
    cpu::gemm<Arch>(
        slots.count, plan_.value_dim, depth, cpu::Transposed<Acc>{rows.s.scores, stride},
        cpu::row_major<Acc>(rows.s.d_output, plan_.value_dim), s_.d_values, plan_.value_dim,
        cpu::ScaleRows<Acc>{s_.total, s_.d_values, plan_.value_dim}, &next_rows);
    if (finite) return;
    const auto reads_slots = [&](Index row, Index) {
      return call_.slots_take_part(rows.position(row));
    };
    add_to_seen<Acc>(rows.count(), slots.count, {rows.s.d_scores, stride},
                     {rows.s.q_slot, key_stride_}, key_stride_, {s_.d_keys, key_stride_},
                     reads_slots);
    add_to_seen<Acc>(rows.count(), slots.count, {rows.s.scores, stride},
                     {rows.s.d_output, plan_.value_dim}, plan_.value_dim,
                     {s_.d_values, plan_.value_dim}, reads_slots);
  }

  /// Gradients of log gates and write strengths, and of the mass at the chunk's start.
  void gate_gradients(const BackwardRows<Call>& rows, const Slots& slots) noexcept {
    const Index columns = padded(entering_.count);
    // Gradient of the slots at the chunk's end times the entering tokens, and times the slots at
    // its start.
    cpu::gemm<Arch>(slots.count, columns, call_.key_dim(), cpu::Rows<Acc>{s_.d_keys, key_stride_},
                    key_panels(), s_.end_pairs_turned, columns, cpu::StartAtZero());
    cpu::gemm<Arch>(slots.count, columns, call_.value_dim(),
                    cpu::Rows<Acc>{s_.d_values, plan_.value_dim}, value_panels(),
                    s_.end_pairs_turned, columns, cpu::Accumulate());
    cpu::transpose(s_.end_pairs_turned, slots.count, entering_.count, columns, s_.end_pairs,
                   plan_.slots);
    for (Index m = 0; m < plan_.slots; ++m) {
      const bool real = m < slots.count;
      s_.end_start[m] =
          real ? cpu::dot_row<Arch>(s_.d_keys + m * key_stride_, s_.keys + m * key_stride_,
                                    key_stride_) +
                     cpu::dot_row<Arch>(s_.d_values + m * plan_.value_dim,
                                        slots.value + m * slots.value_stride(), plan_.value_dim)
               : Acc{0};
    }
    const Index pair_stride = padded(plan_.chunk);
    const std::array<cpu::SlotReading<Acc>, 2> readings{
        cpu::SlotReading<Acc>{s_.start_logits, plan_.slots, s_.key_pairs, pair_stride,
                              rows.s.d_scores, plan_.row_stride()},
        cpu::SlotReading<Acc>{s_.start_values, plan_.slots, s_.value_pairs, pair_stride,
                              rows.s.scores, plan_.row_stride()}};
    cpu::decay_gradients<Arch>(entering_, plan_.group, readings, s_.end_start, s_.end_pairs,
                               s_.d_log_retention, s_.d_write);
    back_through_mass(slots);
    for (Index i = entering_.first; i < entering_.count; ++i)
      store_gates(call_.entering(rows.chunk, i), i * plan_.slots);
  }
  void store_gates(std::int64_t position, Index at) const noexcept {
    if (!call_.in_call(position)) return;
    const Index token = call_.token(position);
    // write = 1 - exp(log_gate) unless it is given.
    const bool write_given = static_cast<bool>(call_.write);
    if (gradients_.log_gate) {
      Acc* d_log_gate = gradients_.log_gate.row(token);
      for (Index m = 0; m < call_.slots(); ++m)
        d_log_gate[m] = s_.d_log_retention[at + m] -
                        (write_given ? Acc{0} : s_.retention[at + m] * s_.d_write[at + m]);
    }
    gradients_.store(gradients_.write, token, 0, s_.d_write + at, call_.slots());
  }

  // Mass. A row's logit is product / mass + log(mass) and its value sum / mass.

  /// What goes through the logit; weights and d_logits then become those of the sums themselves.
  void d_products(const BackwardRows<Call>& rows) noexcept {
    for (Index row = 0; row < rows.count(); ++row) {
      const Index at = rows.token(row) * plan_.slots;
      Acc* weights = rows.scores(row);
      Acc* d_logits = rows.d_scores(row);
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
  void back_through_mass(const Slots& slots) noexcept {
    if (!with_mass_) return;
    const bool by_mass = call_.rule.reads_means();
    if (!by_mass)
      cpu::decay_mass<Arch>(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index i = entering_.count - 1; i >= 0; --i) {
      const Index at = i * plan_.slots;
      const Acc* before = i > 0 ? s_.mass + at - plan_.slots : slots.mass;
      for (Index m = 0; m < plan_.slots; ++m) {
        if (by_mass) s_.d_start_mass[m] += s_.d_mass[at + m];
        if (i < entering_.first) continue;
        s_.d_write[at + m] += s_.d_start_mass[m];
        s_.d_start_mass[m] *= s_.retention[at + m];
        s_.d_log_retention[at + m] += s_.d_start_mass[m] * before[m];
      }
    }
  }

  const ChunkedCall<Call>& call_;
  const ChunkPlan& plan_;
  const HeadGradients<T>& gradients_;
  SlotBackwardScratch<Acc> s_;
  Index key_stride_;
  bool with_mass_;  // whether anything comes back for the mass
  cpu::EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
