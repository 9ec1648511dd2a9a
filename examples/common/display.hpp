// SPDX-License-Identifier: MIT
// Numbers and bytes as a reader wants to see them.
#pragma once

#include <nha/core/index.hpp>

#include <cmath>
#include <cstddef>
#include <cstdio>
#include <filesystem>
#include <string>

namespace examples_common {

/// 1234567 as "1,234,567".
inline std::string grouped(nha::Index number) {
  const std::string digits = std::to_string(number);
  std::string text;
  for (std::size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) text += ',';
    text += digits[i];
  }
  return text;
}

/// A number of bytes in the unit that suits it: "912 B", "64.5 KiB".
inline std::string memory_size(nha::Index bytes) {
  if (bytes < 1024) return std::to_string(bytes) + " B";
  double amount = static_cast<double>(bytes) / 1024;
  const char* unit = "KiB";
  for (const char* larger : {"MiB", "GiB", "TiB"}) {
    if (amount < 1024) break;
    amount /= 1024;
    unit = larger;
  }
  char text[32];
  std::snprintf(text, sizeof text, "%.1f %s", amount, unit);
  return text;
}

/// "12,345 tokens/s"
inline std::string speed(nha::Index tokens, double seconds) {
  if (tokens == 0 || seconds <= 0) return "-";
  return grouped(std::llround(static_cast<double>(tokens) / seconds)) + " tokens/s";
}

/// "2:05" or "1:02:05".
inline std::string duration(double seconds) {
  const auto whole = std::llround(seconds);
  char text[64];
  if (whole < 3600)
    std::snprintf(text, sizeof text, "%lld:%02lld", whole / 60, whole % 60);
  else
    std::snprintf(text, sizeof text, "%lld:%02lld:%02lld", whole / 3600, whole / 60 % 60,
                  whole % 60);
  return text;
}

/// The last part of a path.
inline std::string file_name(const std::string& path) {
  return std::filesystem::path(path).filename().string();
}

inline bool is_printable(char c) {
  return c >= 0x20 && c < 0x7f;
}

/// A byte that may go to any terminal: what is neither ASCII text nor a line end becomes \x1B.
inline std::string shown(char c) {
  if (is_printable(c) || c == '\n') return std::string(1, c);
  char text[8];
  std::snprintf(text, sizeof text, "\\x%02X", static_cast<unsigned>(static_cast<unsigned char>(c)));
  return text;
}

}  // namespace examples_common
