// SPDX-License-Identifier: MIT
// silu(x) = x * sigmoid(x), also called swish, over rows of numbers.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <concepts>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// x / (1 + e^-x) where x >= 0, and x e^x / (1 + e^x), the same, elsewhere: nothing overflows.
template <class T, class V>
NHA_INLINE V silu_of(const V& x) noexcept {
  const V decay = exp_nonpositive<T>(V(T{0}) - simd::max(x, V(T{0}) - x));  // e^-|x|
  const V share = x / (V(T{1}) + decay);
  return simd::where_below(x, V(T{0}), share * decay, share);
}

}  // namespace detail

/// values[i] = silu(values[i]) for `count` numbers. Any alignment; allocates nothing.
template <class Arch = simd::default_arch, std::floating_point T>
void silu(T* values, Index count) noexcept {
  using V = simd::vec<T, Arch>;
  Index i = 0;
  for (; i + simd::lanes<T, Arch> <= count; i += simd::lanes<T, Arch>)
    simd::store(values + i, detail::silu_of<T>(simd::load<V>(values + i)));
  for (; i < count; ++i) values[i] = detail::silu_of<T>(values[i]);
}

/// values[i] = silu(values[i]) * factors[i] for `count` numbers: the gate of SwiGLU.
template <class Arch = simd::default_arch, std::floating_point T>
void silu_times(T* values, const T* factors, Index count) noexcept {
  using V = simd::vec<T, Arch>;
  Index i = 0;
  for (; i + simd::lanes<T, Arch> <= count; i += simd::lanes<T, Arch>)
    simd::store(values + i,
                detail::silu_of<T>(simd::load<V>(values + i)) * simd::load<V>(factors + i));
  for (; i < count; ++i) values[i] = detail::silu_of<T>(values[i]) * factors[i];
}

NHA_ISA_NAMESPACE_END
