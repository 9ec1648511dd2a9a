// SPDX-License-Identifier: MIT
// reference(): the operator over a state, one token at a time, for any scalar type.
//
// definition.hpp has the operator as the paper states it. This is the same with the state that
// step(), prefill() and backward() continue from, in plain loops: they are tested against it.
// Nothing here is fast and everything is meant to be read.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/memory/head_state.hpp>
#include <nha/memory/state_base.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// What one token of one head needs, for heads of windows up to `window`.
template <class Acc>
struct ReferenceScratch {
  ReferenceScratch(const AttentionShape& shape, Index window)
      : retention(static_cast<std::size_t>(padded(shape.slots))),
        write(retention.size()),
        logits(static_cast<std::size_t>(shape.slots + window)),
        output(static_cast<std::size_t>(shape.value_dim)) {}

  std::vector<Acc> retention, write;  // [padded(M)]
  std::vector<Acc> logits;            // [M + W], slots first
  std::vector<Acc> output;            // [Dv]
};

/// One head of reference(), token by token.
template <class T, class SlotScalar>
class ReferenceHead {
  using Acc = accumulate_t<T>;

 public:
  ReferenceHead(const HeadCall<T, SlotScalar>& call, const HeadState<T, SlotScalar>& memory,
                const HeadOutputs<T>& outputs, ReferenceScratch<Acc>& scratch)
      : call_(call),
        memory_(memory),
        out_(outputs),
        retention_(scratch.retention),
        write_(scratch.write),
        logits_(scratch.logits),
        output_(scratch.output) {}

  /// The token enters the memories, then every query of the head's group reads them.
  void token(std::int64_t position) {
    const Index i = call_.token(position);
    if (call_.slots() > 0) {
      enter_slots(call_.entering(position), position);
      load_gates(position);
      memory_.pending.push(position, call_.k_slot.row(i), retention_.data(), write_.data());
    }
    memory_.window.push(position, call_.window > 0 ? call_.k_window.row(i) : nullptr,
                        call_.v.row(i));
    for (Index g = 0; g < call_.group; ++g) read(position, i, g);
  }

 private:
  static std::size_t size(Index count) { return static_cast<std::size_t>(count); }

  void load_gates(std::int64_t position) {
    call_.gates(position, retention_.data(), write_.data(),
                [&](const Acc* log_gate, const Acc* given, Acc* keep, Acc* add) {
                  for (Index m = 0; m < call_.slots(); ++m) {
                    keep[m] = retention(log_gate[m]);
                    add[m] = given != nullptr ? given[m] : default_write(log_gate[m]);
                  }
                });
  }
  void enter_slots(std::int64_t entering, std::int64_t position) {
    if (entering < 0) return;
    const auto& [slots, window, pending] = memory_;
    if (entering == position) {
      load_gates(position);
      slots.enter(retention_.data(), write_.data(), call_.slot_key(position), call_.value(position),
                  entering);
    } else {
      slots.enter(pending.retention_row(entering), pending.write_row(entering),
                  pending.key_row(entering), window.value_row(entering), entering);
    }
  }

  void read(std::int64_t position, Index i, Index g) {
    const auto& slots = memory_.slots;
    const Index count = call_.slots(), visible = call_.visible(position);
    const std::int64_t oldest = call_.oldest_visible(position);
    Acc* logits = logits_.data();
    for (Index m = 0; m < count; ++m) {
      const Acc divisor = call_.rule.divisor(slots.mass[m]);
      const bool hidden = !call_.slots_take_part(position) || divisor <= 0;
      logits[m] = hidden ? -kInfinity<Acc>
                         : call_.softmax_scale * dot(call_.q_slot.row(i, g), [&](Index d) {
                             return widen(slots.key_at(m, d)) / divisor;
                           }) + std::log(divisor);
    }
    for (Index n = 0; n < visible; ++n) {
      const T* key = memory_.window.key_row(oldest + n);
      logits[count + n] = call_.softmax_scale *
                          dot(call_.q_window.row(i, g), [&](Index d) { return widen(key[d]); });
    }

    // One softmax over both. With nothing to read every weight is 0.
    SoftmaxState<Acc> softmax;
    for (Index n = 0; n < count + visible; ++n)
      softmax.maximum = std::max(softmax.maximum, logits[n]);
    const Acc shift = softmax.maximum == -kInfinity<Acc> ? Acc{0} : softmax.maximum;
    Acc slot_sum{};
    std::fill(output_.begin(), output_.end(), Acc{0});
    for (Index n = 0; n < count + visible; ++n) {
      const Acc weight = std::exp(logits[n] - shift);
      softmax.sum += weight;
      if (n < count) slot_sum += weight;
      // A slot that takes no part may hold anything.
      if (n < count && logits[n] == -kInfinity<Acc>) continue;
      for (Index d = 0; d < call_.value_dim(); ++d)
        output_[size(d)] += weight * value(n, oldest, d);
    }
    T* o = out_.o.row(i, g);
    for (Index d = 0; d < call_.value_dim(); ++d)
      o[d] = static_cast<T>(output_[size(d)] * softmax.normalizer());
    if (out_.lse) *out_.lse.row(i, g) = softmax.lse();
    if (out_.slot_share) *out_.slot_share.row(i, g) = slot_sum * softmax.normalizer();
  }
  /// The n-th value that is read, slots first.
  Acc value(Index n, std::int64_t oldest, Index d) const {
    const auto& slots = memory_.slots;
    return n < slots.count ? widen(slots.value_at(n, d)) / call_.rule.divisor(slots.mass[n])
                           : widen(memory_.window.value_row(oldest + n - slots.count)[d]);
  }
  /// dot(q, key) in the type sums are kept in.
  template <class Key>
  Acc dot(const T* query, Key&& key) const {
    Acc sum{};
    for (Index d = 0; d < call_.key_dim(); ++d) sum += widen(query[d]) * key(d);
    return sum;
  }

  const HeadCall<T, SlotScalar>& call_;
  HeadState<T, SlotScalar> memory_;
  HeadOutputs<T> out_;
  std::vector<Acc>&retention_, &write_, &logits_, &output_;
};

}  // namespace detail

/// The operator of definition.hpp for every sequence and head of a state: from the state, and
/// leaving the state after the last token.
///
/// Shapes are those of AttentionInputs and AttentionOutputs. Allocates scratch.
/// @throws ArgumentError as validate() says, std::bad_alloc; nothing has then been touched.
template <class T, class SlotScalar>
void reference(const std::type_identity_t<AttentionInputs<T>>& inputs,
               AttentionStateBase<T, SlotScalar>& state,
               const std::type_identity_t<AttentionOutputs<T>>& outputs) {
  using detail::StateAccess;
  validate(inputs, state, outputs);
  Index window = 0;
  for (Index head = 0; head < state.shape().kv_heads; ++head)
    window = std::max(window, head_options(state.options(), head).window);
  // Before any head takes a token, in case memory runs out.
  detail::ReferenceScratch<accumulate_t<T>> scratch(state.shape(), window);
  for (Index n = 0; n < state.shape().batch; ++n) {
    for (Index head = 0; head < state.shape().kv_heads; ++head) {
      const auto call =
          detail::head_call(inputs, std::as_const(state), outputs.o.extent(2), n, head);
      detail::ReferenceHead<T, SlotScalar> reference(
          call, StateAccess::head(state, n, head),
          detail::head_outputs(inputs, outputs, call.group, n, head), scratch);
      for (std::int64_t position = call.begin; position < call.end; ++position) {
        reference.token(position);
        StateAccess::keep_snapshot(state, n, head, position + 1);
      }
    }
    StateAccess::advance(state, n, detail::sequence_span(inputs, n).count);
  }
}

NHA_ISA_NAMESPACE_END
