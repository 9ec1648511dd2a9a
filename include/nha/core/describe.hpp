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

/// `text` on one line and of bearable length: control characters become '?', long text is cut.
inline std::string printable(std::string_view text) {
  constexpr std::size_t kLongest = 200;
  std::string out(text.substr(0, kLongest));
  for (char& c : out)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = '?';
  if (text.size() > kLongest) out += "...";
  return out;
}

/// "[2, 3]", or "[]" for a scalar.
inline std::string shape_text(std::span<const Index> shape) {
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
