// SPDX-License-Identifier: MIT
// RMSNorm: each row divided by its root mean square, times a weight for each channel; and back
// through it.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/nn/check_rows.hpp>

#include <cmath>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class Arch, class T>
NHA_INLINE T sum_of_squares(const T* x, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  V sum(T{0});
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>) {
    const V part = cpu::simd::load<V>(x + i);
    sum = cpu::simd::fma(part, part, sum);
  }
  T total = cpu::simd::reduce_add(sum);
  for (; i < count; ++i) total += x[i] * x[i];
  return total;
}

/// Sum of a[i] * b[i] * c[i].
template <class Arch, class T>
NHA_INLINE T weighed_dot(const T* a, const T* b, const T* c, Index count) noexcept {
  using V = cpu::simd::vec<T, Arch>;
  V sum(T{0});
  Index i = 0;
  for (; i + cpu::simd::lanes<T, Arch> <= count; i += cpu::simd::lanes<T, Arch>)
    sum = cpu::simd::fma(cpu::simd::load<V>(a + i) * cpu::simd::load<V>(b + i),
                         cpu::simd::load<V>(c + i), sum);
  T total = cpu::simd::reduce_add(sum);
  for (; i < count; ++i) total += a[i] * b[i] * c[i];
  return total;
}

/// What a row is multiplied by: 1 / sqrt(mean(x^2) + eps).
template <class Arch, class T>
NHA_INLINE T rms_factor(const T* x, Index count, double eps) noexcept {
  const T mean = sum_of_squares<Arch>(x, count) / static_cast<T>(count);
  return T{1} / std::sqrt(mean + static_cast<T>(eps));
}

}  // namespace detail

/// y[r][c] = x[r][c] / sqrt(mean_c(x[r][c]^2) + eps) * weight[c], for x [rows, channels],
/// weight [channels], y [rows, channels]; y may be x. Rows must be contiguous; allocates nothing.
/// A row of zeros gives zeros where eps > 0.
/// @throws ArgumentError if the shapes do not fit or a row is not contiguous.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void rms_norm(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
              std::type_identity_t<TensorView<const T, Dynamic>> weight, double eps,
              TensorView<T, Dynamic, Dynamic> y) {
  const Index channels = x.extent(1);
  check_argument(y.extent(0) == x.extent(0) && y.extent(1) == channels, "y of rms_norm is [",
                 y.extent(0), ", ", y.extent(1), "]; expected [", x.extent(0), ", ", channels, "]");
  check_argument(weight.extent(0) == channels, "weight of rms_norm has ", weight.extent(0),
                 " entries; expected ", channels);
  check_argument(x.has_contiguous_rows() && y.has_contiguous_rows() && weight.has_contiguous_rows(),
                 "rows of rms_norm must be contiguous");
  for (Index r = 0; r < x.extent(0); ++r) {
    const T* in = x.data() + r * x.stride(0);
    T* out = y.data() + r * y.stride(0);
    const T factor = detail::rms_factor<Arch>(in, channels, eps);
    for (Index c = 0; c < channels; ++c) out[c] = in[c] * factor * weight.data()[c];
  }
}

/// Back through rms_norm(): with f the factor of a row and g[c] = dy[r][c] * weight[c],
///   dx[r][c]    = f (g[c] - x[r][c] f^2 mean_c(g[c] x[r][c]))
///   dweight[c] += sum_r dy[r][c] x[r][c] f
/// for x, dy and dx [rows, channels], weight and dweight [channels]. An empty dx or dweight is not
/// wanted. dx may be dy. Rows must be contiguous; allocates nothing.
/// @throws ArgumentError if the shapes do not fit, there is no data, or rows are not contiguous or
///   overlap; nothing has then been touched.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void rms_norm_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                       std::type_identity_t<TensorView<const T, Dynamic>> weight, double eps,
                       std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dy,
                       std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dx,
                       TensorView<T, Dynamic> dweight) {
  const Index rows = x.extent(0);
  const Index channels = x.extent(1);
  detail::check_matrix("x of rms_norm_backward", x, rows, channels);
  detail::check_matrix("dy of rms_norm_backward", dy, rows, channels);
  if (!dx.empty()) detail::check_matrix("dx of rms_norm_backward", dx, rows, channels);
  detail::check_vector("weight of rms_norm_backward", weight, channels);
  if (!dweight.empty()) detail::check_vector("dweight of rms_norm_backward", dweight, channels);
  if (dx.empty() && dweight.empty()) return;
  const T* w = weight.data();
  T* dw = dweight.data();
  for (Index r = 0; r < rows; ++r) {
    const T* in = x.data() + r * x.stride(0);
    const T* d = dy.data() + r * dy.stride(0);
    const T factor = detail::rms_factor<Arch>(in, channels, eps);
    if (!dweight.empty())
      for (Index c = 0; c < channels; ++c) dw[c] += d[c] * (in[c] * factor);
    if (dx.empty()) continue;
    T* out = dx.data() + r * dx.stride(0);
    const T pull =
        factor * factor * detail::weighed_dot<Arch>(d, w, in, channels) / static_cast<T>(channels);
    for (Index c = 0; c < channels; ++c) out[c] = factor * (d[c] * w[c] - in[c] * pull);
  }
}

NHA_ISA_NAMESPACE_END
