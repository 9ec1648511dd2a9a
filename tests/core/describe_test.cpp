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

TEST(Describe, CharactersAreCutBetweenNeverInside) {
  const std::string euro = "\xe2\x82\xac", clef = "\xf0\x9d\x84\x9e";
  for (std::size_t before = 195; before <= 200; ++before) {
    const std::string start(before, 'x');
    EXPECT_EQ(nha::detail::printable(start + euro + "yyyyy"),
              start + (before <= 197 ? euro + std::string(197 - before, 'y') : "") + "...");
    EXPECT_EQ(nha::detail::printable(start + clef + "yyyyy"),
              start + (before <= 196 ? clef + std::string(196 - before, 'y') : "") + "...");
  }
  EXPECT_EQ(nha::detail::printable(std::string(197, 'x') + euro), std::string(197, 'x') + euro);
}

TEST(Describe, CharactersThatActOnTheTextBecomeQuestionMarks) {
  for (const char* bad :
       {"\xc2\x80", "\xc2\x85", "\xc2\x9b", "\xc2\x9f", "\xc2\xad", "\xd8\x9c", "\xe2\x80\x8b",
        "\xe2\x80\x8f", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xae", "\xe2\x81\xa6",
        "\xe2\x81\xa9", "\xef\xbb\xbf", "\xef\xbf\xb9", "\t", "\r"})
    EXPECT_EQ(nha::detail::printable(std::string("a") + bad + "b"), "a?b");
  for (const char* good : {"\xc2\xa0", "\xc3\xbf", "\xe2\x80\x90", "\xe2\x80\xaf", "\xe2\x82\xac",
                           "\xed\x9f\xbf", "\xee\x80\x80", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf"})
    EXPECT_EQ(nha::detail::printable(std::string("a") + good + "b"), std::string("a") + good + "b");
}

TEST(Describe, BytesThatAreNotUtf8BecomeQuestionMarks) {
  EXPECT_EQ(nha::detail::printable("a\x9b"
                                   "b\xff"
                                   "c\xc3"),
            "a?b?c?");                                            // stray, none, cut off
  EXPECT_EQ(nha::detail::printable("\xc0\xaf"), "??");            // '/' in two bytes
  EXPECT_EQ(nha::detail::printable("\xe0\x9f\xbf"), "???");       // too long
  EXPECT_EQ(nha::detail::printable("\xed\xa0\x80"), "???");       // a surrogate
  EXPECT_EQ(nha::detail::printable("\xf4\x90\x80\x80"), "????");  // beyond the last
  EXPECT_EQ(nha::detail::printable("\xe2\x82"
                                   "x"),
            "??x");
  EXPECT_EQ(nha::detail::printable(std::string("a\0b", 3)), "a?b");
}

TEST(Describe, Shapes) {
  EXPECT_EQ(nha::detail::shape_text({}), "[]");
  EXPECT_EQ(nha::detail::shape_text(std::array<Index, 3>{1, 0, 7}), "[1, 0, 7]");
  EXPECT_EQ(nha::detail::shape_text(std::vector<Index>(1000, 1)), "[1, 1, 1, 1, 1, 1, 1, 1, ...]");
}

}  // namespace
