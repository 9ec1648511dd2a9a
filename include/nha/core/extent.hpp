// SPDX-License-Identifier: MIT
// Extent: a size that is a constant of the type where it is known when compiling, a number
// elsewhere.
#pragma once

#include <nha/config.hpp>
#include <nha/core/host_device.hpp>
#include <nha/core/index.hpp>

NHA_NAMESPACE_BEGIN

/// Converts to its size. Loops over an Extent<64> have a constant trip count; Extent<Dynamic> holds
/// its size.
template <Index Size>
class Extent {
 public:
  NHA_INLINE constexpr Extent() noexcept = default;
  /// `size` must be Size: the code that takes sizes from a user has checked it.
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit Extent([[maybe_unused]] Index size) noexcept {}
  NHA_HOST_DEVICE NHA_INLINE constexpr operator Index() const noexcept { return Size; }
};

template <>
class Extent<Dynamic> {
 public:
  NHA_INLINE constexpr Extent() noexcept = default;
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit Extent(Index size) noexcept : size_(size) {}
  NHA_HOST_DEVICE NHA_INLINE constexpr operator Index() const noexcept { return size_; }

 private:
  Index size_ = 0;
};

NHA_NAMESPACE_END
