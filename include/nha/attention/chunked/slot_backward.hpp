// SPDX-License-Identifier: MIT
// SlotBackward: back through what the queries of a chunk read of the slots and what its tokens did
// to them, by matrix products.
//
// The logits over the slots are computed again from the slots as of the chunk's start, as
// chunk_read.hpp does, and so are the derivatives of the loss by their weights, the same products
// with values in place of keys. What goes through the decays inside the chunk is in cpu/decay.hpp
// and cpu/decay_backward.hpp.
#pragma once

#include <nha/attention/chunked/backward_band.hpp>
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/rows.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/index.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/decay.hpp>
#include <nha/cpu/decay_backward.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/softmax_backward.hpp>

#include <algorithm>
#include <array>
#include <cstdint>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The slots' part of a ChunkBackward; holds their gradients as of the place that has been reached.
template <class Arch, class Call>
class SlotBackward {
 public:
  using T = typename Call::Scalar;
  using Acc = typename Call::Acc;
  using SlotView = typename Call::SlotView;
  using Cotangents = typename Call::Cotangents;
  using Gradients = typename Call::Gradients;

  /// Begins with the cotangents of the slots at the end of the call.
  SlotBackward(const Call& call, const BackwardPlan& plan, const Cotangents& cotangents,
               const Gradients& gradients, const BackwardScratch<Acc>& scratch) noexcept
      : call_(call),
        plan_(plan.chunks),
        cotangents_(cotangents),
        gradients_(gradients),
        s_(scratch),
        rows_{call},
        key_dim_(call.memory.slots.key_dim),
        value_dim_(call.memory.slots.value_dim),
        key_stride_(plan.padded_key_dim()),
        by_mass_(call.empty_slots == EmptySlots::mass_corrected),
        with_mass_(by_mass_ || cotangents.mass.data() != nullptr) {
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

  /// Whether gradients of the slots at the beginning of the call are wanted.
  bool wants_slots() const noexcept {
    return gradients_.slot_k.data() != nullptr || gradients_.slot_v.data() != nullptr ||
           gradients_.mass.data() != nullptr;
  }

  /// Logits over the slots and the derivatives by their weights, as each row of a chunk sees them,
  /// into the front of scores and d_scores; q_slot and d_output are packed.
  void products(const Chunk& chunk, const SlotView& slots) noexcept {
    rows_.chunk = chunk;
    entering_ = call_.template entering_gates<Arch>(rows_.chunk, s_.retention, s_.write);
    const Index first = entering_.first;
    const auto key_at = [&](Index i) {
      return call_.slot_key(call_.entering(rows_.chunk, first + i));
    };
    const auto value_at = [&](Index i) {
      return call_.value(call_.entering(rows_.chunk, first + i));
    };
    const Index entering = entering_.count - first;
    cpu::pack_key_columns<T>(entering, key_at, key_dim_, first, s_.key_panels);
    cpu::pack_key_columns<T>(entering, value_at, value_dim_, first, s_.value_panels);
    for (Index i = 0; i < entering; ++i)
      cpu::pack_row<T>(key_at(i), key_dim_, s_.entering_keys + (first + i) * key_stride_);

    cpu::transpose(slots.key, key_dim_, plan_.slots, slots.key_stride(), s_.slot_keys, key_stride_);
    cpu::transpose(slots.value, slots.slots, value_dim_, slots.value_stride(), s_.slot_values,
                   plan_.slots);
    slot_product({s_.q_slot, key_stride_}, key_dim_, cpu::row_major<Acc>(slots.key, plan_.slots),
                 key_panels(), s_.start_logits, s_.key_pairs, s_.scores);
    slot_product({s_.d_output, plan_.value_dim}, value_dim_,
                 cpu::row_major<Acc>(s_.slot_values, plan_.slots), value_panels(), s_.start_values,
                 s_.value_pairs, s_.d_scores);
    if (by_mass_) correct_by_mass(slots);
  }

  /// Takes what goes through the masses by which a row's values are divided, before d_weights
  /// become d_logits.
  void keep_d_values(Index row) noexcept {
    if (!by_mass_) return;
    const Index at = rows_.token(row) * plan_.slots;
    const Acc* weights = s_.scores + row * plan_.row_stride();
    const Acc* d_weights = s_.d_scores + row * plan_.row_stride();
    const Acc d_share = rows_.number(cotangents_.slot_share, row);
    if (row % plan_.group == 0) std::fill_n(s_.d_mass + at, plan_.slots, Acc{0});
    for (Index m = 0; m < plan_.slots; ++m)
      s_.d_mass[at + m] -= weights[m] * (d_weights[m] - d_share) * s_.inverse_mass[at + m];
  }
  /// Back through the chunk, with the weights on the slots in the front of scores and d_logits in
  /// that of d_scores. Adds to the gradients of the band's values. aside() is called between the
  /// tiles of the products.
  template <class Aside = cpu::NothingAside>
  void run(const SlotView& slots, const BackwardBand<Acc>& band, Aside&& aside = {}) noexcept {
    const Index stride = plan_.row_stride();
    const Index pair_stride = padded(plan_.chunk);
    if (by_mass_) d_products();
    cpu::chunk_strengths<Arch>(entering_, s_.total, s_.strength);
    gate_gradients(slots);

    // From weights on the slots as each row saw them to those at the chunk's start and those on the
    // entering tokens.
    std::fill_n(s_.key_weights, rows_.rows() * pair_stride, Acc{0});
    std::fill_n(s_.value_weights, rows_.rows() * pair_stride, Acc{0});
    cpu::decay_weights<Arch>(entering_, plan_.group, s_.d_scores, stride, s_.key_weights,
                             pair_stride);
    cpu::decay_weights<Arch>(entering_, plan_.group, s_.scores, stride, s_.value_weights,
                             pair_stride);

    const Index first = entering_.first;
    const Index entering = entering_.count - first;
    const auto q_slot = cpu::row_major<Acc>(s_.q_slot, key_stride_);
    const auto d_output = cpu::row_major<Acc>(s_.d_output, plan_.value_dim);
    // d_query = d_logits * keys
    cpu::gemm<Arch>(rows_.rows(), key_stride_, slots.slots, cpu::Rows<Acc>{s_.d_scores, stride},
                    cpu::row_major<Acc>(s_.slot_keys, key_stride_), s_.d_query, key_stride_,
                    cpu::StartAtZero(), aside);
    cpu::gemm<Arch>(rows_.rows(), key_stride_, entering,
                    cpu::Rows<Acc>{s_.key_weights + first, pair_stride},
                    cpu::row_major<Acc>(s_.entering_keys + first * key_stride_, key_stride_),
                    s_.d_query, key_stride_, cpu::Accumulate(), aside);
    for (Index row = 0; row < rows_.rows(); ++row)
      rows_.store(gradients_.q_slot, rows_.position(row), rows_.query_head(row),
                  s_.d_query + row * key_stride_, key_dim_, call_.scale);
    // Entering tokens: what is left of them at the chunk's end, and what the rows read of them.
    const cpu::Rows<Acc> strength{s_.strength + first * plan_.slots, plan_.slots};
    cpu::gemm<Arch>(entering, key_stride_, slots.slots, strength,
                    cpu::row_major<Acc>(s_.d_slot_keys, key_stride_), s_.d_entering_key,
                    key_stride_, cpu::StartAtZero(), aside);
    cpu::gemm<Arch>(entering, key_stride_, rows_.rows(),
                    cpu::Transposed<Acc>{s_.key_weights + first, pair_stride}, q_slot,
                    s_.d_entering_key, key_stride_, cpu::Accumulate(), aside);
    cpu::gemm<Arch>(entering, plan_.value_dim, slots.slots, strength,
                    cpu::row_major<Acc>(s_.d_slot_values, plan_.value_dim), s_.d_entering_value,
                    plan_.value_dim, cpu::StartAtZero(), aside);
    cpu::gemm<Arch>(entering, plan_.value_dim, rows_.rows(),
                    cpu::Transposed<Acc>{s_.value_weights + first, pair_stride}, d_output,
                    s_.d_entering_value, plan_.value_dim, cpu::Accumulate(), aside);
    for (Index i = 0; i < entering; ++i) {
      const std::int64_t position = call_.entering(rows_.chunk, first + i);
      if (position < call_.start) continue;
      rows_.store(gradients_.k_slot, position, call_.head, s_.d_entering_key + i * key_stride_,
                  key_dim_, Acc{1});
      Acc* d_value = band.d_values(band.column(position));
      for (Index d = 0; d < plan_.value_dim; ++d)
        d_value[d] += s_.d_entering_value[i * plan_.value_dim + d];
    }
    // The slots at the chunk's start.
    cpu::gemm<Arch>(slots.slots, key_stride_, rows_.rows(),
                    cpu::Transposed<Acc>{s_.d_scores, stride}, q_slot, s_.d_slot_keys, key_stride_,
                    cpu::ScaleRows<Acc>{s_.total, s_.d_slot_keys, key_stride_}, aside);
    cpu::gemm<Arch>(slots.slots, plan_.value_dim, rows_.rows(),
                    cpu::Transposed<Acc>{s_.scores, stride}, d_output, s_.d_slot_values,
                    plan_.value_dim,
                    cpu::ScaleRows<Acc>{s_.total, s_.d_slot_values, plan_.value_dim}, aside);
  }

  /// Writes the gradients of the slots at the beginning of the call.
  void store() const noexcept {
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
  cpu::RightOperand<Acc> key_panels() const noexcept {
    return {s_.key_panels, key_dim_ * kRowPadding, kRowPadding};
  }
  cpu::RightOperand<Acc> value_panels() const noexcept {
    return {s_.value_panels, value_dim_ * kRowPadding, kRowPadding};
  }
  void slot_product(const cpu::Rows<Acc>& left, Index depth, const cpu::RightOperand<Acc>& at_start,
                    const cpu::RightOperand<Acc>& entering, Acc* start, Acc* pairs,
                    Acc* seen) const noexcept {
    const Index pair_stride = padded(plan_.chunk);
    cpu::gemm<Arch>(rows_.rows(), plan_.slots, depth, left, at_start, start, plan_.slots,
                    cpu::StartAtZero());
    cpu::gemm<Arch>(rows_.rows(), padded(rows_.chunk.count), depth, left, entering, pairs,
                    pair_stride, cpu::StartAtZero());
    for (Index row = 0; row < rows_.rows(); ++row)
      std::copy_n(start + row * plan_.slots, plan_.slots, seen + row * plan_.row_stride());
    cpu::decay_logits<Arch>(entering_, plan_.group, pairs, pair_stride, seen, plan_.row_stride());
  }

  /// Slots as weighted means: logit / mass + log(mass) and value / mass, none where the mass is 0.
  void correct_by_mass(const SlotView& slots) noexcept {
    cpu::decay_mass(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index row = 0; row < rows_.rows(); ++row) {
      Acc* logits = s_.scores + row * plan_.row_stride();
      Acc* d_weights = s_.d_scores + row * plan_.row_stride();
      Acc* products = s_.products + row * plan_.slots;
      const Index at = rows_.token(row) * plan_.slots;
      for (Index m = 0; m < plan_.slots; ++m) {
        products[m] = logits[m] * s_.inverse_mass[at + m];
        logits[m] = products[m] + s_.log_mass[at + m];
        d_weights[m] *= s_.inverse_mass[at + m];
      }
    }
  }

  /// Gradients of log gates and write strengths, and of the mass at the chunk's start.
  void gate_gradients(const SlotView& slots) noexcept {
    const Index columns = padded(entering_.count);
    // Gradient of the slots at the chunk's end times the entering tokens, and times the slots at
    // its start.
    cpu::gemm<Arch>(slots.slots, columns, key_dim_, cpu::Rows<Acc>{s_.d_slot_keys, key_stride_},
                    key_panels(), s_.end_pairs_turned, columns, cpu::StartAtZero());
    cpu::gemm<Arch>(slots.slots, columns, value_dim_,
                    cpu::Rows<Acc>{s_.d_slot_values, plan_.value_dim}, value_panels(),
                    s_.end_pairs_turned, columns, cpu::Accumulate());
    cpu::transpose(s_.end_pairs_turned, slots.slots, entering_.count, columns, s_.end_pairs,
                   plan_.slots);
    for (Index m = 0; m < plan_.slots; ++m) {
      const bool real = m < slots.slots;
      s_.end_start[m] =
          real ? cpu::dot_row<Arch>(s_.d_slot_keys + m * key_stride_,
                                    s_.slot_keys + m * key_stride_, key_stride_) +
                     cpu::dot_row<Arch>(s_.d_slot_values + m * plan_.value_dim,
                                        slots.value + m * slots.value_stride(), plan_.value_dim)
               : Acc{0};
    }
    const Index pair_stride = padded(plan_.chunk);
    const std::array<cpu::SlotReading<Acc>, 2> readings{
        cpu::SlotReading<Acc>{s_.start_logits, plan_.slots, s_.key_pairs, pair_stride, s_.d_scores,
                              plan_.row_stride()},
        cpu::SlotReading<Acc>{s_.start_values, plan_.slots, s_.value_pairs, pair_stride, s_.scores,
                              plan_.row_stride()}};
    cpu::decay_gradients<Arch>(entering_, plan_.group, readings, s_.end_start, s_.end_pairs,
                               s_.d_log_retention, s_.d_write);
    back_through_mass(slots);
    for (Index i = entering_.first; i < entering_.count; ++i)
      store_gates(call_.entering(rows_.chunk, i), i * plan_.slots);
  }
  void store_gates(std::int64_t position, Index at) const noexcept {
    if (position < call_.start) return;
    const Index token = call_.token_of(position);
    // write = 1 - exp(log_gate) unless it is given.
    const bool write_given = call_.in.write.data() != nullptr;
    const Index slots = call_.memory.slots.slots;
    if (gradients_.log_gate.data() != nullptr) {
      Acc* d_log_gate = &gradients_.log_gate(call_.span.row, token, call_.head, 0);
      for (Index m = 0; m < slots; ++m)
        d_log_gate[m] = s_.d_log_retention[at + m] -
                        (write_given ? Acc{0} : s_.retention[at + m] * s_.d_write[at + m]);
    }
    if (gradients_.write.data() != nullptr)
      std::copy_n(s_.d_write + at, slots, &gradients_.write(call_.span.row, token, call_.head, 0));
  }

  // Mass. A row's logit is product / mass + log(mass) and its value sum / mass.

  /// What goes through the logit; weights and d_logits then become those of the sums themselves.
  void d_products() noexcept {
    for (Index row = 0; row < rows_.rows(); ++row) {
      const Index at = rows_.token(row) * plan_.slots;
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
    if (!with_mass_) return;
    if (!by_mass_) cpu::decay_mass(entering_, slots.mass, s_.mass, s_.inverse_mass, s_.log_mass);
    for (Index i = entering_.count - 1; i >= 0; --i) {
      const Index at = i * plan_.slots;
      const Acc* before = i > 0 ? s_.mass + at - plan_.slots : slots.mass;
      for (Index m = 0; m < plan_.slots; ++m) {
        if (by_mass_) s_.d_slot_mass[m] += s_.d_mass[at + m];
        if (i < entering_.first) continue;
        s_.d_write[at + m] += s_.d_slot_mass[m];
        s_.d_slot_mass[m] *= s_.retention[at + m];
        s_.d_log_retention[at + m] += s_.d_slot_mass[m] * before[m];
      }
    }
  }

  const Call& call_;
  const ChunkPlan& plan_;
  const Cotangents& cotangents_;
  const Gradients& gradients_;
  BackwardScratch<Acc> s_;
  ChunkRows<Call> rows_;
  Index key_dim_;
  Index value_dim_;
  Index key_stride_;
  bool by_mass_;
  bool with_mass_;  // whether anything comes back for the mass
  cpu::EnteringGates<Acc> entering_ = {};
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
