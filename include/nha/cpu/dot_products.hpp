// SPDX-License-Identifier: MIT
// Products of few rows with many, y = x W^T, as dot products: what a layer computes for one token.
//
// Time goes into reading W, so each row of it is read once, in place, for all rows of x. A tile
// keeps as many sums as a vector has lanes: their totals are then one vector as well.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/simd.hpp>

#include <algorithm>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

namespace detail {

/// The products of XRows rows of x with WRows rows of W. Where fewer are left, the last one is read
/// again in place of those that are missing, and their products are dropped.
template <class Arch, int XRows, int WRows, class T>
NHA_INLINE void dot_tile(Index x_rows, Index w_rows, Index depth, const T* x, Index x_stride,
                         const T* w, Index w_stride, T* y, Index y_stride) noexcept {
  using V = simd::vec<T, Arch>;
  constexpr int kLanes = static_cast<int>(simd::lanes<T, Arch>);
  constexpr int kSums = XRows * WRows;
  static_assert(kSums % kLanes == 0, "the sums of a tile fill whole vectors");
  const T* x_at[XRows];
  const T* w_at[WRows];
  for (int r = 0; r < XRows; ++r) x_at[r] = x + std::min<Index>(r, x_rows - 1) * x_stride;
  for (int o = 0; o < WRows; ++o) w_at[o] = w + std::min<Index>(o, w_rows - 1) * w_stride;

  V sum[kSums / kLanes][kLanes];
  simd::unroll<kSums>([&](auto i) NHA_INLINE_LAMBDA {
    sum[i / kLanes][i % kLanes] = V(T{0});
  });
  Index k = 0;
  for (; k + kLanes <= depth; k += kLanes) {
    V x_k[XRows];
    simd::unroll<XRows>([&](auto r) NHA_INLINE_LAMBDA {
      x_k[r] = simd::load<V>(x_at[r] + k);
    });
    simd::unroll<WRows>([&](auto o) NHA_INLINE_LAMBDA {
      const V w_k = simd::load<V>(w_at[o] + k);
      simd::unroll<XRows>([&](auto r) NHA_INLINE_LAMBDA {
        constexpr int i = r * WRows + o;
        sum[i / kLanes][i % kLanes] = simd::fma(x_k[r], w_k, sum[i / kLanes][i % kLanes]);
      });
    });
  }

  T total[kSums];
  simd::unroll<kSums / kLanes>([&](auto i) NHA_INLINE_LAMBDA {
    simd::store(total + i * kLanes, simd::reduce_add_each(sum[i]));
  });
  for (int r = 0; r < std::min<Index>(XRows, x_rows); ++r)
    for (int o = 0; o < std::min<Index>(WRows, w_rows); ++o) {
      T value = total[r * WRows + o];
      for (Index i = k; i < depth; ++i) value = simd::fma(x_at[r][i], w_at[o][i], value);
      y[r * y_stride + o] = value;
    }
}

}  // namespace detail

/// y = x W^T for x [rows, depth], W [columns, depth] and y [rows, columns], all row-major with any
/// row strides and any alignment. y must not overlap x or W. Each number of y depends on its row of
/// x and its row of W alone, not on how many there are. Allocates nothing. Cost: rows * columns *
/// depth multiply-adds; W is read from memory once.
template <class Arch = simd::default_arch, class T>
void dot_products(Index rows, Index columns, Index depth, const T* x, Index x_stride, const T* w,
                  Index w_stride, T* y, Index y_stride) noexcept {
  constexpr int kLanes = static_cast<int>(simd::lanes<T, Arch>);
  // Four rows of W at a time fit an L1 cache, where the next rows of x find them.
  constexpr int kWRows = 4;
  constexpr int kXRows = std::max(1, kLanes / kWRows);
  constexpr int kWRowsOfOne = std::max(kWRows, kLanes);
  if (rows == 1) {
    for (Index o = 0; o < columns; o += kWRowsOfOne)
      detail::dot_tile<Arch, 1, kWRowsOfOne>(1, columns - o, depth, x, x_stride, w + o * w_stride,
                                             w_stride, y + o, y_stride);
    return;
  }
  for (Index o = 0; o < columns; o += kWRows)
    for (Index r = 0; r < rows; r += kXRows)
      detail::dot_tile<Arch, kXRows, kWRows>(rows - r, columns - o, depth, x + r * x_stride,
                                             x_stride, w + o * w_stride, w_stride,
                                             y + r * y_stride + o, y_stride);
}

}  // namespace cpu

NHA_ISA_NAMESPACE_END
