// SPDX-License-Identifier: MIT
// The limits of the library: what is taken for a mistake, and the checks that say so.
#pragma once

#include <nha/config.hpp>
#include <nha/core/error.hpp>
#include <nha/core/index.hpp>

#include <cstddef>
#include <cstdint>
#include <limits>

NHA_NAMESPACE_BEGIN

/// Larger sizes of a model, layer or memory are taken for mistakes. The product of any two, in
/// bytes, fits in an Index.
inline constexpr Index kLargestSize = Index{1} << 24;

/// Bytes of memory beyond this, a pebibyte, no machine has.
inline constexpr double kLargestBytes = 0x1p50;

/// The most tokens of one call that sizes are computed for: sums of them stay in range.
inline constexpr Index kMostCallTokens = Index{1} << 40;

/// Positions of a saved sequence beyond this are damage; adding to them must not overflow.
inline constexpr std::int64_t kMostTokensSeen = std::int64_t{1} << 62;

/// The most tasks that an executor runs at once.
inline constexpr Index kMostWorkers = 1024;

/// Longest header of a safetensors file that is read, in bytes: as in other readers of the format.
inline constexpr std::uint64_t kLongestSafetensorsHeader = 100'000'000;

/// Longest configuration that is read, in bytes.
inline constexpr std::size_t kLongestConfig = std::size_t{1} << 20;

/// Longest list that is read from a configuration or written to one: entries of windows and of
/// head_windows.
inline constexpr std::size_t kLongestConfigList = std::size_t{1} << 15;

/// Most layers that are read, and most entries of head_windows in all layers together: how much
/// memory a short text can ask for.
inline constexpr Index kMostConfigLayers = Index{1} << 16;
inline constexpr std::size_t kMostConfigHeadWindows = std::size_t{1} << 20;

/// The most numbers of one tensor or state that a test case in a file may ask for.
inline constexpr double kMostCaseNumbers = 0x1p28;

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// Multiplies a positive product by one more extent, 0 or more. An extent of 0 counts as 1, so that
/// it hides no overflow of the others. False, and nothing changed, where the result exceeds an
/// Index.
NHA_INLINE constexpr bool multiply_extent(Index& product, Index extent) noexcept {
  if (extent <= 1) return true;
  if (product > std::numeric_limits<Index>::max() / extent) return false;
  product *= extent;
  return true;
}

}  // namespace detail

/// Checks a size before it is computed in integers, where a product of absurd sizes might wrap
/// around and leave a small buffer.
/// @param what what is to hold so much, for the message.
/// @throws ArgumentError if `bytes`, computed in floating point, are more than any memory holds.
inline void check_bytes(const char* what, double bytes) {
  check_argument(bytes <= kLargestBytes, what, " of ", bytes, " bytes does not fit in memory");
}

/// @throws ArgumentError unless `size` lies in `least` to kLargestSize and is the static size,
///   where there is one.
inline void check_size(const char* name, Index size, Index least, Index static_size = Dynamic) {
  check_argument(size >= least && size <= kLargestSize, name, " is ", size, "; expected ", least,
                 " to ", kLargestSize);
  check_argument(static_size == Dynamic || static_size == size, name, " is ", size,
                 "; the type says ", static_size);
}

NHA_ISA_NAMESPACE_END
