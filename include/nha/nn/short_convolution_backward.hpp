// SPDX-License-Identifier: MIT
// Back through the short convolution, for sequences with nothing before their first row, as in
// training. With z the sums before the silu and dz[t][c] = dy[t][c] * silu'(z[t][c]):
//   dx[s][c]      = sum_i weight[c][i] dz[s + K - 1 - i][c]
//   dweight[c][i] = sum_t dz[t][c] x[t - K + 1 + i][c]
//   dbias[c]      = sum_t dz[t][c]
// over the tokens of one sequence, K being the kernel size. z is computed again rather than kept.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/nn/activation.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/options.hpp>
#include <nha/nn/short_convolution.hpp>
#include <nha/nn/token_batch.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Back through the channels of a tile for one sequence, whose rows x, dy and dx begin with. dy of
/// a token has been read when dx of it is written.
template <class Arch, class T>
void convolution_backward(const TensorView<const T, Dynamic, Dynamic>& x, const KernelTile<T>& tile,
                          const TensorView<const T, Dynamic>& bias,
                          const TensorView<const T, Dynamic, Dynamic>& dy,
                          const TensorView<T, Dynamic, Dynamic>& dx,
                          const TensorView<T, Dynamic, Dynamic>& dweight,
                          const TensorView<T, Dynamic>& dbias) {
  T dz[KernelTile<T>::kNumbers];
  T sums[KernelTile<T>::kNumbers];  // of dweight, a row for each place of the kernel
  std::fill_n(sums, tile.kernel_size * tile.channels, T{0});
  for (Index t = 0; t < x.extent(0); ++t) {
    const auto input = [&](Index i) -> const T* {
      const Index source = t - tile.kernel_size + 1 + i;
      return source >= 0 ? x.data() + source * x.stride(0) : nullptr;
    };
    convolve_token<Arch>(tile, bias, input, dz);
    silu_backward<Arch>(dz, dy.data() + t * dy.stride(0) + tile.channel, dz, tile.channels);
    if (!dx.empty()) std::fill_n(dx.data() + t * dx.stride(0) + tile.channel, tile.channels, T{0});
    for (Index i = 0; i < tile.kernel_size; ++i) {
      const T* in = input(i);
      if (in == nullptr) continue;
      if (!dx.empty()) {
        const Index source = t - tile.kernel_size + 1 + i;
        T* out = dx.data() + source * dx.stride(0) + tile.channel;
        add_products<Arch>(tile[i], dz, out, tile.channels);
      }
      if (!dweight.empty())
        add_products<Arch>(in + tile.channel, dz, sums + i * tile.channels, tile.channels);
    }
    if (dbias.empty()) continue;
    T* bias_sums = dbias.data() + tile.channel;
    for (Index c = 0; c < tile.channels; ++c) bias_sums[c] += dz[c];
  }
  if (dweight.empty()) return;
  for (Index c = 0; c < tile.channels; ++c)
    for (Index i = 0; i < tile.kernel_size; ++i)
      dweight(tile.channel + c, i) += sums[i * tile.channels + c];
}

}  // namespace detail

/// The gradients of short_convolution() on states that had seen nothing. From dy to dx, both [rows,
/// channels], which is written, and to dweight [channels, kernel size] and dbias [channels], which
/// are added to. Each of the three may be empty: it is then not wanted.
///
/// x [rows, channels], tokens, weight [channels, kernel size] and bias, [channels] or empty, are
/// what short_convolution() was given. Rows must be contiguous; dx may be dy and overlaps nothing
/// else. Allocates nothing.
/// @throws ArgumentError if the shapes do not fit each other or there is no data; nothing has then
///   been touched.
template <class Arch = cpu::simd::default_arch, std::floating_point T>
void short_convolution_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                                const TokenBatch& tokens,
                                std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                                std::type_identity_t<TensorView<const T, Dynamic>> bias,
                                std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dy,
                                std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dx,
                                TensorView<T, Dynamic, Dynamic> dweight,
                                std::type_identity_t<TensorView<T, Dynamic>> dbias) {
  const Index rows = tokens.rows();
  const Index channels = weight.extent(0);
  validate(tokens, tokens.sequences());
  detail::check_matrix("x of short_convolution_backward", x, rows, channels);
  detail::check_matrix("dy of short_convolution_backward", dy, rows, channels);
  if (!dx.empty()) detail::check_matrix("dx of short_convolution_backward", dx, rows, channels);
  check_argument(weight.extent(1) >= 1 && weight.extent(1) <= kMostKernelSize,
                 "weight of short_convolution_backward has a kernel size of ", weight.extent(1),
                 "; expected 1 to ", kMostKernelSize);
  detail::check_rows("weight of short_convolution_backward", weight);
  if (!dweight.empty())
    detail::check_matrix("dweight of short_convolution_backward", dweight, channels,
                         weight.extent(1));
  if (!bias.empty()) detail::check_vector("bias of short_convolution_backward", bias, channels);
  if (!dbias.empty())
    detail::check_vector("dbias of short_convolution_backward", dbias, bias.extent(0));
  if (dx.empty() && dweight.empty() && dbias.empty()) return;
  for (Index channel = 0; channel < channels;) {
    const detail::KernelTile<T> tile(weight, channel);
    for (Index n = 0; n < tokens.sequences(); ++n) {
      const auto of_sequence = [&](const auto& view) {
        if (view.empty()) return view;
        return view.template slice<0>(tokens.first_row(n), tokens.count(n));
      };
      detail::convolution_backward<Arch, T>(of_sequence(x), tile, bias, of_sequence(dy),
                                            of_sequence(dx), dweight, dbias);
    }
    channel += tile.channels;
  }
}

NHA_ISA_NAMESPACE_END
