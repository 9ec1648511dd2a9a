// SPDX-License-Identifier: MIT
#include <nha/core/error.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>
#include <string_view>
#include <type_traits>

#include "support/expect_error.hpp"

namespace {

static_assert(std::is_base_of_v<std::invalid_argument, nha::ArgumentError>);
static_assert(std::is_base_of_v<std::runtime_error, nha::FormatError>);

TEST(Error, ChecksThatHoldDoNothing) {
  nha::check_argument(true, "never");
  nha::check_format(true, "never");
}

TEST(Error, MessageJoinsTextAndNumbers) {
  NHA_EXPECT_ERROR(nha::check_argument(false, "window is ", -3, "; expected ", std::size_t{7}, " ",
                                       std::string("or more")),
                   nha::ArgumentError, "window is -3; expected 7 or more");
  NHA_EXPECT_ERROR(nha::check_format(false, "offset ", std::uint64_t{18446744073709551615u}),
                   nha::FormatError, "offset 18446744073709551615");
}

TEST(Error, MessageShowsFloatingPointValues) {
  NHA_EXPECT_ERROR(nha::check_argument(false, "scale is ", -0.125), nha::ArgumentError,
                   "scale is -0.125");
  NHA_EXPECT_ERROR(nha::check_argument(false, "gate is ", 1e-7f), nha::ArgumentError,
                   "gate is 1e-07");
}

template <class Number>
std::string shown(Number number) {
  return nha::detail::message(number);
}

TEST(Error, MessageShowsEveryIntegerInFull) {
  EXPECT_EQ(shown(std::numeric_limits<std::int64_t>::min()), "-9223372036854775808");
  EXPECT_EQ(shown(std::numeric_limits<std::int64_t>::max()), "9223372036854775807");
  EXPECT_EQ(shown(std::numeric_limits<std::uint64_t>::max()), "18446744073709551615");
  EXPECT_EQ(shown(short{-7}), "-7");
  EXPECT_EQ(shown(std::uint8_t{65}), "65");
  EXPECT_EQ(shown(-1L), "-1");
  EXPECT_EQ(shown(7ULL), "7");
}

TEST(Error, MessageShowsNumbersThatAreNone) {
  EXPECT_EQ(shown(std::numeric_limits<double>::infinity()), "inf");
  EXPECT_EQ(shown(-std::numeric_limits<float>::infinity()), "-inf");
  EXPECT_EQ(shown(std::abs(std::numeric_limits<float>::quiet_NaN())), "nan");
}

TEST(Error, MessageTakesTextOfEveryKind) {
  const char* pointer = "a";
  const std::string owned = "b";
  const std::string_view part = std::string_view("cd").substr(0, 1);
  EXPECT_EQ(nha::detail::message(pointer, owned, part, "d", std::string(), std::string(100, 'e')),
            "abcd" + std::string(100, 'e'));
  EXPECT_EQ(nha::detail::message(std::string_view("in\0side", 7)), std::string("in\0side", 7));
}

// Checks that hold cost nothing to say: a message is put together for a failure only.
TEST(Error, ChecksHoldInConstantExpressions) {
  constexpr auto checked = [](int size) {
    nha::check_argument(size > 0, "size is ", size, "; expected ", 1.0, " or more");
    nha::check_format(size > 0, "size is ", std::uint64_t{7});
    return size;
  };
  static_assert(checked(3) == 3);
}

#if NHA_HAS_EXCEPTIONS
TEST(Error, ArgumentsAndFormatsAreDifferentErrors) {
  EXPECT_THROW(nha::check_argument(false, "x"), std::invalid_argument);
  EXPECT_THROW(nha::check_format(false, "x"), std::runtime_error);
}
#endif

}  // namespace
