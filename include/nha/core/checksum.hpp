// SPDX-License-Identifier: MIT
// A checksum that finds damage to stored bytes. It is no defence against someone who means harm.
#pragma once

#include <nha/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

NHA_ISA_NAMESPACE_BEGIN

/// FNV-1a of no bytes.
inline constexpr std::uint64_t kFnv1aStart = 0xcbf29ce484222325u;

/// FNV-1a, 64 bits. Every step is invertible, so two strings that differ in one byte differ in it.
/// @param hash of the bytes before these, for bytes that come in pieces
inline std::uint64_t fnv1a(std::span<const std::byte> bytes,
                           std::uint64_t hash = kFnv1aStart) noexcept {
  for (std::byte byte : bytes)
    hash = (hash ^ std::to_integer<std::uint64_t>(byte)) * 0x100000001b3u;
  return hash;
}

NHA_ISA_NAMESPACE_END
