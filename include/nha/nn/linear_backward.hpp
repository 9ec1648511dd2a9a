// SPDX-License-Identifier: MIT
// Back through y = x W^T: dx = dy W and dW = dy^T x.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/nn/linear.hpp>
#include <nha/parallel/executor.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// What becomes of the numbers that dx held: replaced, or added to where several projections read
/// the same x.
enum class InputGradient : std::uint8_t { written, added };

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// The gradients of linear(): from dy [rows, out] to dx = dy W [rows, in], written or added, and to
/// dweight += dy^T x [out, in], each left out where its view is empty. x [rows, in] is looked at
/// for dweight alone, weight [out, in] for dx alone. Rows must be contiguous; dx and dweight must
/// not overlap each other or an input. Cost rows * in * out multiply-adds for each of the two.
///
/// The products are cut into blocks that are tasks of the executor, each summed by one task over
/// all its terms; small ones run on the calling thread. The blocks do not depend on the executor
/// and neither does the result. Eigen may take packing buffers from the heap; tasks are noexcept:
/// if there is no memory for these the program is terminated.
/// @throws ArgumentError if the shapes do not fit, there is no data, or rows are not contiguous or
///   overlap; nothing has then been touched.
template <std::floating_point T, Executor E = const Serial>
void linear_backward(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
                     std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
                     std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> dy,
                     std::type_identity_t<TensorView<T, Dynamic, Dynamic>> dx,
                     TensorView<T, Dynamic, Dynamic> dweight, E&& executor = Serial{},
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

  constexpr detail::BlockSize kBlock{128, 512};
  if (!dx.empty()) {
    const auto multiply = [&](Index r, Index r_count, Index i, Index i_count) {
      const auto from = detail::eigen_rows<const T>(dy.template slice<0>(r, r_count));
      const auto w = detail::eigen_rows<const T>(weight.template slice<1>(i, i_count));
      auto to =
          detail::eigen_rows<T>(dx.template slice<0>(r, r_count).template slice<1>(i, i_count));
      if (input_gradient == InputGradient::added)
        to.noalias() += from * w;
      else
        to.noalias() = from * w;
    };
    detail::for_each_block(rows, dx.extent(1), kBlock, out, multiply, executor);
  }
  if (!dweight.empty()) {
    const auto multiply = [&](Index o, Index o_count, Index i, Index i_count) {
      const auto from = detail::eigen_rows<const T>(dy.template slice<1>(o, o_count));
      const auto in = detail::eigen_rows<const T>(x.template slice<1>(i, i_count));
      detail::eigen_rows<T>(dweight.template slice<0>(o, o_count).template slice<1>(i, i_count))
          .noalias() += from.transpose() * in;
    };
    detail::for_each_block(out, dweight.extent(1), kBlock, rows, multiply, executor);
  }
}

NHA_ISA_NAMESPACE_END
