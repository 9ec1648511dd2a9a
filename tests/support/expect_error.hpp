// SPDX-License-Identifier: MIT
// NHA_EXPECT_ERROR: that a statement fails with an exception and a message, or, where the library
// is built without exceptions, that it aborts with that message.
#pragma once

#include <nha/config.hpp>

#include <gtest/gtest.h>

#include <string>

#if NHA_HAS_EXCEPTIONS
#define NHA_EXPECT_ERROR(statement, ErrorType, substring)                         \
  do {                                                                            \
    bool nha_failed = false;                                                      \
    try {                                                                         \
      statement;                                                                  \
    } catch (const ErrorType& nha_error) {                                        \
      nha_failed = true;                                                          \
      EXPECT_NE(std::string(nha_error.what()).find(substring), std::string::npos) \
          << "the message is: " << nha_error.what();                              \
    }                                                                             \
    EXPECT_TRUE(nha_failed) << #statement " raised no " #ErrorType;               \
  } while (false)
#else
// The substring is matched literally: what a regular expression would interpret is escaped.
namespace nha_test {
inline std::string literal_pattern(const std::string& text) {
  std::string pattern;
  for (char c : text) {
    if (std::string("[](){}.*+?^$|\\").find(c) != std::string::npos) pattern += '\\';
    pattern += c;
  }
  return pattern;
}
}  // namespace nha_test
#define NHA_EXPECT_ERROR(statement, ErrorType, substring) \
  EXPECT_DEATH({ statement; }, nha_test::literal_pattern(substring))
#endif
