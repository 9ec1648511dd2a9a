// SPDX-License-Identifier: MIT
// The fused softmax: one softmax over the concatenation of slots and window.
//
// FusedSoftmaxView works on rows of logits, slots first, wherever they lie: step, the chunks of
// prefill and backward run it. FusedSoftmax owns one row and reads a SlotMemory, a SlidingWindow or
// any other source, one after the other.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/empty_slot_rule.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/options.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>
#include <nha/memory/sliding_window.hpp>
#include <nha/memory/slot_memory.hpp>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory_resource>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// The softmax of some queries, a row each: [padded(M) logits of the slots, then logits of some
/// columns of the window]. Logits become weights in place. A logit of -infinity gets weight 0.
template <class Acc, class Arch = cpu::simd::default_arch>
struct FusedSoftmaxView {
  Acc* scores = nullptr;                // [rows, stride]
  Index stride = 0;                     // at least padded(slots) + the most columns
  Index slots = 0;                      // M
  SoftmaxState<Acc>* states = nullptr;  // [rows]

  NHA_INLINE Acc* slot_scores(Index row) const noexcept { return scores + row * stride; }
  NHA_INLINE Acc* window_scores(Index row) const noexcept {
    return scores + row * stride + padded(slots);
  }

  /// Slots that do not take part get -infinity, padding always.
  void hide_slots(Index row, bool take_part) const noexcept {
    Acc* logits = slot_scores(row);
    std::fill(logits + (take_part ? slots : Index{0}), logits + padded(slots), -kInfinity<Acc>);
  }
  /// Columns outside [first, last) get -infinity, of `columns` in all.
  void hide_columns(Index row, Index first, Index last, Index columns) const noexcept {
    Acc* logits = window_scores(row);
    std::fill(logits, logits + std::clamp<Index>(first, 0, columns), -kInfinity<Acc>);
    std::fill(logits + std::clamp<Index>(last, 0, columns), logits + columns, -kInfinity<Acc>);
  }
  /// Slots read as means: logit / mass + log(mass).
  void correct_logits(Index row, const Acc* inverse_mass, const Acc* log_mass) const noexcept {
    Acc* logits = slot_scores(row);
    for (Index m = 0; m < padded(slots); ++m) logits[m] = logits[m] * inverse_mass[m] + log_mass[m];
  }
  /// Weights of slots read as means become weights of their sums.
  void correct_weights(Index row, const Acc* inverse_mass) const noexcept {
    Acc* weights = slot_scores(row);
    for (Index m = 0; m < padded(slots); ++m) weights[m] *= inverse_mass[m];
  }

  /// Logits of the slots and of the first `columns` columns, padded, become weights: exp(logit -
  /// maximum).
  void weigh(Index rows, Index columns) const noexcept {
    std::fill_n(states, rows, SoftmaxState<Acc>{});
    cpu::online_softmax_update<Arch>(rows, states, scores, stride, padded(slots) + columns,
                                     static_cast<Acc*>(nullptr));
  }
  /// The same for `columns` further columns, which have replaced the first. factor [rows] is what
  /// everything weighted before must be multiplied by.
  void weigh_further(Index rows, Index columns, Acc* factor) const noexcept {
    cpu::online_softmax_update<Arch>(rows, states, scores + padded(slots), stride, columns, factor);
  }
  /// The weights on slots and `columns` columns become those of the softmax.
  void normalize(Index row, Index columns) const noexcept {
    const cpu::simd::vec<Acc, Arch> normalizer(states[row].normalizer());
    cpu::simd::transform<Arch>(slot_scores(row), slot_scores(row), padded(slots) + columns,
                               [&](auto weight) { return weight * normalizer; });
  }
  /// Sum of the weights on the slots.
  Acc weight_on_slots(Index row) const noexcept {
    return cpu::sum_row<Arch>(slot_scores(row), padded(slots));
  }
};

/// softmax(logits) . values for one query, where logits and values arrive in pieces:
///
///   FusedSoftmax<float> softmax(value_dim);
///   softmax.read(slots, q_slot, scale);      // SlotMemory
///   softmax.read(window, q_window, scale);   // SlidingWindow
///   softmax.finish(o);                       // [Dv]
///
/// The order of the pieces does not matter beyond rounding. T is float or double. A logit of
/// -infinity takes no part. With nothing to read the output is 0 and lse() -infinity; a NaN among
/// the logits makes both NaN. A softmax that was moved from may only be assigned to or destroyed.
template <Scalar T, class Arch = cpu::simd::default_arch>
class FusedSoftmax {
  static_assert(std::is_same_v<T, accumulate_t<T>>,
                "the softmax is taken in float or double; bfloat16 and float16 values are read");

 public:
  /// @throws ArgumentError if value_dim is negative or above kLargestSize.
  explicit FusedSoftmax(Index value_dim,
                        std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(bytes_of(value_dim), memory), value_dim_(value_dim) {}

  /// Reads slots: logits scale * slot_k . query, values slot_v. query [Dk]. `empty_slots` says how
  /// slots that hold little take part. With EmptySlots::masked the caller must not read slots that
  /// no token has entered.
  /// @throws ArgumentError if a shape does not fit; nothing has then been read.
  void read(const SlotMemory<T>& slots, TensorView<const T, Dynamic> query, T scale,
            EmptySlots empty_slots = EmptySlots::participate) {
    const EmptySlotRule rule{empty_slots};
    const auto keys = slots.keys();
    check_query(query, keys.extent(1));
    read_blocks(keys.extent(0), slots.values().extent(1), [&](Index m, T* value) {
      const T mass = rule.divisor(slots.mass()(m));
      if (!(mass > 0) && mass == mass) return -kInfinity<T>;
      for (Index d = 0; d < value_dim_; ++d) value[d] = slots.values()(m, d) / mass;
      return scale * dot(query, keys[m]) / mass + std::log(mass);
    });
  }
  /// Reads a window: logits scale * key . query, values as they are. query [Dk].
  /// @throws ArgumentError if a shape does not fit; nothing has then been read.
  template <class Stored>
  void read(const SlidingWindow<Stored>& window, TensorView<const T, Dynamic> query, T scale) {
    static_assert(std::is_same_v<accumulate_t<Stored>, T>,
                  "the window holds numbers of type T, or a half type where T is float");
    const auto view = window.view();
    check_query(query, view.key_dim);
    read_blocks(window.size(), view.value_dim, [&](Index i, T* value) {
      cpu::pack_row(&window.value(i)(0), value_dim_, value);
      return scale * dot(query, window.key(i));
    });
  }
  /// Reads any other memory: logits [n] and values [n, Dv], rows contiguous, T or a half type where
  /// T is float. Does not allocate.
  /// @throws ArgumentError if the shapes do not fit or there is no data; nothing has then been
  ///   read.
  template <class Stored, Index Count, Index ValueDim>
  void read(TensorView<const T, Dynamic> logits,
            const TensorView<Stored, Count, ValueDim>& values) {
    static_assert(std::is_same_v<accumulate_t<std::remove_const_t<Stored>>, T>,
                  "values are of type T, or a half type where T is float");
    check_argument(logits.data() != nullptr || logits.empty(), "logits has no data");
    check_argument(values.extent(0) == logits.extent(0) && values.extent(1) == value_dim_,
                   "values is [", values.extent(0), ", ", values.extent(1), "]; expected [",
                   logits.extent(0), ", ", value_dim_, "]");
    check_argument(values.has_contiguous_rows(), "values has stride ", values.stride(1),
                   " along its last axis; expected 1");
    check_argument(values.data() != nullptr || values.empty(), "values has no data");
    read_blocks(logits.extent(0), value_dim_, [&](Index i, T* value) {
      cpu::pack_row(&values(i, 0), value_dim_, value);
      return logits(i);
    });
  }
  template <class Stored>
  void read(TensorView<const T, Dynamic> logits, const Tensor<Stored, 2>& values) {
    read(logits, values.view());
  }

  /// Adds what another softmax has read: the result is that of reading its sources here.
  /// @throws ArgumentError if the value dimensions differ.
  void merge(const FusedSoftmax& other) {
    check_argument(other.value_dim_ == value_dim_, "value_dim of the other softmax is ",
                   other.value_dim_, "; expected ", value_dim_);
    const auto [ours, theirs] = state_.merge(other.state_);
    for (Index d = 0; d < value_dim_; ++d)
      output()[d] = output()[d] * ours + other.output()[d] * theirs;
  }

  /// Writes softmax(logits) . values [Dv].
  /// @throws ArgumentError if the output has another size or no data.
  void finish(TensorView<T, Dynamic> o) const {
    check_argument(o.extent(0) == value_dim_, "o has ", o.extent(0), " elements; expected ",
                   value_dim_);
    check_argument(o.data() != nullptr || o.empty(), "o has no data");
    for (Index d = 0; d < value_dim_; ++d) o(d) = output()[d] * state_.normalizer();
  }

  /// Natural logarithm of the sum of exp(logit); -infinity where nothing was read, NaN where a
  /// logit was NaN.
  T lse() const noexcept { return state_.lse(); }
  const SoftmaxState<T>& state() const noexcept { return state_; }

  /// Forgets all that was read.
  void clear() noexcept {
    state_ = {};
    std::fill_n(output(), padded(value_dim_), T{0});
  }

 private:
  // Logits are weighed this many at a time, in scratch, so that a source is not changed.
  static constexpr Index kBlock = 64;

  static std::size_t bytes_of(Index value_dim) {
    check_size("value_dim", value_dim, 0);
    return static_cast<std::size_t>(padded(value_dim) * (kBlock + 1) + kBlock) * sizeof(T);
  }
  static void check_query(TensorView<const T, Dynamic> query, Index key_dim) {
    check_argument(query.extent(0) == key_dim && (query.data() != nullptr || query.empty()),
                   "query has ", query.extent(0), " elements; expected ", key_dim, ", with data");
  }
  static T dot(const auto& a, const auto& b) noexcept {
    T sum{};
    for (Index d = 0; d < a.extent(0); ++d) sum += widen(a(d)) * widen(b(d));
    return sum;
  }

  /// Reads `count` logits with values of value_dim numbers. load(i, value) returns the i-th logit
  /// and puts its value into a row of scratch.
  template <class Load>
  void read_blocks(Index count, Index value_dim, Load&& load) {
    check_argument(value_dim == value_dim_, "values have ", value_dim, " elements; expected ",
                   value_dim_);
    T* weights = output() + padded(value_dim_);
    T* values = weights + kBlock;
    for (Index first = 0; first < count; first += kBlock) {
      const Index block = std::min(kBlock, count - first);
      for (Index i = 0; i < block; ++i) {
        T* value = values + i * padded(value_dim_);
        std::fill_n(value, padded(value_dim_), T{0});
        weights[i] = load(first + i, value);
      }
      std::fill(weights + block, weights + padded(block), -kInfinity<T>);
      T kept{1};
      FusedSoftmaxView<T, Arch>{weights, kBlock, 0, &state_}.weigh_further(1, padded(block), &kept);
      cpu::simd::transform<Arch>(output(), output(), padded(value_dim_),
                                 [&](auto o) { return o * decltype(o)(kept); });
      for (Index i = 0; i < block; ++i)
        if (!(weights[i] == T{0}))  // what takes no part may hold anything
          cpu::simd::add_scaled<Arch>(weights[i], values + i * padded(value_dim_), output(),
                                      padded(value_dim_));
    }
  }

  T* output() noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  const T* output() const noexcept { return reinterpret_cast<const T*>(buffer_.data()); }

  // Output [padded(Dv)], weights [kBlock], values [kBlock, padded(Dv)]. First: where an assignment
  // cannot allocate, the size stays as it was.
  Buffer buffer_;
  Index value_dim_;
  SoftmaxState<T> state_;
};

NHA_ISA_NAMESPACE_END
