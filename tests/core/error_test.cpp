// SPDX-License-Identifier: MIT
#include <nha/core/error.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <stdexcept>
#include <string>
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

#if NHA_HAS_EXCEPTIONS
TEST(Error, ArgumentsAndFormatsAreDifferentErrors) {
  EXPECT_THROW(nha::check_argument(false, "x"), std::invalid_argument);
  EXPECT_THROW(nha::check_format(false, "x"), std::runtime_error);
}
#endif

}  // namespace
