// SPDX-License-Identifier: MIT
#include <nha/core/describe.hpp>

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

namespace {

using nha::Index;

TEST(Describe, TextStaysOnOneLine) {
  EXPECT_EQ(nha::detail::printable("a\nb\x1b[0m\x7f"), "a?b?[0m?");
  EXPECT_EQ(nha::detail::printable("gr\xc3\xb6\xc3\x9f"
                                   "e"),
            "gr\xc3\xb6\xc3\x9f"
            "e");
}

TEST(Describe, LongTextIsCut) {
  EXPECT_EQ(nha::detail::printable(std::string(200, 'x')), std::string(200, 'x'));
  EXPECT_EQ(nha::detail::printable(std::string(100000, 'x')), std::string(200, 'x') + "...");
}

TEST(Describe, Shapes) {
  EXPECT_EQ(nha::detail::shape_text({}), "[]");
  EXPECT_EQ(nha::detail::shape_text(std::array<Index, 3>{1, 0, 7}), "[1, 0, 7]");
  EXPECT_EQ(nha::detail::shape_text(std::vector<Index>(1000, 1)), "[1, 1, 1, 1, 1, 1, 1, 1, ...]");
}

}  // namespace
