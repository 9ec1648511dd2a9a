// SPDX-License-Identifier: MIT
// Back through y = x W^T: dx = dy W and dW = dy^T x.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/matmul.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/linear.hpp>
#include <nha/parallel/executor.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// What becomes of the numbers that dx held: replaced by the gradient, or added to it. Gradients
/// are added where several projections read the same x.
enum class InputGradient : std::uint8_t { written, added };

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// The gradients of linear(), from dy [rows, out]:
///   dx = dy W [rows, in], written or added, and dweight += dy^T x [out, in].
/// An empty view of dx or dweight means that this gradient is not wanted; it costs nothing. x
/// [rows, in] is read for dweight alone, and weight [out, in] for dx alone. Rows must be
/// contiguous; dx and dweight must not overlap each other or an input. Allocates nothing. Cost:
/// rows * in * out multiply-adds for each of the two.
///
/// The products are cut into blocks that are tasks of the executor; small ones run on the calling
/// thread. The blocks do not depend on the executor, and neither does the result. A task takes 32
/// KiB of stack.
/// @throws ArgumentError if the shapes do not fit, there is no data, or rows are not contiguous or
///   overlap; nothing has then been touched.
template <std::floating_point T>
void linear_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                     std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                     std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dy,
                     std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dx,
                     TensorView<T, Dynamic, Dynamic> dweight, ExecutorRef executor = kSerial,
                     InputGradient input_gradient = InputGradient::written) {
  const Index rows = dy.extent(0);
  const Index out = dy.extent(1);
  detail::check_rows("dy of linear_backward", dy);
  if (!dx.empty()) {
    detail::check_matrix("dx of linear_backward", dx, rows, dx.extent(1));
    detail::check_matrix("weight of linear_backward", weight, out, dx.extent(1));
  }
  if (!dweight.empty()) {
    detail::check_matrix("dweight of linear_backward", dweight, out, dweight.extent(1));
    detail::check_matrix("x of linear_backward", x, rows, dweight.extent(1));
  }

  if (!dx.empty()) {
    const Index in = dx.extent(1);
    const auto output = input_gradient == InputGradient::added ? cpu::MatmulOutput::added
                                                               : cpu::MatmulOutput::written;
    const auto multiply = [&](Index r, Index r_count, Index i, Index i_count) {
      cpu::matmul(r_count, i_count, out, cpu::Rows<T>{dy.data() + r * dy.stride(0), dy.stride(0)},
                  cpu::Rows<T>{weight.data() + i, weight.stride(0)},
                  dx.data() + r * dx.stride(0) + i, dx.stride(0), output);
    };
    detail::for_each_block(rows, in, detail::BlockSize{256, 128}, out, multiply, executor);
  }
  if (!dweight.empty()) {
    const Index in = dweight.extent(1);
    const auto multiply = [&](Index o, Index o_count, Index i, Index i_count) {
      cpu::matmul(o_count, i_count, rows, cpu::Transposed<T>{dy.data() + o, dy.stride(0)},
                  cpu::Rows<T>{x.data() + i, x.stride(0)},
                  dweight.data() + o * dweight.stride(0) + i, dweight.stride(0),
                  cpu::MatmulOutput::added);
    };
    detail::for_each_block(out, in, detail::BlockSize{128, 256}, rows, multiply, executor);
  }
}

NHA_ISA_NAMESPACE_END
