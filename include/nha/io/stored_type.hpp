// SPDX-License-Identifier: MIT
// StoredType: the number types that checkpoints name, whether the library computes with them or
// not.
#pragma once

#include <nha/config.hpp>
#include <nha/core/dtype.hpp>
#include <nha/core/names.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string_view>
#include <type_traits>

NHA_ISA_NAMESPACE_BEGIN

/// What the elements of a stored tensor are. The 8-bit floats and the complex type can be listed
/// and passed on as bytes, but not converted.
enum class StoredType {
  f64,
  f32,
  f16,
  bf16,
  i64,
  i32,
  i16,
  i8,
  u64,
  u32,
  u16,
  u8,
  boolean,
  f8_e4m3,
  f8_e5m2,
  c64,
};

namespace detail {

struct StoredTypeRow {
  std::string_view name;
  std::size_t bytes;
};
// In the order of StoredType.
inline constexpr std::array<StoredTypeRow, 16> kStoredTypes{{{"F64", 8},
                                                             {"F32", 4},
                                                             {"F16", 2},
                                                             {"BF16", 2},
                                                             {"I64", 8},
                                                             {"I32", 4},
                                                             {"I16", 2},
                                                             {"I8", 1},
                                                             {"U64", 8},
                                                             {"U32", 4},
                                                             {"U16", 2},
                                                             {"U8", 1},
                                                             {"BOOL", 1},
                                                             {"F8_E4M3", 1},
                                                             {"F8_E5M2", 1},
                                                             {"C64", 8}}};

}  // namespace detail

/// Name as checkpoints write it: "F32", "BF16", "I64", ...
constexpr std::string_view stored_name(StoredType type) noexcept {
  return detail::kStoredTypes[static_cast<std::size_t>(type)].name;
}

/// Bytes of one element.
constexpr std::size_t stored_bytes(StoredType type) noexcept {
  return detail::kStoredTypes[static_cast<std::size_t>(type)].bytes;
}

/// The type of that name, if there is one.
constexpr std::optional<StoredType> find_stored_type(std::string_view name) noexcept {
  for (std::size_t i = 0; i < detail::kStoredTypes.size(); ++i)
    if (detail::kStoredTypes[i].name == name) return static_cast<StoredType>(i);
  return std::nullopt;
}

/// The stored type whose elements are C++ type T in memory.
template <class T>
constexpr StoredType stored_type_of() noexcept {
  if constexpr (Scalar<T>) {
    return *find_stored_type(dtype_name<T>());
  } else {
    static_assert(std::is_integral_v<T> && sizeof(T) <= 8, "no stored type holds this type");
    if constexpr (std::is_same_v<T, bool>) return StoredType::boolean;
    constexpr bool sign = std::is_signed_v<T>;
    if constexpr (sizeof(T) == 8) return sign ? StoredType::i64 : StoredType::u64;
    if constexpr (sizeof(T) == 4) return sign ? StoredType::i32 : StoredType::u32;
    if constexpr (sizeof(T) == 2) return sign ? StoredType::i16 : StoredType::u16;
    return sign ? StoredType::i8 : StoredType::u8;
  }
}

NHA_ISA_NAMESPACE_END
