// SPDX-License-Identifier: MIT
// The recurrent algorithm: one token of one key/value head, in place, at a cost that does not
// depend on the tokens before it. Update and read are one pass over the memories for all queries of
// the group.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/arena.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/decode.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/simd_half.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The scratch memory of one worker: one token of one head.
template <class Acc>
struct RecurrentScratch {
  Acc* q_slot;        // [group, padded(key_dim)], scaled
  Acc* q_window;      // [group, padded(key_dim)], scaled
  Acc* logits;        // [group, padded(slots) + padded(window)], then weights
  Acc* output;        // [group, padded(value_dim)]
  Acc* retention;     // [padded(slots)] of this token
  Acc* write;         // [padded(slots)]
  Acc* key;           // [padded(key_dim)]: the key that enters the slots
  Acc* value;         // [padded(value_dim)]: its value
  Acc* inverse_mass;  // [padded(slots)]; mass_corrected only
  Acc* log_mass;      // [padded(slots)]

  static RecurrentScratch take(Arena& cursor, const AttentionShape& shape, Index window,
                               Index group) noexcept {
    RecurrentScratch s;
    s.q_slot = cursor.take<Acc>(group * padded(shape.key_dim));
    s.q_window = cursor.take<Acc>(group * padded(shape.key_dim));
    s.logits = cursor.take<Acc>(group * (padded(shape.slots) + padded(window)));
    s.output = cursor.take<Acc>(group * padded(shape.value_dim));
    s.retention = cursor.take<Acc>(padded(shape.slots));
    s.write = cursor.take<Acc>(padded(shape.slots));
    s.key = cursor.take<Acc>(padded(shape.key_dim));
    s.value = cursor.take<Acc>(padded(shape.value_dim));
    s.inverse_mass = cursor.take<Acc>(padded(shape.slots));
    s.log_mass = cursor.take<Acc>(padded(shape.slots));
    return s;
  }
  static std::size_t bytes(const AttentionShape& shape, Index window, Index group) noexcept {
    Arena cursor(nullptr);
    take(cursor, shape, window, group);
    return cursor.used();
  }
};

/// Scratch bytes of one worker of the recurrent algorithm, whichever head it gets.
template <class State>
std::size_t recurrent_bytes(const State& state, Index query_heads) {
  std::size_t most = 0;
  for (Index h = 0; h < state.shape().kv_heads; ++h)
    most = std::max(most, RecurrentScratch<typename State::Acc>::bytes(
                              state.shape(), head_options(state.options(), h).window,
                              query_heads / state.shape().kv_heads));
  return most;
}

/// Steps one sequence through tokens in one key/value head.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
class RecurrentHead {
  using Acc = accumulate_t<T>;
  using V = cpu::simd::vec<Acc, Arch>;
  using Inputs = AttentionInputs<T, KeyDim, ValueDim, Slots>;
  using Outputs = AttentionOutputs<T, ValueDim>;
  using State = AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>;

 public:
  RecurrentHead(const Inputs& inputs, State& state, const Outputs& outputs, std::byte* scratch,
                Index sequence, Index head) noexcept
      : in_(inputs),
        out_(outputs),
        state_(state),
        memory_(StateAccess::head(state, sequence, head)),
        options_(head_options(state.options(), head)),
        sequence_(sequence),
        head_(head),
        group_(outputs.o.extent(2) / state.shape().kv_heads),
        initial_slots_(state.has_initial_slots(sequence)),
        empty_slots_(state.options().empty_slots),
        scale_(static_cast<Acc>(softmax_scale(state.options(), state.shape().key_dim))) {
    Arena cursor(scratch);
    s_ = RecurrentScratch<Acc>::take(cursor, state.shape(), options_.window, group_);
    if (state.bytes() > kFetchedBytes) {
      // As much is fetched as the keys are long, so the values must not be shorter.
      const auto& slots = memory_.slots;
      if (slots.slots * slots.value_stride() >= slots.key_dim * slots.key_stride())
        slot_values_ahead_ = slots.value;
      const auto& window = memory_.window;
      if (window.value_stride() >= window.key_stride()) window_values_ahead_ = window.value;
    }
  }

  void run() noexcept {
    const SequenceSpan span = sequence_span(in_, sequence_);
    const std::int64_t start = state_.tokens_seen(sequence_);
    for (Index i = 0; i < span.count; ++i) {
      token(span.row, span.first + i, start + i);
      StateAccess::keep_snapshot(state_, sequence_, head_, start + i + 1);
    }
  }

 private:
  /// States beyond this size, which no second-level cache holds, have their values fetched while
  /// the keys are scored. (Fetching the next head's keys as well made it slower.)
  static constexpr std::size_t kFetchedBytes = std::size_t{2} << 20;
  Index padded_slots() const noexcept { return padded(memory_.slots.slots); }
  Index logit_stride() const noexcept { return padded_slots() + padded(options_.window); }

  void token(Index row, Index token, std::int64_t position) noexcept {
    const T* value = &in_.v(row, token, head_, 0);
    const std::int64_t oldest = std::max<std::int64_t>(0, position - options_.window + 1);
    const auto visible = static_cast<Index>(position + 1 - oldest);
    const std::int64_t entering = position - options_.slot_delay;
    const bool enters = memory_.slots.slots > 0 && entering >= 0;

    pack_queries(row, token);
    const Index dim = padded(memory_.slots.key_dim);
    const cpu::QueryRows<Acc> weights{s_.logits, logit_stride()};
    const cpu::QueryRows<Acc> window_weights{s_.logits + padded_slots(), logit_stride()};
    const cpu::QueryRows<Acc> output{s_.output, memory_.slots.value_stride()};
    const cpu::EnteringToken<Acc>* new_token = enters ? &entering_token_ : nullptr;
    const T* slot_key = nullptr;
    if (memory_.slots.slots > 0) {
      slot_key = &in_.k_slot(row, token, head_, 0);
      cpu::pack_gates<Arch>(
          &in_.log_gate(row, token, head_, 0),
          in_.write.data() != nullptr ? &in_.write(row, token, head_, 0) : nullptr,
          memory_.slots.slots, s_.retention, s_.write);
      // The entering token is read before its row is given to the new one.
      if (enters) take_entering_token(entering, slot_key, value);
      cpu::score_slots<Arch>(memory_.slots, new_token, group_, {s_.q_slot, dim}, weights,
                             slot_values_ahead_);
      if (enters) add_mass();
      weigh_empty_slots(enters);
    }
    memory_.window.push(position,
                        options_.window > 0 ? &in_.k_window(row, token, head_, 0) : nullptr, value);
    cpu::score_window<Arch>(memory_.window, oldest, visible, group_, {s_.q_window, dim},
                            window_weights, window_values_ahead_);
    hide_padding(visible);
    finish_softmax(row, token);
    if (memory_.slots.slots > 0) {
      if (empty_slots_ == EmptySlots::mass_corrected) divide_weights_by_mass();
      cpu::read_slots<Arch>(memory_.slots, new_token, group_, {s_.logits, logit_stride()}, output);
      memory_.pending.push(position, slot_key, s_.retention, s_.write);
    } else {
      std::fill_n(s_.output, group_ * output.stride, Acc{0});
    }
    cpu::read_window<Arch>(memory_.window, oldest, visible, group_,
                           {window_weights.data, window_weights.stride}, output);
    store_output(row, token);
  }

  /// Finds the token that enters the slots now: this one, or one that has waited.
  void take_entering_token(std::int64_t entering, const T* slot_key, const T* value) noexcept {
    if (options_.slot_delay == 0) {
      entering_token_ = {s_.retention, s_.write, s_.key, s_.value, entering};
    } else {
      slot_key = memory_.pending.key_row(entering);
      value = memory_.window.value_row(entering);
      entering_token_ = {memory_.pending.retention_row(entering),
                         memory_.pending.write_row(entering), s_.key, s_.value, entering};
    }
    cpu::pack_row(slot_key, memory_.slots.key_dim, s_.key);
    cpu::pack_row(value, memory_.slots.value_dim, s_.value);
    if constexpr (!std::is_same_v<SlotScalar, Acc>) {
      const auto settle = [](const auto& x) { return cpu::simd::settled(x); };
      cpu::simd::transform<Arch>(s_.key, s_.key, padded(memory_.slots.key_dim), settle);
      cpu::simd::transform<Arch>(s_.value, s_.value, padded(memory_.slots.value_dim), settle);
    }
  }
  void add_mass() noexcept {
    for (Index m = 0; m < memory_.slots.slots; ++m)
      memory_.slots.mass[m] = multiply_add(entering_token_.retention[m], memory_.slots.mass[m],
                                           entering_token_.write[m]);
  }
  /// Columns of the window's logits that hold no token take no part.
  void hide_padding(Index visible) noexcept {
    for (Index g = 0; g < group_; ++g) {
      Acc* logits = s_.logits + g * logit_stride() + padded_slots();
      std::fill(logits + visible, logits + padded(options_.window), -kInfinity<Acc>);
    }
  }

  void pack_queries(Index row, Index token) noexcept {
    const Index dim = memory_.slots.key_dim;
    for (Index g = 0; g < group_; ++g) {
      const Index query_head = head_ * group_ + g;
      if (memory_.slots.slots > 0)
        cpu::pack_scaled_row(&in_.q_slot(row, token, query_head, 0), dim, scale_,
                             s_.q_slot + g * padded(dim));
      if (options_.window > 0)
        cpu::pack_scaled_row(&in_.q_window(row, token, query_head, 0), dim, scale_,
                             s_.q_window + g * padded(dim));
    }
  }

  /// What the empty-slot rule does to the logits; padding never takes part.
  void weigh_empty_slots(bool enters) noexcept {
    const auto& slots = memory_.slots;
    const bool take_part = initial_slots_ || enters || empty_slots_ == EmptySlots::participate;
    const bool by_mass = empty_slots_ == EmptySlots::mass_corrected;
    if (by_mass)
      for (Index m = 0; m < slots.slots; ++m) {
        const bool live = slots.mass[m] > 0;
        s_.inverse_mass[m] = live ? Acc{1} / slots.mass[m] : Acc{0};
        s_.log_mass[m] = live ? std::log(slots.mass[m]) : -kInfinity<Acc>;
      }
    for (Index g = 0; g < group_; ++g) {
      Acc* logits = s_.logits + g * logit_stride();
      if (by_mass)
        for (Index m = 0; m < slots.slots; ++m)
          logits[m] = logits[m] * s_.inverse_mass[m] + s_.log_mass[m];
      std::fill(logits + (take_part ? Index{slots.slots} : 0), logits + padded_slots(),
                -kInfinity<Acc>);
    }
  }
  void divide_weights_by_mass() noexcept {
    for (Index g = 0; g < group_; ++g)
      for (Index m = 0; m < memory_.slots.slots; ++m)
        s_.logits[g * logit_stride() + m] *= s_.inverse_mass[m];
  }

  /// One softmax over slots and window; weights come out normalised.
  void finish_softmax(Index row, Index token) noexcept {
    for (Index g = 0; g < group_; ++g) {
      Acc* weights = s_.logits + g * logit_stride();
      SoftmaxState<Acc> softmax;
      cpu::online_softmax_update<Arch>(softmax, weights, logit_stride());
      const V normalizer(softmax.normalizer());
      cpu::simd::transform<Arch>(weights, weights, logit_stride(),
                                 [&](auto w) { return w * normalizer; });
      const Index query_head = head_ * group_ + g;
      if (out_.lse.data() != nullptr) out_.lse(row, token, query_head) = softmax.lse();
      if (out_.slot_share.data() != nullptr)
        out_.slot_share(row, token, query_head) = cpu::sum_row<Arch>(weights, padded_slots());
    }
  }

  void store_output(Index row, Index token) noexcept {
    for (Index g = 0; g < group_; ++g) {
      T* o = &out_.o(row, token, head_ * group_ + g, 0);
      const Acc* output = s_.output + g * memory_.slots.value_stride();
      for (Index d = 0; d < memory_.slots.value_dim; ++d) o[d] = static_cast<T>(output[d]);
    }
  }

  const Inputs& in_;
  const Outputs& out_;
  State& state_;
  HeadState<T, KeyDim, ValueDim, Slots, SlotScalar> memory_;
  HeadOptions options_;
  Index sequence_;
  Index head_;
  Index group_;
  bool initial_slots_;
  EmptySlots empty_slots_;
  Acc scale_;
  RecurrentScratch<Acc> s_;
  cpu::EnteringToken<Acc> entering_token_ = {};
  const SlotScalar* slot_values_ahead_ = nullptr;
  const T* window_values_ahead_ = nullptr;
};

/// The same with its types from the arguments.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
auto recurrent_head(const AttentionInputs<T, KeyDim, ValueDim, Slots>& inputs,
                    AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state,
                    const AttentionOutputs<T, ValueDim>& outputs, std::byte* scratch,
                    Index sequence, Index head) noexcept {
  return RecurrentHead<Arch, T, KeyDim, ValueDim, Slots, SlotScalar>(inputs, state, outputs,
                                                                     scratch, sequence, head);
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
