// SPDX-License-Identifier: MIT
// Small dense products, the bulk of the chunked algorithm: C = init(C) + A * B.
//
// Register-blocked: a tile of Rows x Vectors sums stays in registers while the depth is walked;
// each step loads Vectors vectors of a row of B and broadcasts one number of A for each row. The
// shapes are a few dozen rows and columns with operands in L1 or L2, so there is no blocking beyond
// that and nothing is packed here.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// The left operand, row-major: element (i, k) is data[i * stride + k].
template <class T>
struct Rows {
  const T* data;
  Index stride;
  NHA_INLINE const T* at(Index row) const noexcept { return data + row * stride; }
  NHA_INLINE T operator()(const T* at, Index row, Index k) const noexcept {
    return at[row * stride + k];
  }
};

/// The left operand given transposed: element (i, k) is data[k * stride + i]. Needs no copy,
/// because its numbers are broadcast one at a time.
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

/// What the sums start from.
struct StartAtZero {
  template <class V, class T>
  NHA_INLINE V operator()(const T*, Index, Index) const noexcept {
    return V(T{0});
  }
};
/// C itself: C += A * B.
struct Accumulate {
  template <class V, class T>
  NHA_INLINE V operator()(const T* c, Index, Index) const noexcept {
    return simd::load<V>(c);
  }
};
/// A matrix of C's shape, perhaps C itself, with row i multiplied by factor[i].
template <class T>
struct ScaleRows {
  const T* factor;
  const T* from;
  Index stride;
  template <class V>
  NHA_INLINE V operator()(const T*, Index row, Index column) const noexcept {
    return simd::load<V>(from + row * stride + column) * V(factor[row]);
  }
};
/// A matrix of C's shape, perhaps C itself, with column j multiplied by factor[j].
template <class T>
struct ScaleColumns {
  const T* factor;
  const T* from;
  Index stride;
  template <class V>
  NHA_INLINE V operator()(const T*, Index row, Index column) const noexcept {
    return simd::load<V>(from + row * stride + column) * simd::load<V>(factor + column);
  }
};

/// What is done between two tiles of a product, which hide it if it is little: here nothing.
struct NothingAside {
  NHA_INLINE void operator()() const noexcept {}
};

namespace detail {

/// Tile of sums held in registers, by the number of them. 16 registers: 6 x 2 sums, 2 vectors of B,
/// 1 of A. 32: 8 x 2 with wide vectors; with 128-bit ones 6 x 4, so that a tile has 16 columns.
template <class T, class Arch>
struct GemmTile {
  static constexpr int rows = simd::registers >= 32 && simd::lanes<T, Arch> > 4 ? 8 : 6;
  static constexpr int vectors = simd::registers >= 32 && simd::lanes<T, Arch> <= 4 ? 4 : 2;
};

template <class Arch, int Height, int Vectors, class T, class Left, class Start>
NHA_INLINE void gemm_tile(Index row, Index column, Index depth, const Left& a,
                          const RightOperand<T>& b, T* c, Index c_stride,
                          const Start& start) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr Index kLanes = simd::lanes<T, Arch>;
  V sum[Height][Vectors];
  const T* b_at[Vectors];
  simd::unroll<Vectors>([&](auto v) NHA_INLINE_LAMBDA {
    const Index j = column + v * kLanes;
    b_at[v] = b.data + j / kRowPadding * b.panel_stride + j % kRowPadding;
    simd::unroll<Height>([&](auto r) NHA_INLINE_LAMBDA {
      sum[r][v] = start.template operator()<V>(c + (row + r) * c_stride + j, row + r, j);
    });
  });
  const T* a_at = a.at(row);
// Up to 5% faster than one step at a time, mostly in long windows; 8 steps gain no more.
#pragma GCC unroll 4
  for (Index k = 0; k < depth; ++k) {
    V b_row[Vectors];
    simd::unroll<Vectors>([&](auto v) NHA_INLINE_LAMBDA {
      b_row[v] = simd::load<V>(b_at[v] + k * b.row_stride);
    });
    simd::unroll<Height>([&](auto r) NHA_INLINE_LAMBDA {
      const V a_rk(a(a_at, r, k));
      simd::unroll<Vectors>([&](auto v) NHA_INLINE_LAMBDA {
        sum[r][v] = simd::fma(a_rk, b_row[v], sum[r][v]);
      });
    });
  }
  simd::unroll<Vectors>([&](auto v) NHA_INLINE_LAMBDA {
    simd::unroll<Height>([&](auto r) NHA_INLINE_LAMBDA {
      simd::store(c + (row + r) * c_stride + column + v * kLanes, sum[r][v]);
    });
  });
}

/// Calls gemm_tile with the template argument equal to `height`, which is at most Height.
template <class Arch, int Height, int Vectors, class T, class Left, class Start>
NHA_INLINE void gemm_rows(Index height, Index row, Index column, Index depth, const Left& a,
                          const RightOperand<T>& b, T* c, Index c_stride,
                          const Start& start) noexcept {
  if (height == Height)
    gemm_tile<Arch, Height, Vectors>(row, column, depth, a, b, c, c_stride, start);
  else if constexpr (Height > 1)
    gemm_rows<Arch, Height - 1, Vectors>(height, row, column, depth, a, b, c, c_stride, start);
}

}  // namespace detail

/// C [rows, columns] = start(C) + A [rows, depth] * B [depth, columns]; columns is a multiple of
/// kRowPadding, so B and C have padded rows. A is Rows or Transposed, start one of the above;
/// aside() is called after each tile. No operand of the product may overlap C. Cost rows * columns
/// * depth multiply-adds.
template <class Arch = simd::default_arch, class T, class Left, class Start,
          class Aside = NothingAside>
void gemm(Index rows, Index columns, Index depth, const Left& a, const RightOperand<T>& b, T* c,
          Index c_stride, const Start& start, Aside&& aside = {}) noexcept {
  using Tile = detail::GemmTile<T, Arch>;
  constexpr Index kWidth = Tile::vectors * simd::lanes<T, Arch>;
  if (rows == 0) return;
  // Tiles of nearly equal height: 16 rows are 6 + 5 + 5, not 6 + 6 + 4.
  const Index tiles = (rows + Tile::rows - 1) / Tile::rows;
  const auto sweep = [&](Index column, auto vectors) NHA_INLINE_LAMBDA {
    for (Index tile = 0, row = 0; tile < tiles; ++tile) {
      const Index height = rows / tiles + (tile < rows % tiles ? 1 : 0);
      detail::gemm_rows<Arch, Tile::rows, decltype(vectors)::value>(height, row, column, depth, a,
                                                                    b, c, c_stride, start);
      row += height;
      aside();
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
