// SPDX-License-Identifier: MIT
// The gradients of Native Hybrid Attention by their definition, one token at a time, for any
// scalar type: the chain rule applied to what reference.hpp computes.
//
// Nothing here is fast and everything is meant to be read.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/double_slots.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/validate.hpp>
#include <nha/attention/validate_backward.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
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

/// One sequence's new tokens in one key/value head. Names: x is a number of the forward pass, d_x
/// the derivative of the loss with respect to it.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
class ReferenceBackwardHead {
  using Acc = accumulate_t<T>;
  using Inputs = AttentionInputs<T, KeyDim, ValueDim, Slots>;
  using Cotangents = AttentionCotangents<T, ValueDim>;
  using Gradients = AttentionGradients<T, KeyDim, ValueDim, Slots>;
  using State = AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>;

 public:
  ReferenceBackwardHead(const Inputs& inputs, const State& state, const Cotangents& cotangents,
                        const Gradients& gradients, Index sequence, Index head)
      : in_(inputs),
        cotangents_(cotangents),
        gradients_(gradients),
        memory_(StateAccess::head(state, sequence, head)),
        sequence_(sequence),
        head_(head),
        span_(sequence_span(inputs, sequence)),
        start_(state.tokens_seen(sequence)),
        initial_slots_(state.has_initial_slots(sequence)),
        rule_(state.options().empty_slots),
        head_options_(head_options(state.options(), head)),
        scale_(softmax_scale(state.options(), state.shape().key_dim)),
        group_(cotangents.o.extent(2) / state.shape().kv_heads),
        slot_count_(state.shape().slots),
        key_dim_(state.shape().key_dim),
        value_dim_(state.shape().value_dim),
        retention_(1, slot_count_),
        write_(1, slot_count_),
        d_slots_(slot_count_, key_dim_, value_dim_),
        d_q_window_(span_.count * group_, key_dim_),
        d_k_window_(span_.count, key_dim_),
        d_q_slot_(span_.count * group_, key_dim_),
        d_k_slot_(span_.count, key_dim_),
        d_v_(span_.count, value_dim_),
        d_log_gate_(span_.count, slot_count_),
        d_write_(span_.count, slot_count_) {}

  void run() {
    recompute_slots();
    begin_with_final_slots();
    for (Index t = span_.count - 1; t >= 0; --t) {
      for (Index g = 0; g < group_; ++g) read_backward(t, g);
      enter_backward(t);
    }
    store_gradients();
  }

 private:
  // A token of the call lies in the inputs, an earlier one in the state.
  bool in_call(std::int64_t position) const { return position >= start_; }
  Index token_of(std::int64_t position) const { return static_cast<Index>(position - start_); }
  const T* input_row(const auto& view, Index t, Index head) const {
    return &view(span_.row, span_.first + t, head, 0);
  }
  const T* window_key(std::int64_t position) const {
    return in_call(position) ? input_row(in_.k_window, token_of(position), head_)
                             : memory_.window.key_row(position);
  }
  const T* value(std::int64_t position) const {
    return in_call(position) ? input_row(in_.v, token_of(position), head_)
                             : memory_.window.value_row(position);
  }
  const T* slot_key(std::int64_t position) const {
    return in_call(position) ? input_row(in_.k_slot, token_of(position), head_)
                             : memory_.pending.key_row(position);
  }

  /// Position of the token that enters the slots when token t of the call is read; negative where
  /// none does.
  std::int64_t entering(Index t) const { return start_ + t - head_options_.slot_delay; }

  /// Sets retention_ and write_ to those of a token.
  void load_gates(std::int64_t position) {
    for (Index m = 0; m < slot_count_; ++m) {
      if (!in_call(position)) {
        retention_.row(0)[m] = static_cast<double>(memory_.pending.retention_row(position)[m]);
        write_.row(0)[m] = static_cast<double>(memory_.pending.write_row(position)[m]);
        continue;
      }
      const Index token = span_.first + token_of(position);
      const auto log_gate = static_cast<double>(in_.log_gate(span_.row, token, head_, m));
      retention_.row(0)[m] = retention(log_gate);
      write_.row(0)[m] = in_.write.data() != nullptr
                             ? static_cast<double>(in_.write(span_.row, token, head_, m))
                             : default_write(log_gate);
    }
  }

  /// Fills slots_: element 0 is as the call found them, element t + 1 as token t reads them.
  void recompute_slots() {
    DoubleSlots slots(slot_count_, key_dim_, value_dim_);
    for (Index m = 0; m < slot_count_; ++m) {
      for (Index d = 0; d < key_dim_; ++d)
        slots.key.row(m)[d] = static_cast<double>(widen(memory_.slots.key_at(m, d)));
      for (Index d = 0; d < value_dim_; ++d)
        slots.value.row(m)[d] = static_cast<double>(widen(memory_.slots.value_at(m, d)));
      *slots.mass.row(m) = static_cast<double>(memory_.slots.mass[m]);
    }
    slots_.push_back(slots);
    for (Index t = 0; t < span_.count; ++t) {
      const std::int64_t position = entering(t);
      if (position >= 0 && slot_count_ > 0) {
        load_gates(position);
        for (Index m = 0; m < slot_count_; ++m)
          slots.enter(m, retention_.row(0)[m], write_.row(0)[m], slot_key(position),
                      value(position));
      }
      slots_.push_back(slots);
    }
  }

  void begin_with_final_slots() {
    for (Index m = 0; m < slot_count_; ++m) {
      if (cotangents_.slot_k.data() != nullptr)
        add_in_double(1, &cotangents_.slot_k(sequence_, head_, m, 0), key_dim_,
                      d_slots_.key.row(m));
      if (cotangents_.slot_v.data() != nullptr)
        add_in_double(1, &cotangents_.slot_v(sequence_, head_, m, 0), value_dim_,
                      d_slots_.value.row(m));
      if (cotangents_.mass.data() != nullptr)
        *d_slots_.mass.row(m) = static_cast<double>(cotangents_.mass(sequence_, head_, m));
    }
  }

  /// One query of one token, and what it reads: slots first, then the window from `oldest` on.
  struct Reading {
    Index query_row;  // t * group + g
    const DoubleSlots& slots;
    std::int64_t oldest;
    Index visible;
    const T* q_slot;
    const T* q_window;
    const T* d_o;
    double d_lse;
    double d_share;
    bool slots_take_part;
    std::vector<double> weight = {};   // [M + visible], softmax of the logits
    std::vector<double> d_logit = {};  // [M + visible]
  };

  void read_backward(Index t, Index g) {
    const Index query_head = head_ * group_ + g;
    const std::int64_t position = start_ + t;
    const std::int64_t oldest = std::max<std::int64_t>(0, position - head_options_.window + 1);
    const auto visible = static_cast<Index>(position + 1 - oldest);
    const auto cotangent = [&](const auto& view) {
      const Index token = span_.first + t;
      return view.data() != nullptr ? static_cast<double>(view(span_.row, token, query_head)) : 0;
    };
    Reading r{
        .query_row = t * group_ + g,
        .slots = slots_[static_cast<std::size_t>(t) + 1],
        .oldest = oldest,
        .visible = visible,
        .q_slot = slot_count_ > 0 ? input_row(in_.q_slot, t, query_head) : nullptr,
        .q_window = visible > 0 ? input_row(in_.q_window, t, query_head) : nullptr,
        .d_o = input_row(cotangents_.o, t, query_head),
        .d_lse = cotangent(cotangents_.lse),
        .d_share = cotangent(cotangents_.slot_share),
        .slots_take_part = rule_ == EmptySlots::participate || initial_slots_ || entering(t) >= 0};
    if (!weigh(r)) return;  // nothing to read: the results are constants
    softmax_backward(r);
    slots_backward(r);
    window_backward(r);
  }

  /// What keys and values of a slot are divided by when they are read.
  double divisor(const DoubleSlots& slots, Index m) const {
    return rule_ == EmptySlots::mass_corrected ? *slots.mass.row(m) : 1;
  }

  /// The weights, as in the forward pass; false where there is nothing to read.
  bool weigh(Reading& r) const {
    for (Index m = 0; m < slot_count_; ++m) {
      const double mass = divisor(r.slots, m);
      r.weight.push_back(r.slots_take_part && mass > 0
                             ? scale_ * dot_in_double(r.q_slot, r.slots.key.row(m), key_dim_) /
                                       mass +
                                   std::log(mass)
                             : -kInfinity<double>);
    }
    for (Index i = 0; i < r.visible; ++i)
      r.weight.push_back(scale_ * dot_in_double(r.q_window, window_key(r.oldest + i), key_dim_));
    double largest = -kInfinity<double>;
    for (const double logit : r.weight) largest = std::max(largest, logit);
    const double shift = largest == -kInfinity<double> ? 0 : largest;
    double sum = 0;
    for (double& w : r.weight) sum += w = std::exp(w - shift);
    if (sum == 0) return false;
    for (double& w : r.weight) w /= sum;
    return true;
  }

  /// Back through the softmax. With weights p, values v_n and d_p_n = d_o . v_n, to which a slot
  /// adds d_slot_share:  d_logit_n = p_n (d_p_n - sum_k p_k d_p_k + d_lse).
  void softmax_backward(Reading& r) const {
    for (Index m = 0; m < slot_count_; ++m) {
      const double mass = divisor(r.slots, m);
      const double d_value = dot_in_double(r.d_o, r.slots.value.row(m), value_dim_);
      r.d_logit.push_back(mass > 0 ? d_value / mass + r.d_share : 0);
    }
    for (Index i = 0; i < r.visible; ++i)
      r.d_logit.push_back(dot_in_double(r.d_o, value(r.oldest + i), value_dim_));
    const double mean =
        dot_in_double(r.weight.data(), r.d_logit.data(), static_cast<Index>(r.weight.size()));
    for (std::size_t n = 0; n < r.weight.size(); ++n)
      r.d_logit[n] = r.weight[n] * (r.d_logit[n] - mean + r.d_lse);
  }

  /// Back through logit = scale q . key / mass + log(mass) and the value read, value / mass; mass
  /// counts where slots are corrected by it, and is 1 elsewhere.
  void slots_backward(const Reading& r) {
    for (Index m = 0; m < slot_count_; ++m) {
      const double mass = divisor(r.slots, m);
      if (!r.slots_take_part || !(mass > 0)) continue;
      const double weight = r.weight[static_cast<std::size_t>(m)];
      const double d_logit = r.d_logit[static_cast<std::size_t>(m)];
      const double d_product = d_logit * scale_ / mass;
      const double* key = r.slots.key.row(m);
      add_in_double(d_product, key, key_dim_, d_q_slot_.row(r.query_row));
      add_in_double(d_product, r.q_slot, key_dim_, d_slots_.key.row(m));
      add_in_double(weight / mass, r.d_o, value_dim_, d_slots_.value.row(m));
      if (rule_ != EmptySlots::mass_corrected) continue;
      const double through_key = d_product * dot_in_double(r.q_slot, key, key_dim_);
      const double through_value =
          weight / mass * dot_in_double(r.d_o, r.slots.value.row(m), value_dim_);
      *d_slots_.mass.row(m) += (d_logit - through_key - through_value) / mass;
    }
  }

  void window_backward(const Reading& r) {
    for (Index i = 0; i < r.visible; ++i) {
      const auto n = static_cast<std::size_t>(slot_count_ + i);
      const double d_product = r.d_logit[n] * scale_;
      add_in_double(d_product, window_key(r.oldest + i), key_dim_, d_q_window_.row(r.query_row));
      if (!in_call(r.oldest + i)) continue;
      const Index token = token_of(r.oldest + i);
      add_in_double(d_product, r.q_window, key_dim_, d_k_window_.row(token));
      add_in_double(r.weight[n], r.d_o, value_dim_, d_v_.row(token));
    }
  }

  /// Back through slot <- retention . slot + write (x) token: from the gradient of the slots as
  /// token t reads them to that of the slots before, and of the token that entered.
  void enter_backward(Index t) {
    const std::int64_t position = entering(t);
    if (position < 0 || slot_count_ == 0) return;
    load_gates(position);
    const DoubleSlots& before = slots_[static_cast<std::size_t>(t)];
    for (Index m = 0; m < slot_count_; ++m) {
      const double retention = retention_.row(0)[m];
      const double* d_key = d_slots_.key.row(m);
      const double* d_value = d_slots_.value.row(m);
      const double d_mass = *d_slots_.mass.row(m);
      if (in_call(position)) {
        const double d_retention = dot_in_double(d_key, before.key.row(m), key_dim_) +
                                   dot_in_double(d_value, before.value.row(m), value_dim_) +
                                   d_mass * *before.mass.row(m);
        const double d_write = dot_in_double(d_key, slot_key(position), key_dim_) +
                               dot_in_double(d_value, value(position), value_dim_) + d_mass;
        // retention = exp(log_gate), and write = 1 - exp(log_gate) unless it is given.
        const Index token = token_of(position);
        const bool write_given = in_.write.data() != nullptr;
        d_log_gate_.row(token)[m] = retention * (write_given ? d_retention : d_retention - d_write);
        d_write_.row(token)[m] = d_write;
        const double write = write_.row(0)[m];
        add_in_double(write, d_key, key_dim_, d_k_slot_.row(token));
        add_in_double(write, d_value, value_dim_, d_v_.row(token));
      }
      d_slots_.scale(m, retention);
    }
  }

  void store_gradients() const {
    store_tokens(gradients_.q_window, d_q_window_, group_);
    store_tokens(gradients_.k_window, d_k_window_, 1);
    store_tokens(gradients_.q_slot, d_q_slot_, group_);
    store_tokens(gradients_.k_slot, d_k_slot_, 1);
    store_tokens(gradients_.v, d_v_, 1);
    store_tokens(gradients_.log_gate, d_log_gate_, 1);
    store_tokens(gradients_.write, d_write_, 1);
    for (Index m = 0; m < slot_count_; ++m) {
      if (gradients_.slot_k.data() != nullptr)
        for (Index d = 0; d < key_dim_; ++d)
          gradients_.slot_k(sequence_, head_, m, d) = static_cast<Acc>(d_slots_.key.row(m)[d]);
      if (gradients_.slot_v.data() != nullptr)
        for (Index d = 0; d < value_dim_; ++d)
          gradients_.slot_v(sequence_, head_, m, d) = static_cast<Acc>(d_slots_.value.row(m)[d]);
      if (gradients_.mass.data() != nullptr)
        gradients_.mass(sequence_, head_, m) = static_cast<Acc>(*d_slots_.mass.row(m));
    }
  }
  /// Rows [count * heads] to the tensor's heads that belong to this key/value head.
  void store_tokens(const auto& view, const DoubleRows& rows, Index heads) const {
    if (view.data() == nullptr) return;
    for (Index t = 0; t < span_.count; ++t)
      for (Index h = 0; h < heads; ++h)
        for (Index d = 0; d < rows.width; ++d)
          view(span_.row, span_.first + t, head_ * heads + h, d) =
              static_cast<Acc>(rows.row(t * heads + h)[d]);
  }

  const Inputs& in_;
  const Cotangents& cotangents_;
  const Gradients& gradients_;
  HeadState<T, KeyDim, ValueDim, Slots, SlotScalar> memory_;  // of a const state: only read
  Index sequence_;
  Index head_;
  SequenceSpan span_;
  std::int64_t start_;  // position of the call's first token
  bool initial_slots_;
  EmptySlots rule_;
  HeadOptions head_options_;
  double scale_;
  Index group_;
  Index slot_count_;
  Index key_dim_;
  Index value_dim_;

  DoubleRows retention_, write_;    // [1, M] of the token that enters
  std::vector<DoubleSlots> slots_;  // [count + 1]
  DoubleSlots d_slots_;             // as of the token that is being gone back through
  DoubleRows d_q_window_, d_k_window_, d_q_slot_, d_k_slot_, d_v_, d_log_gate_, d_write_;
};

}  // namespace detail

/// Gradients of a loss with respect to the inputs of a call of the operator, given those with
/// respect to its results: what the chain rule makes of reference(), going back token by token.
///
/// @param inputs what the call was given
/// @param state_before what it began from: a copy of the state made before it, or a newly made one.
///   It may hold tokens: their slots count as initial slots and have gradients; those in the window
///   or waiting to enter the slots are constants (see AttentionGradients). It is only read.
/// @param cotangents derivatives with respect to the results of the call
/// @param gradients where to write; those left out are not computed into anything
///
/// Nothing of the call itself is needed: it is computed again. All sums are in double, whatever T
/// is, and rounded once. Allocates: the slots as of each token of a head,
/// T M (Dk + Dv + 1) doubles, and less besides.
/// @throws ArgumentError as validate_backward() says; nothing has then been touched.
template <class T, Index KeyDim, Index ValueDim, Index Slots, class SlotScalar>
void reference_backward(
    const std::type_identity_t<AttentionInputs<T, KeyDim, ValueDim, Slots>>& inputs,
    const AttentionState<T, KeyDim, ValueDim, Slots, SlotScalar>& state_before,
    const std::type_identity_t<AttentionCotangents<T, ValueDim>>& cotangents,
    const std::type_identity_t<AttentionGradients<T, KeyDim, ValueDim, Slots>>& gradients) {
  validate_backward(inputs, state_before, cotangents, gradients);
  const AttentionShape& shape = state_before.shape();
  for (Index n = 0; n < shape.batch; ++n)
    for (Index head = 0; head < shape.kv_heads; ++head)
      detail::ReferenceBackwardHead<T, KeyDim, ValueDim, Slots, SlotScalar>(
          inputs, state_before, cotangents, gradients, n, head)
          .run();
}

NHA_ISA_NAMESPACE_END
