// SPDX-License-Identifier: MIT
// The recurrent algorithm: one token of one key/value head, in place, at a cost that does not
// depend on the tokens before it. Update and read are one pass over the memories for all queries of
// the group.
#pragma once

#include <nha/attention/arguments.hpp>
#include <nha/attention/validate.hpp>
#include <nha/config.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/memory/state.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

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
  Acc* key;           // [padded(key_dim)]: the key at hand, in Acc
  Acc* value;         // [padded(value_dim)]: the value at hand
  Acc* inverse_mass;  // [padded(slots)]; mass_corrected only

  static RecurrentScratch take(SectionCursor& cursor, const AttentionShape& shape, Index window,
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
    return s;
  }
  static std::size_t bytes(const AttentionShape& shape, Index window, Index group) noexcept {
    SectionCursor cursor(nullptr);
    take(cursor, shape, window, group);
    return cursor.used();
  }
};

/// Steps one sequence through tokens in one key/value head.
template <class Arch, class T, Index KeyDim, Index ValueDim, Index Slots>
class RecurrentHead {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  using Inputs = AttentionInputs<T, KeyDim, ValueDim, Slots>;
  using Outputs = AttentionOutputs<T, ValueDim>;
  using State = AttentionState<T, KeyDim, ValueDim, Slots>;
  static constexpr Index kLanes = simd::lanes<Acc, Arch>;

 public:
  RecurrentHead(const Inputs& inputs, State& state, const Outputs& outputs, std::byte* scratch,
                Index sequence, Index head) noexcept
      : in_(inputs),
        out_(outputs),
        state_(state),
        memory_(state.head(sequence, head)),
        options_(head_options(state.options(), head)),
        sequence_(sequence),
        head_(head),
        group_(outputs.o.extent(2) / state.shape().kv_heads),
        initial_slots_(state.has_initial_slots(sequence)),
        empty_slots_(state.options().empty_slots),
        scale_(static_cast<Acc>(logit_scale(state.options(), state.shape().key_dim))) {
    SectionCursor cursor(scratch);
    s_ = RecurrentScratch<Acc>::take(cursor, state.shape(), options_.window, group_);
  }

  void run() noexcept {
    const SequenceSpan span = sequence_span(in_, sequence_);
    const std::int64_t start = state_.tokens_seen(sequence_);
    for (Index i = 0; i < span.count; ++i) {
      token(span.row, span.first + i, start + i);
      state_.keep_snapshot(sequence_, head_, start + i + 1);
    }
  }

 private:
  Index padded_slots() const noexcept { return padded(memory_.slots.slots); }
  Index logit_stride() const noexcept { return padded_slots() + padded(options_.window); }

  void token(Index row, Index token, std::int64_t position) noexcept {
    const T* value = &in_.v(row, token, head_, 0);
    const std::int64_t oldest = std::max<std::int64_t>(0, position - options_.window + 1);
    const auto visible = static_cast<Index>(position + 1 - oldest);
    const std::int64_t entering = position - options_.slot_delay;
    const bool enters = memory_.slots.slots > 0 && entering >= 0;

    pack_queries(row, token);
    if (memory_.slots.slots > 0) {
      pack_gates<Arch>(&in_.log_gate(row, token, head_, 0),
                       in_.write.data() != nullptr ? &in_.write(row, token, head_, 0) : nullptr,
                       memory_.slots.slots, s_.retention, s_.write);
      const T* slot_key = &in_.k_slot(row, token, head_, 0);
      // The entering token is read before its row is given to the new one.
      const Acc* retention = s_.retention;
      const Acc* write = s_.write;
      if (options_.slot_delay > 0 && enters) {
        retention = memory_.pending.retention_row(entering);
        write = memory_.pending.write_row(entering);
      }
      if (enters) {
        const bool now = options_.slot_delay == 0;
        pack_row(now ? slot_key : memory_.pending.key_row(entering), memory_.slots.key_dim, s_.key);
        pack_row(now ? value : memory_.window.value_row(entering), memory_.slots.value_dim,
                 s_.value);
      }
      slot_logits(enters, retention, write);
      weigh_empty_slots(enters);
      window_logits(row, token, position, oldest, visible, value);
      finish_softmax(row, token);
      if (empty_slots_ == EmptySlots::mass_corrected) divide_weights_by_mass();
      slot_values(enters, retention, write);
      memory_.pending.push(position, slot_key, s_.retention, s_.write);
    } else {
      window_logits(row, token, position, oldest, visible, value);
      finish_softmax(row, token);
      std::fill_n(s_.output, group_ * padded(memory_.slots.value_dim), Acc{0});
    }
    window_values(oldest, visible);
    store_output(row, token);
  }

  void pack_queries(Index row, Index token) noexcept {
    const Index dim = memory_.slots.key_dim;
    for (Index g = 0; g < group_; ++g) {
      const Index query_head = head_ * group_ + g;
      if (memory_.slots.slots > 0)
        pack_scaled_row(&in_.q_slot(row, token, query_head, 0), dim, scale_,
                        s_.q_slot + g * padded(dim));
      if (options_.window > 0)
        pack_scaled_row(&in_.q_window(row, token, query_head, 0), dim, scale_,
                        s_.q_window + g * padded(dim));
    }
  }

  // Queries and slots are taken a tile at a time, so that sums and gates stay in registers.
  static constexpr int kQueries = 4;
  static constexpr int kVectors = static_cast<int>(std::min<Index>(2, kRowPadding / kLanes));

  /// key <- retention . key + write (x) entering key, and every query's logits against the result.
  void slot_logits(bool enters, const Acc* retention, const Acc* write) noexcept {
    for (Index slot = 0; slot < padded_slots(); slot += kVectors * kLanes)
      for (Index g = 0; g < group_; g += kQueries) {
        const Index queries = std::min<Index>(kQueries, group_ - g);
        const bool update = enters && g == 0;  // later queries of the group read what is there
        with_count<kQueries>(
            queries, [&](auto count) __attribute__((always_inline)) {
              if (update)
                slot_logits_tile<count, true>(slot, g, retention, write);
              else
                slot_logits_tile<count, false>(slot, g, retention, write);
            });
      }
    if (enters)
      for (Index m = 0; m < memory_.slots.slots; ++m)
        memory_.slots.mass[m] = multiply_add(retention[m], memory_.slots.mass[m], write[m]);
  }
  template <int Queries, bool Update>
  NHA_INLINE void slot_logits_tile(Index slot, Index first, const Acc* retention,
                                   const Acc* write) noexcept {
    const Index query_stride = padded(memory_.slots.key_dim);
    const Acc* query = s_.q_slot + first * query_stride;
    V keep[kVectors], add[kVectors], sum[Queries][kVectors];
    simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      if constexpr (Update) {
        keep[v] = simd::load<V>(retention + slot + v * kLanes);
        add[v] = simd::load<V>(write + slot + v * kLanes);
      }
      simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) { sum[q][v] = V(Acc{0}); });
    });
    for (Index d = 0; d < memory_.slots.key_dim; ++d) {
      Acc* at = memory_.slots.key + d * memory_.slots.key_stride() + slot;
      simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        V key = simd::load<V>(at + v * kLanes);
        if constexpr (Update) {
          key = simd::fma(keep[v], key, add[v] * V(s_.key[d]));
          simd::store(at + v * kLanes, key);
        }
        simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) {
          sum[q][v] = simd::fma(V(query[q * query_stride + d]), key, sum[q][v]);
        });
      });
    }
    simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) {
      simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        simd::store(s_.logits + (first + q) * logit_stride() + slot + v * kLanes, sum[q][v]);
      });
    });
  }

  /// What the empty-slot rule does to the logits; padding never takes part.
  void weigh_empty_slots(bool enters) noexcept {
    const auto& slots = memory_.slots;
    const bool take_part = initial_slots_ || enters || empty_slots_ == EmptySlots::participate;
    const bool by_mass = empty_slots_ == EmptySlots::mass_corrected;
    if (by_mass)
      for (Index m = 0; m < slots.slots; ++m)
        s_.inverse_mass[m] = slots.mass[m] > 0 ? Acc{1} / slots.mass[m] : Acc{0};
    for (Index g = 0; g < group_; ++g) {
      Acc* logits = s_.logits + g * logit_stride();
      if (by_mass)
        for (Index m = 0; m < slots.slots; ++m)
          logits[m] = slots.mass[m] > 0 ? logits[m] * s_.inverse_mass[m] + std::log(slots.mass[m])
                                        : -kInfinity<Acc>;
      std::fill(logits + (take_part ? Index{slots.slots} : 0), logits + padded_slots(),
                -kInfinity<Acc>);
    }
  }
  void divide_weights_by_mass() noexcept {
    for (Index g = 0; g < group_; ++g)
      for (Index m = 0; m < memory_.slots.slots; ++m)
        s_.logits[g * logit_stride() + m] *= s_.inverse_mass[m];
  }

  /// The new token joins the window; every query's logits against all of it.
  void window_logits(Index row, Index token, std::int64_t position, std::int64_t oldest,
                     Index visible, const T* value) noexcept {
    memory_.window.push(position,
                        options_.window > 0 ? &in_.k_window(row, token, head_, 0) : nullptr, value);
    const Index stride = padded(memory_.window.key_dim);
    for (Index i = 0; i < visible; ++i) {
      const Acc* key = in_acc(memory_.window.key_row(oldest + i), stride, s_.key);
      for (Index g = 0; g < group_; ++g) {
        const Acc* query = s_.q_window + g * stride;
        V sum(Acc{0});
        for (Index d = 0; d < stride; d += kLanes)
          sum = simd::fma(simd::load<V>(query + d), simd::load<V>(key + d), sum);
        s_.logits[g * logit_stride() + padded_slots() + i] = simd::reduce_add(sum);
      }
    }
    for (Index g = 0; g < group_; ++g) {
      Acc* logits = s_.logits + g * logit_stride() + padded_slots();
      std::fill(logits + visible, logits + padded(options_.window), -kInfinity<Acc>);
    }
  }

  /// One softmax over slots and window; weights come out normalised.
  void finish_softmax(Index row, Index token) noexcept {
    for (Index g = 0; g < group_; ++g) {
      Acc* weights = s_.logits + g * logit_stride();
      SoftmaxState<Acc> softmax;
      absorb<Arch>(softmax, weights, logit_stride());
      const V normalizer(softmax.normalizer());
      simd::transform<Arch>(weights, weights, logit_stride(),
                            [&](auto w) { return w * normalizer; });
      const Index query_head = head_ * group_ + g;
      if (out_.lse.data() != nullptr) out_.lse(row, token, query_head) = softmax.lse();
      if (out_.slot_share.data() != nullptr)
        out_.slot_share(row, token, query_head) = sum_row<Arch>(weights, padded_slots());
    }
  }

  /// value <- retention . value + write (x) entering value, and every query's share of the result.
  void slot_values(bool enters, const Acc* retention, const Acc* write) noexcept {
    for (Index column = 0; column < memory_.slots.value_stride(); column += kVectors * kLanes)
      for (Index g = 0; g < group_; g += kQueries) {
        const Index queries = std::min<Index>(kQueries, group_ - g);
        const bool update = enters && g == 0;
        with_count<kQueries>(
            queries, [&](auto count) __attribute__((always_inline)) {
              if (update)
                slot_values_tile<count, true>(column, g, retention, write);
              else
                slot_values_tile<count, false>(column, g, retention, write);
            });
      }
  }
  template <int Queries, bool Update>
  NHA_INLINE void slot_values_tile(Index column, Index first, const Acc* retention,
                                   const Acc* write) noexcept {
    V entering[kVectors], sum[Queries][kVectors];
    simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
      if constexpr (Update) entering[v] = simd::load<V>(s_.value + column + v * kLanes);
      simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) { sum[q][v] = V(Acc{0}); });
    });
    for (Index m = 0; m < memory_.slots.slots; ++m) {
      Acc* at = memory_.slots.value + m * memory_.slots.value_stride() + column;
      simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        V value = simd::load<V>(at + v * kLanes);
        if constexpr (Update) {
          value = simd::fma(V(retention[m]), value, V(write[m]) * entering[v]);
          simd::store(at + v * kLanes, value);
        }
        simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) {
          sum[q][v] = simd::fma(V(s_.logits[(first + q) * logit_stride() + m]), value, sum[q][v]);
        });
      });
    }
    simd::unroll<Queries>([&](auto q) __attribute__((always_inline)) {
      simd::unroll<kVectors>([&](auto v) __attribute__((always_inline)) {
        simd::store(s_.output + (first + q) * memory_.slots.value_stride() + column + v * kLanes,
                    sum[q][v]);
      });
    });
  }

  /// Every query's share of the window's values.
  void window_values(std::int64_t oldest, Index visible) noexcept {
    const Index stride = memory_.window.value_stride();
    for (Index i = 0; i < visible; ++i) {
      const Acc* value = in_acc(memory_.window.value_row(oldest + i), stride, s_.value);
      for (Index g = 0; g < group_; ++g)
        simd::add_scaled<Arch>(s_.logits[g * logit_stride() + padded_slots() + i], value,
                               s_.output + g * stride, stride);
    }
  }

  void store_output(Index row, Index token) noexcept {
    for (Index g = 0; g < group_; ++g) {
      T* o = &out_.o(row, token, head_ * group_ + g, 0);
      const Acc* output = s_.output + g * memory_.slots.value_stride();
      for (Index d = 0; d < memory_.slots.value_dim; ++d) o[d] = static_cast<T>(output[d]);
    }
  }

  /// A stored row as Acc: itself, or converted into `scratch`.
  static NHA_INLINE const Acc* in_acc(const T* row, Index stride, Acc* scratch) noexcept {
    if constexpr (std::is_same_v<T, Acc>) {
      return row;
    } else {
      pack_row(row, stride, scratch);
      return scratch;
    }
  }

  /// Calls f with std::integral_constant `count`, 1 to Most.
  template <int Most, class F>
  static NHA_INLINE void with_count(Index count, F&& f) noexcept {
    if (count == Most)
      f(std::integral_constant<int, Most>());
    else if constexpr (Most > 1)
      with_count<Most - 1>(count, f);
  }

  const Inputs& in_;
  const Outputs& out_;
  State& state_;
  HeadState<T, KeyDim, ValueDim, Slots> memory_;
  HeadOptions options_;
  Index sequence_;
  Index head_;
  Index group_;
  bool initial_slots_;
  EmptySlots empty_slots_;
  Acc scale_;
  RecurrentScratch<Acc> s_;
};

}  // namespace detail

NHA_ISA_NAMESPACE_END
