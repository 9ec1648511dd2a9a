// SPDX-License-Identifier: MIT
// Rounding of running sums to a half type: up as often as down, by a dither that repeats.
//
// A running sum that is rounded to the nearest stored number stands still once its steps are below
// half a unit in the last place. With bfloat16 and gates that keep 0.9999 of a slot, a slot stops
// far from the mean it should reach. So the part that is cut off, as a fraction of a unit, decides:
// a sum is rounded up where this part is at least 1 minus the dither. The dither is a number in
// [0, 1) that depends on the token's position and the sum's place alone: computing again gives the
// same bits. Along the positions it is the sequence of the golden ratio, which fills the interval
// more evenly than random numbers do. Rounding errors then average out rather than walk off.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/host_device.hpp>
#include <nha/core/index.hpp>

#include <cstdint>
#include <type_traits>

NHA_NAMESPACE_BEGIN

// Steps of the dither in units of 2^-32. Along the positions: the golden ratio. Along rows and
// columns: two powers of the root of x^4 = x + 1, so that neighbours are rounded unlike.
inline constexpr std::uint32_t kDitherPosition = 0x9e3779b9u;
inline constexpr std::uint32_t kDitherRow = 0xd1b54a33u;
inline constexpr std::uint32_t kDitherColumn = 0xabc98389u;
/// Columns so far apart share a dither, so that a kernel keeps few of them.
inline constexpr Index kDitherPeriod = 8;

/// The dither, in units of 2^-32, of the number at a row and column after the token at `position`.
NHA_HOST_DEVICE NHA_INLINE constexpr std::uint32_t dither(std::int64_t position, Index row,
                                                          Index column) noexcept {
  return static_cast<std::uint32_t>(position) * kDitherPosition +
         static_cast<std::uint32_t>(row) * kDitherRow +
         static_cast<std::uint32_t>(column % kDitherPeriod) * kDitherColumn;
}

/// The stored number next to `value` in magnitude, below or above as the dither says; `value`
/// itself where it can be stored. NaN stays NaN.
NHA_HOST_DEVICE NHA_INLINE constexpr bfloat16 round_dithered(float value, std::uint32_t dither,
                                                             bfloat16 /*type*/) noexcept {
  const auto word = bits_as<std::uint32_t>(value);
  const std::uint32_t moved = value != value ? word | 0x400000u : word + (dither >> 16);
  bfloat16 rounded;
  rounded.bits = static_cast<std::uint16_t>(moved >> 16);
  return rounded;
}
/// The same. Finite numbers beyond the largest of float16 become that one; an infinity may become
/// NaN. Most numbers below 2^-14 are rounded towards 0, by 6e-8 at most: float16 has fewer digits
/// there than are kept here.
NHA_HOST_DEVICE NHA_INLINE constexpr float16 round_dithered(float value, std::uint32_t dither,
                                                            float16 /*type*/) noexcept {
  const auto word = bits_as<std::uint32_t>(value);
  const std::uint32_t magnitude = word & 0x7fffffffu;
  const std::uint32_t moved = magnitude + (dither >> 19);  // of the 13 digits that are cut off
  std::uint32_t bits = 0;
  if (magnitude > 0x7f800000u || moved > 0x7f800000u)
    bits = 0x7e00u;
  else if (moved == 0x7f800000u)
    bits = 0x7c00u;
  else if (moved < 0x38800000u)
    bits = static_cast<std::uint32_t>(bits_as<float>(moved) * 0x1p24f);
  else
    bits = moved < 0x47800000u ? (moved - 0x38000000u) >> 13 : 0x7bffu;
  float16 rounded;
  rounded.bits = static_cast<std::uint16_t>(((word >> 16) & 0x8000u) | bits);
  return rounded;
}

/// A sum as it is stored in T: rounded by the dither where T is a half type, as it is elsewhere.
template <Scalar T>
NHA_HOST_DEVICE NHA_INLINE constexpr T stored_sum(accumulate_t<T> value,
                                                  std::uint32_t dither) noexcept {
  if constexpr (std::is_same_v<T, accumulate_t<T>>)
    return value;
  else
    return round_dithered(value, dither, T());
}

NHA_NAMESPACE_END
