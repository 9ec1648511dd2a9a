// SPDX-License-Identifier: MIT
// Numbers to and from little-endian bytes at any address, on hosts of either byte order.
#pragma once

#include <nha/config.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstring>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// Whether numbers in memory have the byte order that files have.
inline constexpr bool kLittleEndianHost = std::endian::native == std::endian::little;
static_assert(std::endian::native == std::endian::little || std::endian::native == std::endian::big,
              "hosts of mixed byte order are not supported");

/// The number whose sizeof(T) little-endian bytes begin at `from`; no alignment needed.
template <class T>
NHA_INLINE T load_little(const std::byte* from) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  std::array<std::byte, sizeof(T)> bytes;
  std::memcpy(bytes.data(), from, sizeof(T));
  if constexpr (!kLittleEndianHost) std::reverse(bytes.begin(), bytes.end());
  return std::bit_cast<T>(bytes);
}

/// Writes the sizeof(T) little-endian bytes of `value` to `to`; no alignment needed.
template <class T>
NHA_INLINE void store_little(T value, std::byte* to) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  auto bytes = std::bit_cast<std::array<std::byte, sizeof(T)>>(value);
  if constexpr (!kLittleEndianHost) std::reverse(bytes.begin(), bytes.end());
  std::memcpy(to, bytes.data(), sizeof(T));
}

NHA_ISA_NAMESPACE_END
