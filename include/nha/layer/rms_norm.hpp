// SPDX-License-Identifier: MIT
// RMSNorm: each row divided by its root mean square, times a weight for each channel.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/simd.hpp>

#include <cmath>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class Arch, class T>
NHA_INLINE T sum_of_squares(const T* x, Index count) noexcept {
  using V = simd::vec<T, Arch>;
  V sum(T{0});
  Index i = 0;
  for (; i + simd::lanes<T, Arch> <= count; i += simd::lanes<T, Arch>) {
    const V part = simd::load<V>(x + i);
    sum = simd::fma(part, part, sum);
  }
  T total = simd::reduce_add(sum);
  for (; i < count; ++i) total += x[i] * x[i];
  return total;
}

}  // namespace detail

/// y[r][c] = x[r][c] / sqrt(mean_c(x[r][c]^2) + eps) * weight[c], for x [rows, channels],
/// weight [channels], y [rows, channels]; y may be x. Rows must be contiguous; allocates nothing.
/// A row of zeros gives zeros where eps > 0.
/// @throws ArgumentError if the shapes do not fit or a row is not contiguous.
template <class Arch = simd::default_arch, std::floating_point T>
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
    const T mean = detail::sum_of_squares<Arch>(in, channels) / static_cast<T>(channels);
    const T factor = T{1} / std::sqrt(mean + static_cast<T>(eps));
    for (Index c = 0; c < channels; ++c) out[c] = in[c] * factor * weight.data()[c];
  }
}

NHA_ISA_NAMESPACE_END
