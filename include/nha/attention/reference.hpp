// SPDX-License-Identifier: MIT
// The definition of Native Hybrid Attention, one token at a time, for any scalar type.
//
// Nothing here is fast and everything is meant to be read; step.hpp and chunked.hpp compute the
// same and are tested against it. The operator is that of Du et al., "Native Hybrid Attention for
// Efficient Sequence Modeling" (arXiv 2510.07019): two memories, one softmax.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Scratch of one head: what a query sees, slots first.
template <class Acc>
struct ReferenceScratch {
  std::vector<Acc> retention;  // [slots]
  std::vector<Acc> write;      // [slots]
  std::vector<Acc> logits;     // [slots + window]
  std::vector<Acc> output;     // [value_dim]
};

/// dot(q, k) in the type sums are kept in.
template <class T, class Key>
accumulate_t<T> dot(const T* query, Key&& key, Index size) {
  accumulate_t<T> sum{};
  for (Index d = 0; d < size; ++d) sum += widen(query[d]) * key(d);
  return sum;
}

/// One token of one head: it enters the memories, then every query of the head's group reads them.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void reference_token(const AttentionInputs<T, KeyDim, ValueDim, Slots>& in,
                     const AttentionOutputs<T, ValueDim>& out, const AttentionOptions& options,
                     const HeadState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
                     bool initial_slots, std::int64_t position, Index row, Index token, Index head,
                     ReferenceScratch<accumulate_t<T>>& scratch) {
  using Acc = accumulate_t<T>;
  const auto& slots = state.slots;
  const Index slot_count = slots.slots;
  const Index key_dim = slots.key_dim;
  const Index value_dim = slots.value_dim;
  const auto [window, slot_delay] = head_options(options, head);
  const T* value = &in.v(row, token, head, 0);

  // The token that is slot_delay tokens old enters the slots; it is this one where the delay is 0.
  const std::int64_t entering = position - slot_delay;
  if (slot_count > 0) {
    for (Index m = 0; m < slot_count; ++m) {
      const Acc log_gate = in.log_gate(row, token, head, m);
      scratch.retention[static_cast<std::size_t>(m)] = retention(log_gate);
      scratch.write[static_cast<std::size_t>(m)] =
          in.write.data() != nullptr ? in.write(row, token, head, m) : default_write(log_gate);
    }
    const T* slot_key = &in.k_slot(row, token, head, 0);
    if (slot_delay == 0)
      slots.enter(scratch.retention.data(), scratch.write.data(), slot_key, value, entering);
    else if (entering >= 0)
      slots.enter(state.pending.retention_row(entering), state.pending.write_row(entering),
                  state.pending.key_row(entering), state.window.value_row(entering), entering);
    state.pending.push(position, slot_key, scratch.retention.data(), scratch.write.data());
  }
  state.window.push(position, window > 0 ? &in.k_window(row, token, head, 0) : nullptr, value);

  const bool written = initial_slots || entering >= 0;
  const bool slots_take_part = options.empty_slots == EmptySlots::participate || written;
  const bool by_mass = options.empty_slots == EmptySlots::mass_corrected;
  const auto scale = static_cast<Acc>(softmax_scale(options, key_dim));
  const std::int64_t oldest = std::max<std::int64_t>(0, position - window + 1);
  const auto visible = static_cast<Index>(position + 1 - oldest);
  Acc* logits = scratch.logits.data();

  const Index group = out.o.extent(2) / in.v.extent(2);
  for (Index query_head = head * group; query_head < (head + 1) * group; ++query_head) {
    Acc largest = -kInfinity<Acc>;
    for (Index m = 0; m < slot_count; ++m) {
      const Acc mass = by_mass ? slots.mass[m] : Acc{1};
      if (!slots_take_part || !(mass > 0)) {
        logits[m] = -kInfinity<Acc>;
        continue;
      }
      const Acc product = dot(
          &in.q_slot(row, token, query_head, 0),
          [&](Index d) { return widen(slots.key_at(m, d)) / mass; }, key_dim);
      logits[m] = scale * product + (by_mass ? std::log(mass) : Acc{0});
      largest = std::max(largest, logits[m]);
    }
    for (Index i = 0; i < visible; ++i) {
      const T* key = state.window.key_row(oldest + i);
      logits[slot_count + i] = scale * dot(
                                           &in.q_window(row, token, query_head, 0),
                                           [&](Index d) { return widen(key[d]); }, key_dim);
      largest = std::max(largest, logits[slot_count + i]);
    }

    // One softmax over both. With nothing to read every weight is 0.
    Acc sum{};
    Acc slot_sum{};
    const Acc shift = largest == -kInfinity<Acc> ? Acc{0} : largest;
    std::fill(scratch.output.begin(), scratch.output.end(), Acc{0});
    for (Index m = 0; m < slot_count; ++m) {
      const Acc weight = std::exp(logits[m] - shift);
      sum += weight;
      slot_sum += weight;
      if (weight == 0) continue;
      const Acc mass = by_mass ? slots.mass[m] : Acc{1};
      for (Index d = 0; d < value_dim; ++d)
        scratch.output[static_cast<std::size_t>(d)] +=
            weight * (widen(slots.value_at(m, d)) / mass);
    }
    for (Index i = 0; i < visible; ++i) {
      const Acc weight = std::exp(logits[slot_count + i] - shift);
      sum += weight;
      const T* v = state.window.value_row(oldest + i);
      for (Index d = 0; d < value_dim; ++d)
        scratch.output[static_cast<std::size_t>(d)] += weight * widen(v[d]);
    }
    const Acc norm = sum > 0 ? Acc{1} / sum : Acc{0};
    for (Index d = 0; d < value_dim; ++d)
      out.o(row, token, query_head, d) =
          static_cast<T>(scratch.output[static_cast<std::size_t>(d)] * norm);
    if (out.lse.data() != nullptr)
      out.lse(row, token, query_head) = sum > 0 ? shift + std::log(sum) : -kInfinity<Acc>;
    if (out.slot_share.data() != nullptr) out.slot_share(row, token, query_head) = slot_sum * norm;
  }
}

}  // namespace detail

/// The operator as it is defined: for each sequence and key/value head, t = 0, 1, ...
///   the token slot_delay tokens back enters the slots:
///     slot_k <- e^g . slot_k + s (x) k_slot
///     slot_v <- e^g . slot_v + s (x) v
///     mass   <- e^g . mass + s
///   logits = [ scale * slot_k q_slot ; scale * k_window_i . q_window  for the newest `window` i ]
///   o = softmax(logits) . [ slot_v ; v_i ],  lse = logsumexp(logits)
/// with the state's options, from the state and leaving the state after the last token.
///
/// Shapes are those of AttentionInputs and AttentionOutputs. Allocates scratch.
/// @throws ArgumentError as validate() says; nothing has then been touched.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void reference(const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
               AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
               const std::type_identity_t<AttentionOutputs<T, ValueDim>>& outputs) {
  validate(inputs, state, outputs);
  const AttentionShape& shape = state.shape();
  detail::ReferenceScratch<accumulate_t<T>> scratch;
  scratch.retention.resize(static_cast<std::size_t>(shape.slots));
  scratch.write.resize(static_cast<std::size_t>(shape.slots));
  scratch.output.resize(static_cast<std::size_t>(shape.value_dim));
  for (Index n = 0; n < shape.batch; ++n) {
    const SequenceSpan span = sequence_span(inputs, n);
    const std::int64_t start = state.tokens_seen(n);
    const bool initial_slots = state.has_initial_slots(n);
    for (Index head = 0; head < shape.kv_heads; ++head) {
      const Index window = head_options(state.options(), head).window;
      scratch.logits.resize(static_cast<std::size_t>(shape.slots + window));
      const auto memory = detail::StateAccess::head(state, n, head);
      for (Index i = 0; i < span.count; ++i) {
        detail::reference_token(inputs, outputs, state.options(), memory, initial_slots, start + i,
                                span.row, span.first + i, head, scratch);
        detail::StateAccess::keep_snapshot(state, n, head, start + i + 1);
      }
    }
    detail::StateAccess::advance(state, n, span.count);
  }
}

NHA_ISA_NAMESPACE_END
