// SPDX-License-Identifier: MIT
// Index: the integer of extents, strides and positions, and how rows are padded.
#pragma once

#include <nha/config.hpp>
#include <nha/core/host_device.hpp>

#include <cstddef>

NHA_NAMESPACE_BEGIN

/// Extents, strides, positions inside a tensor. Signed, so differences are safe.
using Index = std::ptrdiff_t;

/// An extent that is known only at run time.
inline constexpr Index Dynamic = -1;

/// Rows of the library's own memory are padded to a multiple of this many numbers, so that kernels
/// need no tails. A literal: layouts must not depend on compiler flags.
inline constexpr Index kRowPadding = 16;

/// `count` rounded up to a multiple of kRowPadding.
NHA_HOST_DEVICE NHA_INLINE constexpr Index padded(Index count) noexcept {
  return (count + kRowPadding - 1) / kRowPadding * kRowPadding;
}

/// Whether kernels may take `count` numbers as a row without a tail. They assert it, which costs
/// nothing where NDEBUG is defined.
NHA_HOST_DEVICE NHA_INLINE constexpr bool is_padded(Index count) noexcept {
  return count >= 0 && count % kRowPadding == 0;
}

NHA_NAMESPACE_END
