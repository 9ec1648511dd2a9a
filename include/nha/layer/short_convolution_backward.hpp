// SPDX-License-Identifier: MIT
// Back through the short convolution, for sequences with nothing before their first row, as in
// training. With z the sums before the silu and dz[t][c] = dy[t][c] * silu'(z[t][c]):
//   dx[s][c]      = sum_i weight[c][i] dz[s + taps - 1 - i][c]
//   dweight[c][i] = sum_t dz[t][c] x[t - taps + 1 + i][c]
//   dbias[c]      = sum_t dz[t][c]
// over the tokens of one sequence. z is computed again rather than kept.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/layer/activation.hpp>
#include <nha/layer/check_rows.hpp>
#include <nha/layer/short_convolution.hpp>
#include <nha/layer/token_batch.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Back through one sequence of `count` tokens, whose rows x, dy and dx begin with; dz is [count,
/// channels]. dy has been read when dx is written.
template <class T>
void convolution_backward(const TensorView<const T, Dynamic, Dynamic>& x,
                          const TensorView<const T, Dynamic, Dynamic>& weight,
                          const TensorView<const T, Dynamic>& bias,
                          const TensorView<const T, Dynamic, Dynamic>& dy,
                          const TensorView<T, Dynamic, Dynamic>& dx,
                          const TensorView<T, Dynamic, Dynamic>& dweight,
                          const TensorView<T, Dynamic>& dbias, T* dz) {
  const Index count = x.extent(0);
  const Index channels = x.extent(1);
  const Index taps = weight.extent(1);
  for (Index t = 0; t < count; ++t) {
    const auto input = [&](Index i) -> const T* {
      const Index source = t - taps + 1 + i;
      return source >= 0 ? x.data() + source * x.stride(0) : nullptr;
    };
    T* d = dz + t * channels;
    convolve_token(weight, bias, input, d);
    silu_backward(d, dy.data() + t * dy.stride(0), d, channels);
    for (Index i = 0; i < taps; ++i) {
      const T* in = input(i);
      if (in == nullptr) continue;
      for (Index c = 0; c < channels; ++c) dweight(c, i) += d[c] * in[c];
    }
    if (dbias.empty()) continue;
    for (Index c = 0; c < channels; ++c) dbias(c) += d[c];
  }
  for (Index s = 0; s < count; ++s) {
    T* out = dx.data() + s * dx.stride(0);
    std::fill(out, out + channels, T{0});
    // Token s + later meets x[s] with tap taps - 1 - later.
    for (Index later = 0; later < std::min(taps, count - s); ++later) {
      const T* d = dz + (s + later) * channels;
      for (Index c = 0; c < channels; ++c) out[c] += weight(c, taps - 1 - later) * d[c];
    }
  }
}

}  // namespace detail

/// The gradients of short_convolution() on states that had seen nothing: from dy to dx, both [rows,
/// channels], which is written, and to dweight [channels, taps] and dbias [channels], which are
/// added to. x [rows, channels] is what short_convolution() was given, and so are tokens, weight
/// [channels, taps] and bias, [channels] or empty; dbias is empty where bias is. `scratch` has room
/// for tokens.longest() * channels numbers. Rows must be contiguous; dx may be dy and overlaps
/// nothing else. Allocates nothing.
/// @throws ArgumentError if the shapes do not fit each other or there is no data; nothing has then
///   been touched.
template <std::floating_point T>
void short_convolution_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                                const TokenBatch& tokens,
                                std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                                std::type_identity_t<TensorView<const T, Dynamic>> bias,
                                std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dy,
                                std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dx,
                                std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dweight,
                                std::type_identity_t<TensorView<T, Dynamic>> dbias, T* scratch) {
  const Index rows = tokens.rows();
  const Index channels = weight.extent(0);
  validate(tokens, tokens.sequences());
  detail::check_matrix("x of short_convolution_backward", x, rows, channels);
  detail::check_matrix("dy of short_convolution_backward", dy, rows, channels);
  detail::check_matrix("dx of short_convolution_backward", dx, rows, channels);
  check_argument(weight.extent(1) >= 1, "weight of short_convolution_backward has ",
                 weight.extent(1), " taps; expected 1 or more");
  detail::check_rows("weight of short_convolution_backward", weight);
  detail::check_matrix("dweight of short_convolution_backward", dweight, channels,
                       weight.extent(1));
  if (!bias.empty()) detail::check_vector("bias of short_convolution_backward", bias, channels);
  detail::check_vector("dbias of short_convolution_backward", dbias, bias.extent(0));
  check_argument(scratch != nullptr || rows * channels == 0,
                 "scratch of short_convolution_backward is null; expected room for ",
                 tokens.longest() * channels, " numbers");
  for (Index n = 0; n < tokens.sequences(); ++n) {
    const Index first = tokens.first_row(n);
    const Index count = tokens.count(n);
    const auto of_sequence = [&](const auto& view) { return view.template slice<0>(first, count); };
    detail::convolution_backward<T>(of_sequence(x), weight, bias, of_sequence(dy), of_sequence(dx),
                                    dweight, dbias, scratch);
  }
}

NHA_ISA_NAMESPACE_END
