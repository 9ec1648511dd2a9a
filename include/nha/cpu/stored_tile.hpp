// SPDX-License-Identifier: MIT
// Rows of stored numbers as vectors to compute with, in whichever order of lanes is cheapest to
// load and store for their type.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dither.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/index.hpp>
#include <nha/cpu/simd.hpp>
#include <nha/cpu/simd_half.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

namespace cpu {

/// A tile `Vectors` vectors wide of rows stored in T. bfloat16 comes two vectors at a time, the
/// even columns and the odd ones; what stands beside the rows, a number for each column, must come
/// and go in the same order.
template <class Arch, class T, int Vectors>
struct StoredTile {
  using Acc = accumulate_t<T>;
  using V = simd::vec<Acc, Arch>;
  using Row = V[Vectors];
  static constexpr Index kLanes = simd::lanes<Acc, Arch>;
  static constexpr bool kInPairs =
      simd::kPairsOfHalves && std::is_same_v<T, bfloat16> && !simd::Number<V> && Vectors % 2 == 0;

  /// A row.
  NHA_INLINE static void load(const T* p, Row& row) noexcept {
    if constexpr (kInPairs) NHA_UNROLL
    for (int i = 0; i < Vectors / 2; ++i)
      simd::load_pairs<simd::dithers<Arch>>(p + 2 * i * kLanes, row[2 * i], row[2 * i + 1]);
    else NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) row[v] = simd::load_wide<V>(p + v * kLanes);
  }
  /// A number for each column.
  NHA_INLINE static void load_columns(const Acc* p, Row& columns) noexcept {
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) columns[v] = simd::load<V>(p + v * kLanes);
    if constexpr (kInPairs) NHA_UNROLL
    for (int i = 0; i < Vectors / 2; ++i) simd::split_pairs(columns[2 * i], columns[2 * i + 1]);
  }
  NHA_INLINE static void store_columns(Acc* p, Row& columns) noexcept {
    if constexpr (kInPairs) NHA_UNROLL
    for (int i = 0; i < Vectors / 2; ++i) simd::join_pairs(columns[2 * i], columns[2 * i + 1]);
    NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) simd::store(p + v * kLanes, columns[v]);
  }
};

/// Stores rows of a tile one after the other; half types are rounded by dithers (core/dither.hpp).
template <class Arch, class T, int Vectors>
class TileWriter {
  using Tile = StoredTile<Arch, T, Vectors>;

 public:
  /// @param row_start dither of the first row's column 0
  /// @param column    the tile's first
  NHA_INLINE TileWriter(std::uint32_t row_start, Index column) noexcept {
    if constexpr (kRounds) NHA_UNROLL
    for (int i = 0; i < kDithers; ++i) {
      if constexpr (Tile::kInPairs)
        dithers_[i] = simd::dithers_from<Arch, 2>(row_start, column + i);
      else
        dithers_[i] = simd::dithers_from<Arch>(row_start, column + i * Tile::kLanes);
    }
  }
  /// Leaves in `row` the numbers as stored.
  NHA_INLINE void store(T* p, typename Tile::Row& row) noexcept {
    if constexpr (Tile::kInPairs) NHA_UNROLL
    for (int i = 0; i < Vectors / 2; ++i)
      simd::store_pairs(p + 2 * i * Tile::kLanes, row[2 * i], row[2 * i + 1], dithers_[0],
                        dithers_[1]);
    else NHA_UNROLL
    for (int v = 0; v < Vectors; ++v) {
      if constexpr (kRounds)
        row[v] = simd::store_narrow(p + v * Tile::kLanes, row[v], dithers_[v % kDithers]);
      else
        simd::store(p + v * Tile::kLanes, row[v]);
    }
    if constexpr (kRounds) NHA_UNROLL
    for (int i = 0; i < kDithers; ++i) dithers_[i] = dithers_[i] + simd::dithers<Arch>(kDitherRow);
  }

 private:
  static constexpr bool kRounds = !std::is_same_v<T, accumulate_t<T>>;
  // As many as the columns of a period need.
  static constexpr int kDithers =
      Tile::kInPairs
          ? 2
          : std::min(Vectors, static_cast<int>(std::max<Index>(kDitherPeriod / Tile::kLanes, 1)));
  struct Nothing {};
  std::conditional_t<kRounds, simd::dithers<Arch>, Nothing> dithers_[kDithers];
};

}  // namespace cpu

NHA_ISA_NAMESPACE_END
