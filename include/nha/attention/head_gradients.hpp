// SPDX-License-Identifier: MIT
// What a head's backward gets beside its HeadCall: cotangents, what was saved, and where the
// gradients go.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// One head's part of tensors over the slots: keys [M, Dk], values [M, Dv] and mass [M], rows
/// contiguous. Null where a tensor was left out.
template <class Acc>
struct HeadSlotRows {
  Acc* key = nullptr;
  Acc* value = nullptr;
  Acc* mass = nullptr;
  Index key_stride = 0;
  Index value_stride = 0;
  Index mass_stride = 0;

  HeadSlotRows() = default;
  template <class KeyView, class ValueView, class MassView>
  HeadSlotRows(const KeyView& keys, const ValueView& values, const MassView& masses, Index sequence,
               Index head) noexcept
      : key_stride(keys.stride(2)), value_stride(values.stride(2)), mass_stride(masses.stride(2)) {
    if (keys.data() != nullptr) key = keys[sequence][head].data();
    if (values.data() != nullptr) value = values[sequence][head].data();
    if (masses.data() != nullptr) mass = masses[sequence][head].data();
  }

  /// Whether any of the three is there.
  explicit operator bool() const noexcept {
    return key != nullptr || value != nullptr || mass != nullptr;
  }
  Acc* key_row(Index slot) const noexcept { return key + slot * key_stride; }
  Acc* value_row(Index slot) const noexcept { return value + slot * value_stride; }
  Acc& mass_of(Index slot) const noexcept { return mass[slot * mass_stride]; }
};

/// Derivatives of the loss by a head's results.
template <class T>
struct HeadCotangents {
  HeadRows<const T> o;
  HeadRows<const accumulate_t<T>> lse, slot_share;
  HeadSlotRows<const accumulate_t<T>> slots;  // after the last token

  HeadCotangents(const AttentionCotangents<T>& all, const SequenceSpan& span, Index group,
                 Index sequence, Index head) noexcept
      : o(all.o, span, head * group),
        lse(all.lse, span, head * group),
        slot_share(all.slot_share, span, head * group),
        slots(all.slot_k, all.slot_v, all.mass, sequence, head) {}
};

/// Results of a head's call that were kept.
template <class T>
struct HeadSaved {
  HeadRows<const T> o;
  HeadRows<const accumulate_t<T>> lse, slot_share;

  HeadSaved(const AttentionSaved<T>& all, const SequenceSpan& span, Index group,
            Index head) noexcept
      : o(all.o, span, head * group),
        lse(all.lse, span, head * group),
        slot_share(all.slot_share, span, head * group) {}
};

/// Where a head's gradients go.
template <class T>
struct HeadGradients {
  using Acc = accumulate_t<T>;
  HeadRows<Acc> q_window, k_window, q_slot, k_slot, v, log_gate, write;
  HeadSlotRows<Acc> slots;  // at the beginning of the call

  HeadGradients(const AttentionGradients<T>& all, const SequenceSpan& span, Index group,
                Index sequence, Index head) noexcept
      : q_window(all.q_window, span, head * group),
        k_window(all.k_window, span, head),
        q_slot(all.q_slot, span, head * group),
        k_slot(all.k_slot, span, head),
        v(all.v, span, head),
        log_gate(all.log_gate, span, head),
        write(all.write, span, head),
        slots(all.slot_k, all.slot_v, all.mass, sequence, head) {}

  /// Writes a row of a gradient, times a factor, if it is wanted.
  static void store(const HeadRows<Acc>& to, Index token, Index head, const Acc* row, Index count,
                    Acc factor = Acc{1}) noexcept {
    if (!to) return;
    Acc* out = to.row(token, head);
    for (Index d = 0; d < count; ++d) out[d] = factor * row[d];
  }
  static void clear(const HeadRows<Acc>& to, Index token, Index head, Index count) noexcept {
    if (to) std::fill_n(to.row(token, head), count, Acc{0});
  }
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
