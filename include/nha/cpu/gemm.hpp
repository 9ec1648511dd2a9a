// SPDX-License-Identifier: MIT
// Small dense products, the bulk of the chunked algorithm: C = start(C) + A * B.
//
// Register-blocked: a tile of sums stays in registers while the depth is walked. Each step loads a
// few vectors of a row of B and broadcasts one number of A for each row. The shapes are a few dozen
// rows and columns with operands in L1 or L2, so nothing is blocked beyond that, or packed here.
//
// What the operands are like is known at run time, so that programs compile one instantiation for
// all products of a number type.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/row_prefetcher.hpp>
#include <nha/cpu/simd.hpp>

#include <cassert>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// A row-major left operand: element (i, k) is data[i * stride + k].
template <class T>
struct Rows {
  const T* data;
  Index stride;
  NHA_INLINE const T* at(Index row) const noexcept { return data + row * stride; }
  NHA_INLINE T operator()(const T* at, Index row, Index k) const noexcept {
    return at[row * stride + k];
  }
};

/// A left operand given transposed: element (i, k) is data[k * stride + i]. Needs no copy, because
/// its numbers are broadcast one at a time.
template <class T>
struct Transposed {
  const T* data;
  Index stride;
  NHA_INLINE const T* at(Index row) const noexcept { return data + row; }
  NHA_INLINE T operator()(const T* at, Index row, Index k) const noexcept {
    return at[k * stride + row];
  }
};

/// The right operand in panels of kRowPadding columns: element (k, j) is
///   data[(j / 16) * panel_stride + k * row_stride + j % 16].
/// A row-major matrix with n columns has panel_stride 16 and row_stride n; keys packed for scores
/// have one panel of [key_dim, 16] after the other.
template <class T>
struct RightOperand {
  const T* data;
  Index panel_stride;
  Index row_stride;
};

/// A row-major matrix as right operand.
template <class T>
NHA_INLINE RightOperand<T> row_major(const T* data, Index row_stride) noexcept {
  return {data, kRowPadding, row_stride};
}

/// Sums start at 0: C = A * B.
struct StartAtZero {};
/// Sums start from C itself: C += A * B.
struct Accumulate {};
/// Sums start from a matrix of C's shape, perhaps C itself, with row i multiplied by factor[i].
template <class T>
struct ScaleRows {
  const T* factor;
  const T* from;
  Index stride;
};
/// Sums start from a matrix of C's shape, perhaps C itself, with column j multiplied by factor[j].
template <class T>
struct ScaleColumns {
  const T* factor;
  const T* from;
  Index stride;
};

/// One of the four.
template <class T>
class Start {
 public:
  Start(StartAtZero) noexcept : kind_(Kind::zero) {}
  Start(Accumulate) noexcept : kind_(Kind::accumulate) {}
  Start(const ScaleRows<T>& s) noexcept
      : kind_(Kind::scale_rows), stride_(s.stride), factor_(s.factor), from_(s.from) {}
  Start(const ScaleColumns<T>& s) noexcept
      : kind_(Kind::scale_columns), stride_(s.stride), factor_(s.factor), from_(s.from) {}

  /// The sums of a tile whose first element is (row, column).
  template <int Height, int Vectors, class V>
  NHA_INLINE void load(const T* c, Index c_stride, Index row, Index column,
                       V (&sum)[Height][Vectors]) const noexcept {
    constexpr auto kLanes = static_cast<Index>(sizeof(V) / sizeof(T));
    if (kind_ == Kind::zero) {
      NHA_UNROLL
      for (int r = 0; r < Height; ++r) {
        NHA_UNROLL
        for (int v = 0; v < Vectors; ++v) sum[r][v] = V(T{0});
      }
      return;
    }
    const bool itself = kind_ == Kind::accumulate;
    const T* from = (itself ? c : from_) + row * (itself ? c_stride : stride_) + column;
    const Index stride = itself ? c_stride : stride_;
    NHA_UNROLL
    for (int r = 0; r < Height; ++r) {
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v) sum[r][v] = simd::load<V>(from + r * stride + v * kLanes);
    }
    if (kind_ == Kind::scale_rows) {
      NHA_UNROLL
      for (int r = 0; r < Height; ++r) {
        NHA_UNROLL
        for (int v = 0; v < Vectors; ++v) sum[r][v] = sum[r][v] * V(factor_[row + r]);
      }
    } else if (kind_ == Kind::scale_columns) {
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v) {
        const V factor = simd::load<V>(factor_ + column + v * kLanes);
        NHA_UNROLL
        for (int r = 0; r < Height; ++r) sum[r][v] = sum[r][v] * factor;
      }
    }
  }

 private:
  enum class Kind : std::uint8_t { zero, accumulate, scale_rows, scale_columns };

  Kind kind_;
  Index stride_ = 0;
  const T* factor_ = nullptr;
  const T* from_ = nullptr;
};

namespace detail {

/// The tile of sums held in registers. With 16 registers: 6 x 2 sums, 2 vectors of B, 1 of A. With
/// 32 registers: 8 x 2, or 6 x 4 with 128-bit vectors, so that a tile has 16 columns.
template <class T, class Arch>
struct GemmTile {
  static constexpr int rows = simd::registers >= 32 && simd::lanes<T, Arch> > 4 ? 8 : 6;
  static constexpr int vectors = simd::registers >= 32 && simd::lanes<T, Arch> <= 4 ? 4 : 2;
};

template <class Arch, int Height, int Vectors, class T, class Left>
NHA_INLINE void gemm_tile(Index row, Index column, Index depth, const Left& a,
                          const RightOperand<T>& b, T* c, Index c_stride,
                          const Start<T>& start) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  V sum[Height][Vectors];
  start.load(c, c_stride, row, column, sum);
  const T* b_at[Vectors];
  NHA_UNROLL
  for (int v = 0; v < Vectors; ++v) {
    const Index j = column + v * kLanes;
    b_at[v] = b.data + j / kRowPadding * b.panel_stride + j % kRowPadding;
  }
  const T* a_at = a.at(row);
// Up to 5% faster than one step at a time, mostly in long windows; 8 steps gain no more.
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k) {
    V b_row[Vectors];
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) b_row[v] = simd::load<V>(b_at[v] + k * b.row_stride);
    NHA_UNROLL
    for (int r = 0; r < Height; ++r) {
      const V a_rk(a(a_at, r, k));
      NHA_UNROLL
      for (int v = 0; v < Vectors; ++v) sum[r][v] = simd::fma(a_rk, b_row[v], sum[r][v]);
    }
  }
  NHA_UNROLL
  for (int r = 0; r < Height; ++r) {
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v)
      simd::store(c + (row + r) * c_stride + column + v * kLanes, sum[r][v]);
  }
}

/// Calls gemm_tile with the template argument equal to `height`, which is at most Height.
template <class Arch, int Height, int Vectors, class T, class Left>
NHA_INLINE void gemm_rows(Index height, Index row, Index column, Index depth, const Left& a,
                          const RightOperand<T>& b, T* c, Index c_stride,
                          const Start<T>& start) noexcept {
  if (height == Height)
    gemm_tile<Arch, Height, Vectors>(row, column, depth, a, b, c, c_stride, start);
  else if constexpr (Height > 1)
    gemm_rows<Arch, Height - 1, Vectors>(height, row, column, depth, a, b, c, c_stride, start);
}

}  // namespace detail

/// C [rows, columns] = start(C) + A [rows, depth] * B [depth, columns]. B and C have padded rows:
/// columns is a multiple of kRowPadding. A is Rows or Transposed; start is StartAtZero, Accumulate,
/// ScaleRows or ScaleColumns. No operand of the product may overlap C. Rows are prefetched between
/// the tiles where a prefetcher is given. Cost: rows * columns * depth multiply-adds.
template <class Arch = simd::default_arch, class T, class Left>
NHA_NOINLINE void gemm(Index rows, Index columns, Index depth, const Left& a,
                       const std::type_identity_t<RightOperand<T>>& b, T* c, Index c_stride,
                       const std::type_identity_t<Start<T>>& start,
                       RowPrefetcher* prefetcher = nullptr) noexcept {
  using Tile = detail::GemmTile<T, Arch>;
  constexpr Index kWidth = Tile::vectors * simd::lanes<T, Arch>;
  assert(is_padded(columns));
  if (rows == 0) return;
  // Tiles of nearly equal height: 16 rows are 6 + 5 + 5, not 6 + 6 + 4.
  const Index tiles = (rows + Tile::rows - 1) / Tile::rows;
  const auto sweep = [&](Index column, auto vectors) NHA_INLINE_LAMBDA {
    for (Index tile = 0, row = 0; tile < tiles; ++tile) {
      const Index height = rows / tiles + (tile < rows % tiles ? 1 : 0);
      detail::gemm_rows<Arch, Tile::rows, decltype(vectors)::value>(height, row, column, depth, a,
                                                                    b, c, c_stride, start);
      row += height;
      if (prefetcher != nullptr) (*prefetcher)();
    }
  };
  Index column = 0;
  for (; column + kWidth <= columns; column += kWidth)
    sweep(column, std::integral_constant<int, Tile::vectors>());
  // Only a tile wider than the padding of rows can leave columns over: half a tile of them.
  if constexpr (kWidth > kRowPadding) {
    static_assert(kWidth == 2 * kRowPadding);
    if (column < columns) sweep(column, std::integral_constant<int, Tile::vectors / 2>());
  } else {
    static_assert(kRowPadding % kWidth == 0);
  }
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
