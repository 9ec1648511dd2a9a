// SPDX-License-Identifier: MIT
// The fused softmax: one softmax over any number of sources, each read once.
//
// The operator reads slots and window so; this is the same for use alone: a model with a third
// memory (attention sinks, retrieved tokens), or partial results from several places to merge.
#pragma once

#include <nha/config.hpp>
#include <nha/core/buffer.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/limits.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/core/tensor.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/softmax.hpp>

#include <algorithm>
#include <cstddef>
#include <memory_resource>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// softmax(logits) . values for one query, where logits and values arrive in pieces:
///
///   FusedSoftmax<float> softmax(value_dim);
///   softmax.read(slot_logits, slot_values);      // [M], [M, Dv]
///   softmax.read(window_logits, window_values);  // [W], [W, Dv]
///   softmax.finish(output);                      // [Dv]
///
/// The order of the pieces does not matter beyond rounding. T is float or double. A logit of
/// -infinity takes no part; with nothing to read the output is 0 and lse() -infinity, never NaN.
/// One that was moved from may only be assigned to or destroyed.
template <Scalar T, class Arch = cpu::simd::default_arch>
class FusedSoftmax {
  static_assert(std::is_same_v<T, accumulate_t<T>>,
                "the softmax is taken in float or double; bfloat16 and float16 values are read");

 public:
  /// @throws ArgumentError if value_dim is negative or above kLargestSize.
  explicit FusedSoftmax(Index value_dim,
                        std::pmr::memory_resource* memory = std::pmr::get_default_resource())
      : buffer_(bytes_of(value_dim), memory), value_dim_(value_dim) {}

  /// Adds a source: logits [n] and values [n, Dv], rows contiguous, T or a half type where T is
  /// float. Does not allocate.
  /// @return the weight that all earlier sources have kept, relative to before: what anything
  ///   summed with their weights outside must be multiplied by.
  /// @throws ArgumentError if the shapes do not fit or there is no data; nothing has then been
  /// read.
  template <class Stored, Index Count, Index ValueDim>
  T read(TensorView<const T, Dynamic> logits, const TensorView<Stored, Count, ValueDim>& values) {
    static_assert(std::is_same_v<accumulate_t<std::remove_const_t<Stored>>, T>,
                  "values are of type T, or a half type where T is float");
    check_argument(logits.data() != nullptr || logits.empty(), "logits has no data");
    check_argument(values.extent(0) == logits.extent(0) && values.extent(1) == value_dim_,
                   "values is [", values.extent(0), ", ", values.extent(1), "]; expected [",
                   logits.extent(0), ", ", value_dim_, "]");
    check_argument(values.has_contiguous_rows(), "values has stride ", values.stride(1),
                   " along its last axis; expected 1");
    check_argument(values.data() != nullptr || values.empty(), "values has no data");
    T kept{1};
    for (Index first = 0; first < logits.extent(0); first += kBlock)
      kept *= read_block(logits, values, first, std::min(kBlock, logits.extent(0) - first));
    return kept;
  }
  template <class Stored>
  T read(TensorView<const T, Dynamic> logits, const Tensor<Stored, 2>& values) {
    return read(logits, values.view());
  }

  /// Adds what another one has read: the result is that of reading its sources here.
  /// @throws ArgumentError if the value dimensions differ.
  void merge(const FusedSoftmax& other) {
    check_argument(other.value_dim_ == value_dim_, "value_dim of the other softmax is ",
                   other.value_dim_, "; expected ", value_dim_);
    const T maximum = std::max(state_.maximum, other.state_.maximum);
    const T ours = rescale_factor(state_.maximum, maximum);
    const T theirs = rescale_factor(other.state_.maximum, maximum);
    for (Index d = 0; d < value_dim_; ++d)
      output()[d] = output()[d] * ours + other.output()[d] * theirs;
    state_ = {maximum, state_.sum * ours + other.state_.sum * theirs};
  }

  /// Writes softmax(logits) . values [Dv].
  /// @throws ArgumentError if the output has another size or no data.
  void finish(TensorView<T, Dynamic> o) const {
    check_argument(o.extent(0) == value_dim_, "o has ", o.extent(0), " elements; expected ",
                   value_dim_);
    check_argument(o.data() != nullptr || o.empty(), "o has no data");
    for (Index d = 0; d < value_dim_; ++d) o(d) = output()[d] * state_.normalizer();
  }

  /// Natural logarithm of the sum of exp(logit); -infinity where nothing was read.
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
    return static_cast<std::size_t>(padded(value_dim) * 2 + kBlock) * sizeof(T);
  }
  template <class View>
  T read_block(TensorView<const T, Dynamic> logits, const View& values, Index first,
               Index count) noexcept {
    T* weights = output() + padded(value_dim_);
    T* value = weights + kBlock;
    for (Index i = 0; i < count; ++i) weights[i] = logits(first + i);
    std::fill(weights + count, weights + padded(count), -kInfinity<T>);
    const T kept = cpu::online_softmax_update<Arch>(state_, weights, padded(count));
    cpu::simd::transform<Arch>(output(), output(), padded(value_dim_),
                               [&](auto o) { return o * decltype(o)(kept); });
    for (Index i = 0; i < count; ++i) {
      cpu::pack_row(&values(first + i, 0), value_dim_, value);
      cpu::simd::add_scaled<Arch>(weights[i], value, output(), padded(value_dim_));
    }
    return kept;
  }

  T* output() noexcept { return reinterpret_cast<T*>(buffer_.data()); }
  const T* output() const noexcept { return reinterpret_cast<const T*>(buffer_.data()); }

  // Output [padded(Dv)], weights [kBlock], one value row [padded(Dv)]. First: where an assignment
  // cannot allocate, the size stays as it was.
  Buffer buffer_;
  Index value_dim_;
  SoftmaxState<T> state_;
};

NHA_ISA_NAMESPACE_END
