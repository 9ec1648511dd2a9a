// SPDX-License-Identifier: MIT
// Large dense products: C = A * B for row-major matrices of any size and any row stride.
//
// gemm() wants a right operand in panels of kRowPadding columns that stay in cache. matmul() copies
// one block of B after the other into such panels and uses each for many rows of A. Where A has too
// few rows to pay for the copies, dot_products() reads both operands in place. All memory is on the
// stack.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/dot_products.hpp>
#include <nha/cpu/gemm.hpp>
#include <nha/cpu/pack.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// What becomes of the numbers that C held: replaced by the product, or added to it.
enum class MatmulOutput : std::uint8_t { written, added };

/// Below this many rows, reading W in place costs less than copying it.
inline constexpr Index kFewRows = 16;

namespace detail {

/// The memory of one product, 32 KiB, and what is put into it.
template <class T, class Arch>
struct MatmulBlocks {
  /// Columns of a panel that a tile of gemm() reads at once.
  static constexpr Index kPanel = std::max(kRowPadding, 2 * simd::lanes<T, Arch>);
  /// Depth of a block of B. Deeper ones leave an L1 cache, shallower ones load and store C more.
  static constexpr Index kDepth = 240;
  /// Where A has few rows, C is small and B is best read in long pieces: shallow, wide blocks.
  static constexpr Index kLeastDepth = 32;
  /// Rows of A that are copied at once, where A is copied: whole tiles of gemm(), 6 or 8 high.
  static constexpr Index kStrip = 192 / static_cast<Index>(sizeof(T));
  /// Blocks of at most this many rows of C, whole tiles again, are walked along their rows.
  static constexpr Index kRowsAlong = 24;

  static constexpr Index kNumbers = 30 * 1024 / static_cast<Index>(sizeof(T));
  static constexpr Index kEdgeRows = 2048 / static_cast<Index>(sizeof(T)) / kRowPadding;
  /// Depth of a block of B beside a strip of A.
  static constexpr Index kStripDepth = kNumbers / (kStrip + kPanel) / 4 * 4;
  static_assert(kDepth * kPanel <= kNumbers && kDepth % 4 == 0 && kStripDepth > 0);

  alignas(64) T copies[kNumbers];
  /// Products with the last columns, where these do not fill a panel.
  alignas(64) T edge[kEdgeRows * kRowPadding];
};

/// The operand without its first rows and columns.
template <class T>
NHA_INLINE Rows<T> from(const Rows<T>& operand, Index row, Index column) noexcept {
  return {operand.data + row * operand.stride + column, operand.stride};
}
template <class T>
NHA_INLINE Transposed<T> from(const Transposed<T>& operand, Index row, Index column) noexcept {
  return {operand.data + column * operand.stride + row, operand.stride};
}

/// Copies B [depth, columns] into panels, one after the other; the last one is padded with 0.
template <class T>
void copy_panels(const Rows<T>& b, Index depth, Index columns, T* panels) noexcept {
  for (Index k = 0; k < depth; ++k)
    for (Index j = 0; j < columns; j += kRowPadding)
      pack_row(b.data + k * b.stride + j, std::min(kRowPadding, columns - j),
               panels + j * depth + k * kRowPadding);
}
template <class T>
void copy_panels(const Transposed<T>& b, Index depth, Index columns, T* panels) noexcept {
  for (Index j = 0; j < columns; j += kRowPadding)
    transpose(b.data + j * b.stride, std::min(kRowPadding, columns - j), depth, b.stride,
              panels + j * depth, kRowPadding);
}

/// gemm(), with the choice at run time.
template <class Arch, class T, class Left>
void multiply(Index rows, Index columns, Index depth, const Left& a, const RightOperand<T>& panels,
              T* c, Index c_stride, MatmulOutput output) noexcept {
  if (output == MatmulOutput::written)
    gemm<Arch>(rows, columns, depth, a, panels, c, c_stride, StartAtZero());
  else
    gemm<Arch>(rows, columns, depth, a, panels, c, c_stride, Accumulate());
}

/// The product with one block of B, in panels. C need not be padded.
template <class Arch, class T, class Left>
void multiply_block(Index rows, Index columns, Index depth, const Left& a, const T* panels, T* edge,
                    T* c, Index c_stride, MatmulOutput output) noexcept {
  using Blocks = MatmulBlocks<T, Arch>;
  const Index whole = columns / kRowPadding * kRowPadding;
  const Index rest = columns - whole;
  const Index panel_stride = depth * kRowPadding;
  const Index at_once = whole > Blocks::kPanel ? Blocks::kRowsAlong : rows;
  for (Index row = 0; row < rows && whole > 0; row += at_once)
    multiply<Arch>(std::min(at_once, rows - row), whole, depth, from(a, row, 0),
                   RightOperand<T>{panels, panel_stride, kRowPadding}, c + row * c_stride, c_stride,
                   output);
  for (Index row = 0; row < rows && rest > 0; row += Blocks::kEdgeRows) {
    const Index count = std::min(Blocks::kEdgeRows, rows - row);
    multiply<Arch>(count, kRowPadding, depth, from(a, row, 0),
                   RightOperand<T>{panels + whole * depth, panel_stride, kRowPadding}, edge,
                   kRowPadding, MatmulOutput::written);
    for (Index i = 0; i < count; ++i) {
      T* to = c + (row + i) * c_stride + whole;
      for (Index j = 0; j < rest; ++j)
        to[j] = edge[i * kRowPadding + j] + (output == MatmulOutput::added ? to[j] : T{0});
    }
  }
}

}  // namespace detail

/// C [rows, columns] = A [rows, depth] * B [depth, columns], written or added to what C holds. A
/// and B are Rows or Transposed, of any stride and alignment; C has rows of c_stride numbers and
/// must not overlap them. Allocates nothing; takes 32 KiB of stack. Cost: rows * columns * depth
/// multiply-adds.
template <class Arch = simd::default_arch, class T, class Left, class Right>
void matmul(Index rows, Index columns, Index depth, const Left& a, const Right& b, T* c,
            Index c_stride, MatmulOutput output = MatmulOutput::written) noexcept {
  constexpr bool kLeftTransposed = std::is_same_v<Left, Transposed<T>>;
  constexpr bool kRightTransposed = std::is_same_v<Right, Transposed<T>>;
  if constexpr (!kLeftTransposed && kRightTransposed) {
    if (rows < kFewRows && output == MatmulOutput::written) {
      dot_products<Arch>(rows, columns, depth, a.data, a.stride, b.data, b.stride, c, c_stride);
      return;
    }
  }
  using Blocks = detail::MatmulBlocks<T, Arch>;
  Blocks blocks;
  // A tile reads a few numbers of a transposed A at each step of the depth. Where each step is on
  // another page, copying a strip of rows first costs less.
  constexpr Index kPage = 4096 / static_cast<Index>(sizeof(T));
  const bool copies_left = kLeftTransposed && a.stride >= kPage && depth >= 64;
  const Index strip = copies_left ? Blocks::kStrip : rows;
  const Index left_width = copies_left ? Blocks::kStrip : 0;

  const Index most = copies_left        ? Blocks::kStripDepth
                     : kRightTransposed ? Blocks::kDepth
                                        : std::clamp(rows, Blocks::kLeastDepth, Blocks::kDepth);
  // Blocks of nearly equal depth, a multiple of 4: both gemm() and transpose() go in fours.
  const Index steps = std::max<Index>(1, (depth + most - 1) / most);
  const Index step = std::max<Index>(4, (depth + 4 * steps - 1) / (4 * steps) * 4);
  for (Index row = 0; row < rows; row += strip) {
    const Index height = std::min(strip, rows - row);
    for (Index k = 0; k == 0 || k < depth; k += step) {
      const Index count = std::min(step, depth - k);
      const MatmulOutput of_block = k == 0 ? output : MatmulOutput::added;
      Left left = detail::from(a, row, k);
      if (copies_left) {
        for (Index i = 0; i < count; ++i)
          pack_row(left.data + i * left.stride, height, blocks.copies + i * left_width);
        left = {blocks.copies, left_width};
      }
      T* panels = blocks.copies + count * left_width;
      const Index wide =
          (Blocks::kNumbers / std::max<Index>(1, count) - left_width) / kRowPadding * kRowPadding;
      for (Index column = 0; column < columns; column += wide) {
        const Index width = std::min(wide, columns - column);
        detail::copy_panels(detail::from(b, k, column), count, width, panels);
        detail::multiply_block<Arch>(height, width, count, left, panels, blocks.edge,
                                     c + row * c_stride + column, c_stride, of_block);
      }
    }
  }
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
