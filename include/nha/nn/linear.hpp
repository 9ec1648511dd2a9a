// SPDX-License-Identifier: MIT
// The large product of a layer, y = x W^T, with W as checkpoints store it, in tasks of an executor.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>
#include <nha/core/tensor_view.hpp>
#include <nha/cpu/matmul.hpp>
#include <nha/nn/check_rows.hpp>
#include <nha/parallel/executor.hpp>

#include <algorithm>
#include <concepts>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

struct BlockSize {
  Index rows, columns;
};

/// Calls multiply(row, rows, column, columns) for each block of a product of `rows` x `columns`
/// numbers, `depth` multiply-adds each: one task a block. A small product stays on the calling
/// thread; the blocks are the same.
template <class Multiply>
void for_each_block(Index rows, Index columns, const BlockSize& block, Index depth,
                    const Multiply& multiply, ExecutorRef executor) {
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
    kSerial.run(tasks, task);
  else
    executor.run(tasks, task);
}

}  // namespace detail

/// y = x W^T: x [rows, in], weight [out, in] as checkpoints store it, y [rows, out]. Rows must be
/// contiguous and y must not overlap x or weight. Allocates nothing. Cost: rows * in * out
/// multiply-adds.
///
/// The product is cut into blocks that are tasks of the executor; a small one runs on the calling
/// thread. The blocks do not depend on the executor, and neither does the result. Below
/// cpu::kFewRows rows, as in decoding, each row of y has the same bits whatever other rows there
/// are. A task takes 32 KiB of stack.
/// @throws ArgumentError if the shapes do not fit, there is no data, or rows are not contiguous or
///   overlap (a stride that is 0, negative or shorter than a row); nothing has then been touched.
template <std::floating_point T>
void linear(std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> x,
            std::type_identity_t<TensorView<const T, Dynamic, Dynamic>> weight,
            TensorView<T, Dynamic, Dynamic> y, ExecutorRef executor = kSerial) {
  const Index rows = x.extent(0);
  const Index out = weight.extent(0);
  const Index in = weight.extent(1);
  check_argument(x.extent(1) == in, "x of linear has rows of ", x.extent(1),
                 "; the weight expects ", in);
  detail::check_rows("x of linear", x);
  detail::check_rows("weight of linear", weight);
  detail::check_matrix("y of linear", y, rows, out);

  // A block copies its part of the weights once: many rows share the copy.
  constexpr detail::BlockSize kBlock{256, 64};
  const auto multiply = [&](Index r, Index r_count, Index o, Index o_count) {
    cpu::matmul(r_count, o_count, in, cpu::Rows<T>{x.data() + r * x.stride(0), x.stride(0)},
                cpu::Transposed<T>{weight.data() + o * weight.stride(0), weight.stride(0)},
                y.data() + r * y.stride(0) + o, y.stride(0));
  };
  detail::for_each_block(rows, out, kBlock, in, multiply, executor);
}

NHA_ISA_NAMESPACE_END
