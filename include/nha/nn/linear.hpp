// SPDX-License-Identifier: MIT
// The large products of a layer: y = x W^T, with W as checkpoints store it. The only header of the
// layer, with linear_backward.hpp, that names Eigen.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/parallel/executor.hpp>

#include <Eigen/Core>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Eigen's views of ours, made where they are used and never kept.
template <class T>
using EigenRows = Eigen::Map<
    std::conditional_t<std::is_const_v<T>,
                       const Eigen::Matrix<std::remove_const_t<T>, Eigen::Dynamic, Eigen::Dynamic,
                                           Eigen::RowMajor>,
                       Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>,
    Eigen::Unaligned, Eigen::OuterStride<>>;

template <class T>
EigenRows<T> eigen_rows(const TensorView<T, Dynamic, Dynamic>& view) noexcept {
  // The stride of a single row means nothing and may be too small for Eigen.
  return EigenRows<T>(view.data(), view.extent(0), view.extent(1),
                      Eigen::OuterStride<>(std::max<Index>(view.stride(0), view.extent(1))));
}

// Fewer rows than this are multiplied one after another with a block of the weights that stays in
// cache: the weights are read once and nothing is packed or allocated.
inline constexpr Index kFewRows = 8;

template <class T>
void linear_block(const TensorView<const T, Dynamic, Dynamic>& x,
                  const TensorView<const T, Dynamic, Dynamic>& weight,
                  const TensorView<T, Dynamic, Dynamic>& y) {
  const auto in = eigen_rows(x);
  const auto w = eigen_rows(weight);
  auto out = eigen_rows(y);
  if (x.extent(0) >= kFewRows) {
    out.noalias() = in * w.transpose();
  } else {
    for (Index r = 0; r < x.extent(0); ++r)
      out.row(r).transpose().noalias() = w * in.row(r).transpose();
  }
}

struct BlockSize {
  Index rows, columns;
};

/// Calls multiply(row, rows, column, columns) for each block of a product of `rows` x `columns`
/// numbers, `depth` multiply-adds each: one task a block. A small product stays on the calling
/// thread; the blocks are the same.
template <class Multiply, Executor E>
void for_each_block(Index rows, Index columns, const BlockSize& block, Index depth,
                    const Multiply& multiply, E&& executor) {
  const Index across = (columns + block.columns - 1) / block.columns;
  const Index tasks = (rows + block.rows - 1) / block.rows * across;
  const auto task = [&](Index i, Index) {
    const Index row = i / across * block.rows;
    const Index column = i % across * block.columns;
    multiply(row, std::min(block.rows, rows - row), column,
             std::min(block.columns, columns - column));
  };
  // Below about this many multiply-adds, waking threads costs more than it saves.
  constexpr double kWorthThreads = 1 << 18;
  const double work =
      static_cast<double>(rows) * static_cast<double>(columns) * static_cast<double>(depth);
  if (work < kWorthThreads)
    Serial{}.run(tasks, task);
  else
    executor.run(tasks, task);
}

}  // namespace detail

/// y = x W^T: x [rows, in], weight [out, in] as checkpoints store it, y [rows, out]. Rows must be
/// contiguous and y must not overlap x. Cost rows * in * out multiply-adds.
///
/// The product is cut into blocks that are tasks of the executor; a small one runs on the calling
/// thread. The blocks do not depend on the executor and neither does the result. With fewer than 8
/// rows nothing is allocated; with more, Eigen may take packing buffers from the heap. Tasks are
/// noexcept: if there is no memory for these buffers the program is terminated.
/// @throws ArgumentError if the shapes do not fit, there is no data, or rows are not contiguous or
///   overlap (a stride that is 0, negative or shorter than a row); nothing has then been touched.
template <std::floating_point T, Executor E = const Serial>
void linear(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
            std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
            TensorView<T, Dynamic, Dynamic> y, E&& executor = Serial{}) {
  const Index rows = x.extent(0);
  const Index out = weight.extent(0);
  const Index in = weight.extent(1);
  check_argument(x.extent(1) == in, "x of linear has rows of ", x.extent(1),
                 "; the weight expects ", in);
  detail::check_rows("x of linear", x);
  detail::check_rows("weight of linear", weight);
  detail::check_matrix("y of linear", y, rows, out);
  if (rows == 0 || out == 0) return;

  const bool few = rows < detail::kFewRows;
  const detail::BlockSize block = few ? detail::BlockSize{rows, 64} : detail::BlockSize{128, 512};
  const auto multiply = [&](Index r, Index r_count, Index o, Index o_count) {
    detail::linear_block<T>(x.template slice<0>(r, r_count), weight.template slice<0>(o, o_count),
                            y.template slice<0>(r, r_count).template slice<1>(o, o_count));
  };
  detail::for_each_block(rows, out, block, in, multiply, executor);
}

NHA_ISA_NAMESPACE_END
