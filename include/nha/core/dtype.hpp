// SPDX-License-Identifier: MIT
// Number types: bfloat16 and half as storage, and the type sums are kept in.
//
// The half types hold bits and convert; arithmetic is done in float. Conversion to them rounds to
// nearest even, keeps infinities, and keeps NaN a NaN.
#pragma once

#include <nha/config.hpp>
#include <nha/core/host_device.hpp>

#include <concepts>
#include <cstdint>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// The upper half of a float: 8 bits of exponent, 7 of fraction.
struct bfloat16 {
  std::uint16_t bits = 0;

  bfloat16() = default;
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit bfloat16(float value) noexcept
      : bits(round(value)) {}
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit operator float() const noexcept {
    return bits_as<float>(static_cast<std::uint32_t>(bits) << 16);
  }
  NHA_HOST_DEVICE NHA_INLINE friend constexpr bool operator==(bfloat16, bfloat16) = default;

 private:
  NHA_HOST_DEVICE NHA_INLINE static constexpr std::uint16_t round(float value) noexcept {
    const auto word = bits_as<std::uint32_t>(value);
    if ((word & 0x7fffffffu) > 0x7f800000u)
      return static_cast<std::uint16_t>((word >> 16) | 0x40u);  // NaN, made quiet
    return static_cast<std::uint16_t>((word + 0x7fffu + ((word >> 16) & 1u)) >> 16);
  }
};

/// IEEE binary16: 5 bits of exponent, 10 of fraction; largest finite value 65504.
struct float16 {
  std::uint16_t bits = 0;

  float16() = default;
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit float16(float value) noexcept
      : bits(round(value)) {}
  NHA_HOST_DEVICE NHA_INLINE constexpr explicit operator float() const noexcept {
    const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
    const std::uint32_t exponent = (bits >> 10) & 31u;
    const std::uint32_t fraction = bits & 0x3ffu;
    if (exponent == 31u) return bits_as<float>(sign | 0x7f800000u | (fraction << 13));
    if (exponent == 0u) {
      const float magnitude = static_cast<float>(fraction) * 0x1p-24f;
      return sign != 0u ? -magnitude : magnitude;
    }
    return bits_as<float>(sign | ((exponent + 112u) << 23) | (fraction << 13));
  }
  NHA_HOST_DEVICE NHA_INLINE friend constexpr bool operator==(float16, float16) = default;

 private:
  NHA_HOST_DEVICE NHA_INLINE static constexpr std::uint16_t round(float value) noexcept {
    const auto word = bits_as<std::uint32_t>(value);
    const auto sign = static_cast<std::uint16_t>((word >> 16) & 0x8000u);
    const std::uint32_t magnitude = word & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return static_cast<std::uint16_t>(sign | 0x7e00u);
    if (magnitude >= 0x477ff000u) return static_cast<std::uint16_t>(sign | 0x7c00u);  // >= 65520
    if (magnitude < 0x38800000u) {  // below 2^-14: the addition rounds to a multiple of 2^-24
      const float shifted = bits_as<float>(magnitude) + 0.5f;
      return static_cast<std::uint16_t>(sign | (bits_as<std::uint32_t>(shifted) - 0x3f000000u));
    }
    const std::uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
  }
};

/// What a sum over values of type T is kept in: float for the half types, else T itself.
template <class T>
using accumulate_t =
    std::conditional_t<std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>, float, T>;

/// A type that tensors may hold.
template <class T>
concept Scalar = std::is_same_v<T, float> || std::is_same_v<T, double> ||
    std::is_same_v<T, bfloat16> || std::is_same_v<T, float16>;

NHA_NAMESPACE_END
