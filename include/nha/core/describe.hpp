// SPDX-License-Identifier: MIT
// Names and shapes from files, made fit for a one-line message.
#pragma once

#include <nha/config.hpp>
#include <nha/core/index.hpp>

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// The character that UTF-8 text begins with: its code point, and how many bytes it has. 0 bytes
/// where the text begins with none.
struct Utf8Character {
  char32_t code;
  std::size_t bytes;
};
inline Utf8Character first_character(std::string_view text) noexcept {
  const auto byte = [&](std::size_t i) {
    return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u;
  };
  const unsigned lead = byte(0);
  const std::size_t bytes = lead < 0x80   ? 1
                            : lead < 0xc2 ? 0
                            : lead < 0xe0 ? 2
                            : lead < 0xf0 ? 3
                                          : 4;
  if (bytes == 0 || lead > 0xf4 || bytes > text.size()) return {0, 0};
  char32_t code = bytes == 1 ? lead : lead & (0x7fu >> bytes);
  for (std::size_t i = 1; i < bytes; ++i) {
    if ((byte(i) & 0xc0u) != 0x80u) return {0, 0};
    code = (code << 6) | (byte(i) & 0x3fu);
  }
  constexpr char32_t kLeast[] = {0, 0, 0x80, 0x800, 0x10000};  // shorter ones have fewer bytes
  const bool surrogate = code >= 0xd800 && code <= 0xdfff;
  if (code < kLeast[bytes] || surrogate || code > 0x10ffff) return {0, 0};
  return {code, bytes};
}

/// Whether a character could end a line, drive a terminal, or hide or reorder the text around it.
constexpr bool unfit_for_message(char32_t code) noexcept {
  return code < 0x20 || (code >= 0x7f && code <= 0x9f) || code == 0xad || code == 0x61c ||
         (code >= 0x200b && code <= 0x200f) || (code >= 0x2028 && code <= 0x202e) ||
         (code >= 0x2060 && code <= 0x206f) || code == 0xfeff || (code >= 0xfff9 && code <= 0xfffb);
}

/// `text` on one line and of bearable length. What is unfit, and every byte that is not UTF-8,
/// becomes '?'; a text of more than 200 bytes is cut after a whole character.
NHA_COLD inline std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::string out;
  while (!text.empty()) {
    const Utf8Character character = first_character(text);
    const std::size_t bytes = character.bytes == 0 ? 1 : character.bytes;
    const bool fit = character.bytes > 0 && !unfit_for_message(character.code);
    if (out.size() + (fit ? bytes : 1) > kLongest) return out + "...";
    if (fit)
      out += text.substr(0, bytes);
    else
      out += '?';
    text.remove_prefix(bytes);
  }
  return out;
}

/// "[2, 3]", or "[]" for a scalar.
NHA_COLD inline std::string shape_text(std::span<const Index> shape) {
  std::string out = "[";
  for (std::size_t i = 0; i < shape.size(); ++i) {
    if (i == 8) return out + ", ...]";
    if (i > 0) out += ", ";
    out += std::to_string(shape[i]);
  }
  return out + "]";
}

}  // namespace detail

NHA_ISA_NAMESPACE_END
