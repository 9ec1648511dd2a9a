// SPDX-License-Identifier: MIT
// Extent: a size that is a constant of the type where it is known when compiling, a number
// elsewhere; and the check that every size from a user passes.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/error.hpp>
#include <nha/core/tensor_view.hpp>

NHA_NAMESPACE_BEGIN

/// Converts to its size. Loops over an Extent<64> have a constant trip count; Extent<Dynamic> holds
/// its size.
template <Index Size>
class Extent {
 public:
  NHA_INLINE constexpr Extent() noexcept = default;
  /// `size` must be Size: whoever takes sizes from a user has checked it.
  NHA_INLINE constexpr explicit Extent([[maybe_unused]] Index size) noexcept {}
  NHA_INLINE constexpr operator Index() const noexcept { return Size; }
};

template <>
class Extent<Dynamic> {
 public:
  NHA_INLINE constexpr Extent() noexcept = default;
  NHA_INLINE constexpr explicit Extent(Index size) noexcept : size_(size) {}
  NHA_INLINE constexpr operator Index() const noexcept { return size_; }

 private:
  Index size_ = 0;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

/// Larger sizes of a model, layer or memory are taken for mistakes. The product of any two, in
/// bytes, fits in an Index.
inline constexpr Index kLargestSize = Index{1} << 24;

/// @throws ArgumentError unless `size` lies in `least` to kLargestSize and is the static size,
///   where there is one.
inline void check_size(const char* name, Index size, Index least, Index static_size = Dynamic) {
  check_argument(size >= least && size <= kLargestSize, name, " is ", size, "; expected ", least,
                 " to ", kLargestSize);
  check_argument(static_size == Dynamic || static_size == size, name, " is ", size,
                 "; the type says ", static_size);
}

NHA_ISA_NAMESPACE_END
