// SPDX-License-Identifier: MIT
// Softmax of a row that arrives in pieces: the running maximum and sum, and how a piece is added.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/core/numeric.hpp>
#include <nha/core/softmax_state.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>
#include <cassert>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// The largest of `count` numbers, a multiple of kRowPadding above 0.
template <class Arch, class T>
NHA_INLINE T row_maximum(const T* row, Index count) noexcept {
  assert(is_padded(count) && count > 0);
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  constexpr int kVectors = static_cast<int>(kRowPadding / kLanes);
  V most[kVectors];
  NHA_UNROLL
  for (int v = 0; v < kVectors; ++v) most[v] = simd::load<V>(row + v * kLanes);
  for (Index i = kRowPadding; i < count; i += kRowPadding) NHA_UNROLL
  for (int v = 0; v < kVectors; ++v)
    most[v] = simd::max(most[v], simd::load<V>(row + i + v * kLanes));
  NHA_UNROLL
  for (int v = 0; v < kVectors - 1; ++v) most[0] = simd::max(most[0], most[v + 1]);
  return simd::reduce_max(most[0]);
}

/// Replaces `count` logits, a multiple of kRowPadding, by exp(logit - maximum). Returns their sum.
template <class Arch, class T>
NHA_INLINE T exp_shifted(T* row, Index count, T maximum) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  constexpr int kVectors = static_cast<int>(kRowPadding / kLanes);
  const V shift(maximum == -kInfinity<T> ? T{0} : maximum);
  // kRowPadding weights are added to each other before they join the sum. The constants of exp may
  // push the sum out of the registers; so it waits for itself less often.
  V sum(T{0});
  for (Index i = 0; i < count; i += kRowPadding) {
    V weight[kVectors];
    NHA_UNROLL
    for (int v = 0; v < kVectors; ++v) {
      weight[v] = exp_nonpositive<T>(simd::load<V>(row + i + v * kLanes) - shift);
      simd::store(row + i + v * kLanes, weight[v]);
    }
    NHA_UNROLL
    for (int v = 0; v < kVectors - 1; ++v) weight[0] = weight[0] + weight[v + 1];
    sum = sum + weight[0];
  }
  return simd::reduce_add(sum);
}

/// Adds a piece of each row to its running softmax: replaces the logits by the weights exp(logit -
/// maximum). What was weighted before must be multiplied by factor[r], since the maximum may have
/// grown; a null factor is not written. Row r begins at rows + r * stride and has `count` logits, a
/// multiple of kRowPadding. A logit of -infinity gets weight 0.
template <class Arch = simd::default_arch, class T>
void online_softmax_update(Index row_count, SoftmaxState<T>* states, T* rows, Index stride,
                           Index count, T* factor) noexcept {
  if (count == 0) {
    if (factor != nullptr) std::fill_n(factor, row_count, T{1});
    return;
  }
  // The maxima of all rows first: within a row everything waits for its maximum, but rows do not
  // wait for each other.
  for (Index r = 0; r < row_count; ++r) {
    const T kept = states[r].update(row_maximum<Arch>(rows + r * stride, count));
    if (factor != nullptr) factor[r] = kept;
  }
  for (Index r = 0; r < row_count; ++r)
    states[r].sum += exp_shifted<Arch>(rows + r * stride, count, states[r].maximum);
}

/// The same for one row; returns the factor.
template <class Arch = simd::default_arch, class T>
T online_softmax_update(SoftmaxState<T>& state, T* row, Index count) noexcept {
  T factor;
  online_softmax_update<Arch>(1, &state, row, 0, count, &factor);
  return factor;
}

/// Sum of `count` numbers, a multiple of kRowPadding.
template <class Arch = simd::default_arch, class T>
T sum_row(const T* row, Index count) noexcept {
  assert(is_padded(count));
  using V = simd::vec<T, Arch>;
  V sum(T{0});
  for (Index i = 0; i < count; i += simd::lanes<T, Arch>) sum = sum + simd::load<V>(row + i);
  return simd::reduce_add(sum);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
