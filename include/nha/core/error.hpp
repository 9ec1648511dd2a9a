// SPDX-License-Identifier: MIT
// The exceptions of the library and the checks that raise them.
//
// Two kinds of error reach a user: a wrong argument (ArgumentError) and a bad file or byte string
// (FormatError). Both are raised before anything is changed. Compiled with -fno-exceptions, the
// same message goes to stderr and the program aborts.
#pragma once

#include <nha/config.hpp>

#include <cstdio>
#include <cstdlib>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

NHA_NAMESPACE_BEGIN

/// An argument that does not fit: the message names it, its value and what was expected.
class ArgumentError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// A file or byte string that is not what it claims to be, or does not fit who loads it.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

template <class T>
concept Arithmetic = std::is_arithmetic_v<T>;

inline void append(std::string& out, std::string_view text) {
  out += text;
}
inline void append(std::string& out, const char* text) {
  out += text;
}
template <Arithmetic Number>
void append(std::string& out, Number value) {
  if constexpr (std::is_floating_point_v<Number>) {
    char buffer[40];
    std::snprintf(buffer, sizeof buffer, "%g", static_cast<double>(value));
    out += buffer;
  } else {
    out += std::to_string(value);
  }
}

/// Text and numbers joined into one message.
template <class... Parts>
std::string message(const Parts&... parts) {
  std::string out;
  (append(out, parts), ...);
  return out;
}

template <class Error>
[[noreturn]] NHA_NOINLINE inline void raise(const std::string& text) {
#if NHA_HAS_EXCEPTIONS
  throw Error(text);
#else
  std::fputs("nha: ", stderr);
  std::fputs(text.c_str(), stderr);
  std::fputc('\n', stderr);
  std::abort();
#endif
}

}  // namespace detail

/// Raises ArgumentError with the given parts as its message unless `ok`.
template <class... Parts>
constexpr void check_argument(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::raise<ArgumentError>(detail::message(parts...));
}

/// Raises FormatError with the given parts as its message unless `ok`.
template <class... Parts>
constexpr void check_format(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::raise<FormatError>(detail::message(parts...));
}

NHA_ISA_NAMESPACE_END
