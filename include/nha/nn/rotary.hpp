// SPDX-License-Identifier: MIT
// Rotary position embedding in the rotate-half form that Llama and Qwen checkpoints expect, and its
// backward. Channel i < D/2 is rotated together with channel i + D/2.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>

#include <cmath>
#include <concepts>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// The angle, in radians, between one position and the next for each pair of channels:
/// frequencies[i] = theta^(-2i/D) for i < D/2, with D the head dimension.
inline void rotary_frequencies(double theta, Index head_dim, double* frequencies) noexcept {
  for (Index i = 0; i < head_dim / 2; ++i)
    frequencies[i] = std::pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
}

/// Cosines and sines of one position: angle i is position * frequencies[i], for i < half. Angles
/// are computed in double from the 64-bit position, so that long streams keep their precision.
template <std::floating_point T>
void rotary_row(std::int64_t position, const double* frequencies, Index half, T* cosine,
                T* sine) noexcept {
  for (Index i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * frequencies[i];
    cosine[i] = static_cast<T>(std::cos(angle));
    sine[i] = static_cast<T>(std::sin(angle));
  }
}

namespace detail {

/// Rotates the heads of tokens by the angles of their rows, or back by them. Both channels of a
/// pair are read before one is written.
template <bool kBack, class T>
void turn_heads(const char* name, const TensorView<const T, Dynamic, Dynamic, Dynamic>& x,
                const TensorView<const T, Dynamic, Dynamic>& cosine,
                const TensorView<const T, Dynamic, Dynamic>& sine,
                const TensorView<T, Dynamic, Dynamic, Dynamic>& out) {
  const Index dim = x.extent(2);
  const Index half = dim / 2;
  check_argument(dim % 2 == 0, "head dimension is ", dim, "; rotary needs an even one");
  check_argument(out.extents() == x.extents(), kBack ? "dx" : "out", " of ", name,
                 " has another shape than ", kBack ? "dy" : "x");
  check_argument(cosine.extent(0) == x.extent(0) && cosine.extent(1) == half &&
                     sine.extents() == cosine.extents(),
                 "cosine and sine of ", name, " must be [", x.extent(0), ", ", half, "]");
  check_argument(x.has_contiguous_rows() && out.has_contiguous_rows() &&
                     cosine.has_contiguous_rows() && sine.has_contiguous_rows(),
                 "rows of ", name, " must be contiguous");
  for (Index r = 0; r < x.extent(0); ++r) {
    const T* c = cosine.data() + r * cosine.stride(0);
    const T* s = sine.data() + r * sine.stride(0);
    for (Index h = 0; h < x.extent(1); ++h) {
      const T* in = x.data() + r * x.stride(0) + h * x.stride(1);
      T* to = out.data() + r * out.stride(0) + h * out.stride(1);
      for (Index i = 0; i < half; ++i) {
        const T first = in[i], second = in[half + i];
        const T turn = kBack ? -s[i] : s[i];
        to[i] = first * c[i] - second * turn;
        to[half + i] = second * c[i] + first * turn;
      }
    }
  }
}

}  // namespace detail

/// Rotates the heads of tokens: out[r][h] is x[r][h] rotated by the angles of row r. x and out are
/// [rows, heads, D]; cosine and sine are [rows, D/2]. D is even; out may be x. Allocates nothing.
/// @throws ArgumentError if the shapes do not fit or a row is not contiguous.
template <std::floating_point T>
void rotate_half(std::type_identity_t<TensorView<const T, Dynamic, Dynamic, Dynamic>> x,
                 std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> cosine,
                 std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> sine,
                 TensorView<T, Dynamic, Dynamic, Dynamic> out) {
  detail::turn_heads<false>("rotate_half", x, cosine, sine, out);
}

/// Backward of rotate_half(): dx[r][h] is dy[r][h] rotated back by the angles of row r. dy and dx
/// are [rows, heads, D]; cosine and sine [rows, D/2] are those of rotate_half(). dx may be dy.
/// Allocates nothing.
/// @throws ArgumentError if the shapes do not fit or a row is not contiguous.
template <std::floating_point T>
void rotate_half_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic, Dynamic>> dy,
                          std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> cosine,
                          std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> sine,
                          TensorView<T, Dynamic, Dynamic, Dynamic> dx) {
  detail::turn_heads<true>("rotate_half_backward", dy, cosine, sine, dx);
}

NHA_ISA_NAMESPACE_END
