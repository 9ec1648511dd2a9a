// SPDX-License-Identifier: MIT
// The exceptions of the library and the checks that raise them.
//
// Two kinds of error reach a user: a wrong argument (ArgumentError) and a bad file or byte string
// (FormatError). Both are raised before anything is changed. Compiled with -fno-exceptions, the
// same message goes to stderr and the program aborts.
#pragma once

#include <nha/config.hpp>

#include <concepts>
#include <cstddef>
#include <cstdint>
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

/// A file or byte string that is not what it claims to be, or is not of the model that loads it.
class FormatError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

NHA_NAMESPACE_END

NHA_ISA_NAMESPACE_BEGIN

namespace detail {

/// A piece of a message: text or a number. Which is known at run time, so that all messages are put
/// together by one function.
class MessagePart {
 public:
  constexpr MessagePart(std::string_view text) noexcept : kind_(Kind::text), text_(text) {}
  constexpr MessagePart(const char* text) noexcept : MessagePart(std::string_view(text)) {}
  MessagePart(const std::string& text) noexcept : MessagePart(std::string_view(text)) {}
  template <std::floating_point Number>
  constexpr MessagePart(Number value) noexcept
      : kind_(Kind::real), real_(static_cast<double>(value)) {}
  template <std::signed_integral Number>
  constexpr MessagePart(Number value) noexcept : kind_(Kind::whole), whole_(value) {}
  template <std::unsigned_integral Number>
  constexpr MessagePart(Number value) noexcept : kind_(Kind::natural), natural_(value) {}

  NHA_COLD void append_to(std::string& out) const {
    char buffer[40];
    switch (kind_) {
      case Kind::text:
        out += text_;
        break;
      case Kind::whole:
        out += std::to_string(whole_);
        break;
      case Kind::natural:
        out += std::to_string(natural_);
        break;
      case Kind::real:
        std::snprintf(buffer, sizeof buffer, "%g", real_);
        out += buffer;
        break;
    }
  }

 private:
  enum class Kind : std::uint8_t { text, whole, natural, real };

  Kind kind_;
  std::string_view text_ = {};
  std::int64_t whole_ = 0;
  std::uint64_t natural_ = 0;
  double real_ = 0;
};

NHA_COLD inline std::string join(const MessagePart* parts, std::size_t count) {
  std::string out;
  for (std::size_t i = 0; i < count; ++i) parts[i].append_to(out);
  return out;
}
/// Text and numbers joined into one message.
template <class... Parts>
std::string message(const Parts&... parts) {
  const MessagePart list[] = {MessagePart(parts)...};
  return join(list, sizeof...(parts));
}

template <class Error>
[[noreturn]] NHA_COLD inline void raise(const std::string& text) {
#if NHA_HAS_EXCEPTIONS
  throw Error(text);
#else
  std::fputs("nha: ", stderr);
  std::fputs(text.c_str(), stderr);
  std::fputc('\n', stderr);
  std::abort();
#endif
}

template <class Error>
[[noreturn]] NHA_COLD inline void raise(const MessagePart* parts, std::size_t count) {
  raise<Error>(join(parts, count));
}
/// The same of text and numbers, wherever they are checked.
template <class Error, class... Parts>
[[noreturn]] NHA_COLD void fail(const Parts&... parts) {
  const MessagePart list[] = {MessagePart(parts)...};
  raise<Error>(list, sizeof...(parts));
}

}  // namespace detail

/// Raises ArgumentError with the given parts as its message unless `ok`.
template <class... Parts>
NHA_INLINE constexpr void check_argument(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::fail<ArgumentError>(parts...);
}

/// Raises FormatError with the given parts as its message unless `ok`.
template <class... Parts>
NHA_INLINE constexpr void check_format(bool ok, const Parts&... parts) {
  if (!ok) [[unlikely]]
    detail::fail<FormatError>(parts...);
}

NHA_ISA_NAMESPACE_END
