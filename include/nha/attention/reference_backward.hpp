// SPDX-License-Identifier: MIT
// reference_backward(): gradients by the chain rule applied to reference(), token by token.
//
// Nothing here is fast and everything is meant to be read.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/gradients.hpp>
#include <nha/attention/head_call.hpp>
#include <nha/attention/head_gradients.hpp>
#include <nha/attention/validate.hpp>
#include <nha/attention/validate_backward.hpp>
#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/memory/slot_memory.hpp>
#include <nha/memory/state_base.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// sum of a[d] * b[d], in double.
template <class A, class B>
double dot_in_double(const A* a, const B* b, Index size) {
  double sum = 0;
  for (Index d = 0; d < size; ++d)
    sum += static_cast<double>(widen(a[d])) * static_cast<double>(widen(b[d]));
  return sum;
}

/// to[d] += factor * row[d], in double.
template <class U>
void add_in_double(double factor, const U* row, Index size, double* to) {
  for (Index d = 0; d < size; ++d) to[d] += factor * static_cast<double>(widen(row[d]));
}

/// A matrix, zero at first.
struct DoubleRows {
  DoubleRows(Index rows, Index columns)
      : numbers(static_cast<std::size_t>(rows * columns)), width(columns) {}
  double* row(Index i) { return numbers.data() + i * width; }
  const double* row(Index i) const { return numbers.data() + i * width; }

  std::vector<double> numbers;
  Index width;
};

/// The slots of one head at one moment, or a gradient with respect to them.
struct DoubleSlots {
  DoubleSlots(Index slots, Index key_dim, Index value_dim)
      : key(slots, key_dim), value(slots, value_dim), mass(slots, 1) {}

  /// Multiplies all of slot m.
  void scale(Index m, double factor) {
    for (Index d = 0; d < key.width; ++d) key.row(m)[d] *= factor;
    for (Index d = 0; d < value.width; ++d) value.row(m)[d] *= factor;
    *mass.row(m) *= factor;
  }
  /// A token enters slot m: slot <- retention . slot + write (x) token.
  template <class T>
  void enter(Index m, double retention, double write, const T* token_key, const T* token_value) {
    scale(m, retention);
    add_in_double(write, token_key, key.width, key.row(m));
    add_in_double(write, token_value, value.width, value.row(m));
    *mass.row(m) += write;
  }

  DoubleRows key;    // [M, Dk]
  DoubleRows value;  // [M, Dv]
  DoubleRows mass;   // [M, 1]
};

/// One head's tokens of a call. Names: x is a number of the forward pass, d_x the derivative of the
/// loss with respect to it.
template <class T, class SlotScalar>
class ReferenceBackwardHead {
  using Acc = accumulate_t<T>;

 public:
  ReferenceBackwardHead(const HeadCall<T, SlotScalar>& call, double scale,
                        const HeadCotangents<T>& cotangents, const HeadGradients<T>& gradients)
      : call_(call),
        scale_(scale),
        cotangents_(cotangents),
        gradients_(gradients),
        key_dim_(call.key_dim()),
        value_dim_(call.value_dim()),
        retention_(1, call.slots()),
        write_(1, call.slots()),
        d_slots_(call.slots(), key_dim_, value_dim_),
        d_q_window_(call.tokens() * call.group, key_dim_),
        d_k_window_(call.tokens(), key_dim_),
        d_q_slot_(call.tokens() * call.group, key_dim_),
        d_k_slot_(call.tokens(), key_dim_),
        d_v_(call.tokens(), value_dim_),
        d_log_gate_(call.tokens(), call.slots()),
        d_write_(call.tokens(), call.slots()) {}

  void run() {
    recompute_slots();
    begin_with_final_slots();
    for (Index t = call_.tokens() - 1; t >= 0; --t) {
      for (Index g = 0; g < call_.group; ++g) read_backward(t, g);
      enter_backward(t);
    }
    store_gradients();
  }

 private:
  /// Position of the token that enters the slots when token t of the call is read; negative where
  /// none does.
  std::int64_t entering(Index t) const { return call_.entering(call_.begin + t); }

  /// Sets retention_ and write_ to those of a token.
  void load_gates(std::int64_t position) {
    if (!call_.in_call(position)) {
      const auto& pending = call_.memory.pending;
      std::copy_n(pending.retention_row(position), call_.slots(), retention_.row(0));
      std::copy_n(pending.write_row(position), call_.slots(), write_.row(0));
      return;
    }
    const Acc* log_gate = call_.log_gate.row(call_.token(position));
    const Acc* given = call_.write ? call_.write.row(call_.token(position)) : nullptr;
    for (Index m = 0; m < call_.slots(); ++m) {
      retention_.row(0)[m] = retention(static_cast<double>(log_gate[m]));
      write_.row(0)[m] = given != nullptr ? static_cast<double>(given[m])
                                          : default_write(static_cast<double>(log_gate[m]));
    }
  }

  /// Fills slots_: element 0 is as the call found them, element t + 1 as token t reads them.
  void recompute_slots() {
    const auto& found = call_.memory.slots;
    DoubleSlots slots(call_.slots(), key_dim_, value_dim_);
    for (Index m = 0; m < call_.slots(); ++m) {
      for (Index d = 0; d < key_dim_; ++d)
        slots.key.row(m)[d] = static_cast<double>(widen(found.key_at(m, d)));
      for (Index d = 0; d < value_dim_; ++d)
        slots.value.row(m)[d] = static_cast<double>(widen(found.value_at(m, d)));
      *slots.mass.row(m) = static_cast<double>(found.mass[m]);
    }
    slots_.push_back(slots);
    for (Index t = 0; t < call_.tokens(); ++t) {
      const std::int64_t position = entering(t);
      if (position >= 0 && call_.slots() > 0) {
        load_gates(position);
        for (Index m = 0; m < call_.slots(); ++m)
          slots.enter(m, retention_.row(0)[m], write_.row(0)[m], call_.slot_key(position),
                      call_.value(position));
      }
      slots_.push_back(slots);
    }
  }

  void begin_with_final_slots() {
    const auto& d_final = cotangents_.slots;
    for (Index m = 0; m < call_.slots(); ++m) {
      if (d_final.key != nullptr)
        add_in_double(1, d_final.key_row(m), key_dim_, d_slots_.key.row(m));
      if (d_final.value != nullptr)
        add_in_double(1, d_final.value_row(m), value_dim_, d_slots_.value.row(m));
      if (d_final.mass != nullptr) *d_slots_.mass.row(m) = static_cast<double>(d_final.mass_of(m));
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
    const std::int64_t position = call_.begin + t;
    const Index visible = call_.visible(position);
    const auto cotangent = [&](const auto& of_queries) {
      return of_queries ? static_cast<double>(*of_queries.row(t, g)) : 0.0;
    };
    Reading r{.query_row = t * call_.group + g,
              .slots = slots_[static_cast<std::size_t>(t) + 1],
              .oldest = call_.oldest_visible(position),
              .visible = visible,
              .q_slot = call_.slots() > 0 ? call_.q_slot.row(t, g) : nullptr,
              .q_window = visible > 0 ? call_.q_window.row(t, g) : nullptr,
              .d_o = cotangents_.o.row(t, g),
              .d_lse = cotangent(cotangents_.lse),
              .d_share = cotangent(cotangents_.slot_share),
              .slots_take_part = call_.slots_take_part(position)};
    if (!weigh(r)) return;  // nothing to read: the results are constants
    softmax_backward(r);
    slots_backward(r);
    window_backward(r);
  }

  /// What keys and values of a slot are divided by when they are read.
  double divisor(const DoubleSlots& slots, Index m) const {
    return call_.rule.divisor(*slots.mass.row(m));
  }
  bool hidden(const Reading& r, Index m) const {
    return !r.slots_take_part || divisor(r.slots, m) <= 0;
  }

  /// The weights, as in the forward pass; false where there is nothing to read.
  bool weigh(Reading& r) const {
    for (Index m = 0; m < call_.slots(); ++m) {
      const double mass = divisor(r.slots, m);
      r.weight.push_back(
          hidden(r, m) ? -kInfinity<double>
                       : scale_ * dot_in_double(r.q_slot, r.slots.key.row(m), key_dim_) / mass +
                             std::log(mass));
    }
    for (Index i = 0; i < r.visible; ++i)
      r.weight.push_back(scale_ *
                         dot_in_double(r.q_window, call_.window_key(r.oldest + i), key_dim_));
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
    for (Index m = 0; m < call_.slots(); ++m)
      r.d_logit.push_back(hidden(r, m) ? 0
                                       : dot_in_double(r.d_o, r.slots.value.row(m), value_dim_) /
                                                 divisor(r.slots, m) +
                                             r.d_share);
    for (Index i = 0; i < r.visible; ++i)
      r.d_logit.push_back(dot_in_double(r.d_o, call_.value(r.oldest + i), value_dim_));
    const double mean =
        dot_in_double(r.weight.data(), r.d_logit.data(), static_cast<Index>(r.weight.size()));
    for (std::size_t n = 0; n < r.weight.size(); ++n)
      r.d_logit[n] = r.weight[n] * (r.d_logit[n] - mean + r.d_lse);
  }

  /// Back through logit = scale q . key / mass + log(mass) and the value read, value / mass; mass
  /// counts where slots are corrected by it, and is 1 elsewhere.
  void slots_backward(const Reading& r) {
    for (Index m = 0; m < call_.slots(); ++m) {
      if (hidden(r, m)) continue;
      const double mass = divisor(r.slots, m);
      const double weight = r.weight[static_cast<std::size_t>(m)];
      const double d_logit = r.d_logit[static_cast<std::size_t>(m)];
      const double d_product = d_logit * scale_ / mass;
      const double* key = r.slots.key.row(m);
      add_in_double(d_product, key, key_dim_, d_q_slot_.row(r.query_row));
      add_in_double(d_product, r.q_slot, key_dim_, d_slots_.key.row(m));
      add_in_double(weight / mass, r.d_o, value_dim_, d_slots_.value.row(m));
      if (!call_.rule.reads_means()) continue;
      const double through_key = d_product * dot_in_double(r.q_slot, key, key_dim_);
      const double through_value =
          weight / mass * dot_in_double(r.d_o, r.slots.value.row(m), value_dim_);
      *d_slots_.mass.row(m) += (d_logit - through_key - through_value) / mass;
    }
  }

  void window_backward(const Reading& r) {
    for (Index i = 0; i < r.visible; ++i) {
      const std::int64_t position = r.oldest + i;
      const auto n = static_cast<std::size_t>(call_.slots() + i);
      const double d_product = r.d_logit[n] * scale_;
      add_in_double(d_product, call_.window_key(position), key_dim_, d_q_window_.row(r.query_row));
      if (!call_.in_call(position)) continue;
      add_in_double(d_product, r.q_window, key_dim_, d_k_window_.row(call_.token(position)));
      add_in_double(r.weight[n], r.d_o, value_dim_, d_v_.row(call_.token(position)));
    }
  }

  /// Back through slot <- retention . slot + write (x) token. The gradient of the slots as token t
  /// reads them becomes that of the slots before, and of the token that entered.
  void enter_backward(Index t) {
    const std::int64_t position = entering(t);
    if (position < 0 || call_.slots() == 0) return;
    load_gates(position);
    const DoubleSlots& before = slots_[static_cast<std::size_t>(t)];
    for (Index m = 0; m < call_.slots(); ++m) {
      const double retention = retention_.row(0)[m];
      const double* d_key = d_slots_.key.row(m);
      const double* d_value = d_slots_.value.row(m);
      const double d_mass = *d_slots_.mass.row(m);
      if (call_.in_call(position)) {
        const double d_retention = dot_in_double(d_key, before.key.row(m), key_dim_) +
                                   dot_in_double(d_value, before.value.row(m), value_dim_) +
                                   d_mass * *before.mass.row(m);
        const double d_write = dot_in_double(d_key, call_.slot_key(position), key_dim_) +
                               dot_in_double(d_value, call_.value(position), value_dim_) + d_mass;
        // retention = exp(log_gate), and write = 1 - exp(log_gate) unless it is given.
        const Index token = call_.token(position);
        d_log_gate_.row(token)[m] = retention * (call_.write ? d_retention : d_retention - d_write);
        d_write_.row(token)[m] = d_write;
        const double write = write_.row(0)[m];
        add_in_double(write, d_key, key_dim_, d_k_slot_.row(token));
        add_in_double(write, d_value, value_dim_, d_v_.row(token));
      }
      d_slots_.scale(m, retention);
    }
  }

  void store_gradients() const {
    store_tokens(gradients_.q_window, d_q_window_, call_.group);
    store_tokens(gradients_.k_window, d_k_window_, 1);
    store_tokens(gradients_.q_slot, d_q_slot_, call_.group);
    store_tokens(gradients_.k_slot, d_k_slot_, 1);
    store_tokens(gradients_.v, d_v_, 1);
    store_tokens(gradients_.log_gate, d_log_gate_, 1);
    store_tokens(gradients_.write, d_write_, 1);
    const auto& slots = gradients_.slots;
    for (Index m = 0; m < call_.slots(); ++m) {
      if (slots.key != nullptr)
        for (Index d = 0; d < key_dim_; ++d)
          slots.key_row(m)[d] = static_cast<Acc>(d_slots_.key.row(m)[d]);
      if (slots.value != nullptr)
        for (Index d = 0; d < value_dim_; ++d)
          slots.value_row(m)[d] = static_cast<Acc>(d_slots_.value.row(m)[d]);
      if (slots.mass != nullptr) slots.mass_of(m) = static_cast<Acc>(*d_slots_.mass.row(m));
    }
  }
  /// Rows [tokens * heads] to the tensor's heads that belong to this key/value head.
  void store_tokens(const HeadRows<Acc>& to, const DoubleRows& rows, Index heads) const {
    if (!to) return;
    for (Index t = 0; t < call_.tokens(); ++t)
      for (Index h = 0; h < heads; ++h)
        for (Index d = 0; d < rows.width; ++d)
          to.row(t, h)[d] = static_cast<Acc>(rows.row(t * heads + h)[d]);
  }

  const HeadCall<T, SlotScalar>& call_;
  double scale_;
  const HeadCotangents<T>& cotangents_;
  const HeadGradients<T>& gradients_;
  Index key_dim_;
  Index value_dim_;

  DoubleRows retention_, write_;    // [1, M] of the token that enters
  std::vector<DoubleSlots> slots_;  // [tokens + 1]
  DoubleSlots d_slots_;             // as of the token that is being gone back through
  DoubleRows d_q_window_, d_k_window_, d_q_slot_, d_k_slot_, d_v_, d_log_gate_, d_write_;
};

}  // namespace detail

/// Gradients of a loss with respect to the inputs of a call of the operator, from the cotangents of
/// its results. The chain rule applied to reference(), token by token.
///
/// @param inputs what the call was given
/// @param state_before the state that the call began with: a copy made before the call, or a new
///   one. It is only read. Its slots count as initial slots and have gradients. Its tokens in the
///   window, or waiting to enter the slots, are constants (see AttentionGradients).
/// @param cotangents derivatives with respect to the results of the call
/// @param gradients where to write; those left out are not wanted
///
/// The call is computed again, so nothing of it need be kept. All sums are in double, whatever T
/// is, and rounded once. Allocates T M (Dk + Dv + 1) doubles for the slots of a head, and less for
/// all else.
/// @throws ArgumentError as validate_backward() says; nothing has then been touched.
template <class T, class SlotScalar>
void reference_backward(const std::type_identity_t<AttentionInputs<T>>& inputs,
                        const AttentionStateBase<T, SlotScalar>& state_before,
                        const std::type_identity_t<AttentionCotangents<T>>& cotangents,
                        const std::type_identity_t<AttentionGradients<T>>& gradients) {
  validate_backward(inputs, state_before, cotangents, gradients);
  const AttentionShape& shape = state_before.shape();
  const Index group = cotangents.o.extent(2) / shape.kv_heads;
  for (Index n = 0; n < shape.batch; ++n)
    for (Index head = 0; head < shape.kv_heads; ++head) {
      const auto span = detail::sequence_span(inputs, n);
      const auto call = detail::head_call(inputs, state_before, cotangents.o.extent(2), n, head);
      const detail::HeadCotangents<T> of_results(cotangents, span, group, n, head);
      const detail::HeadGradients<T> of_inputs(gradients, span, group, n, head);
      detail::ReferenceBackwardHead<T, SlotScalar>(
          call, softmax_scale(state_before.options(), shape.key_dim), of_results, of_inputs)
          .run();
    }
}

NHA_ISA_NAMESPACE_END
