// SPDX-License-Identifier: MIT
// silu(x) = x * sigmoid(x), also called swish, over rows of numbers, and its backward. The slope is
// sigmoid(x) (1 + x (1 - sigmoid(x))).
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/exp.hpp>
#include <nha/cpu/simd.hpp>

#include <concepts>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// x / (1 + e^-x) where x >= 0, and x e^x / (1 + e^x), the same, elsewhere: nothing overflows.
template <class T, class V>
NHA_INLINE V silu_of(const V& x) noexcept {
  const V decay = cpu::exp_nonpositive<T>(V(T{0}) - cpu::simd::max(x, V(T{0}) - x));  // e^-|x|
  const V share = cpu::simd::divide(x, V(T{1}) + decay);
  return cpu::simd::where_below(x, V(T{0}), share * decay, share);
}

/// silu(x), as silu_of() rounds it, and its slope. Both factors of the slope are formed without a
/// difference of near numbers: 1 - sigmoid(x) is sigmoid(-x).
template <class T, class V>
NHA_INLINE void silu_and_slope(const V& x, V& value, V& slope) noexcept {
  const V decay = cpu::exp_nonpositive<T>(V(T{0}) - cpu::simd::max(x, V(T{0}) - x));  // e^-|x|
  const V whole = V(T{1}) + decay;
  const V share = cpu::simd::divide(x, whole);
  value = cpu::simd::where_below(x, V(T{0}), share * decay, share);
  const V larger = cpu::simd::divide(V(T{1}), whole),
          smaller = cpu::simd::divide(decay, whole);  // sigmoid(|x|), sigmoid(-|x|)
  const V sigmoid = cpu::simd::where_below(x, V(T{0}), smaller, larger);
  const V rest = cpu::simd::where_below(x, V(T{0}), larger, smaller);
  slope = sigmoid * cpu::simd::fma(x, rest, V(T{1}));
}

}  // namespace detail

/// values[i] = silu(values[i]) for `count` numbers. Values may have any alignment. Allocates
/// nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void silu(T* values, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    cpu::simd::store(values + i, detail::silu_of<T>(cpu::simd::load<V>(values + i)));
  for (; i < count; ++i) values[i] = detail::silu_of<T>(values[i]);
}

/// out[i] = silu(values[i]) * factors[i] for `count` numbers, as in SwiGLU. `out` may be `values`
/// or `factors`. All may have any alignment. Allocates nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void silu_times(const T* values, const T* factors, T* out, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    cpu::simd::store(out + i, detail::silu_of<T>(cpu::simd::load<V>(values + i)) *
                                  cpu::simd::load<V>(factors + i));
  for (; i < count; ++i) out[i] = detail::silu_of<T>(values[i]) * factors[i];
}

/// Backward of silu(): dx[i] = dy[i] * silu'(x[i]) for `count` numbers. x is the input of silu(),
/// before it was overwritten. dx may be dy or x. All may have any alignment. Allocates nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void silu_backward(const T* x, const T* dy, T* dx, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>) {
    V value, slope;
    detail::silu_and_slope<T>(cpu::simd::load<V>(x + i), value, slope);
    cpu::simd::store(dx + i, cpu::simd::load<V>(dy + i) * slope);
  }
  for (; i < count; ++i) {
    T value, slope;
    detail::silu_and_slope<T>(x[i], value, slope);
    dx[i] = dy[i] * slope;
  }
}

/// Backward of silu_times() for `count` numbers; `gate` are its values and `up` its factors:
///   d_gate[i] = dy[i] * up[i] * silu'(gate[i]),  d_up[i] = dy[i] * silu(gate[i])
/// An output may be any of the inputs, but not the other output. All may have any alignment.
/// Allocates nothing.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void silu_times_backward(const T* gate, const T* up, const T* dy, T* d_gate, T* d_up,
                         Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>) {
    V value, slope;
    detail::silu_and_slope<T>(cpu::simd::load<V>(gate + i), value, slope);
    const V d = cpu::simd::load<V>(dy + i);
    const V d_silu = d * cpu::simd::load<V>(up + i);
    cpu::simd::store(d_gate + i, d_silu * slope);
    cpu::simd::store(d_up + i, d * value);
  }
  for (; i < count; ++i) {
    T value, slope;
    detail::silu_and_slope<T>(gate[i], value, slope);
    const T d = dy[i];
    const T d_silu = d * up[i];
    d_gate[i] = d_silu * slope;
    d_up[i] = d * value;
  }
}

NHA_ISA_NAMESPACE_END
