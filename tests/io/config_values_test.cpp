// SPDX-License-Identifier: MIT
#include <nha/io/config_values.hpp>

#include <gtest/gtest.h>

#include <string>
#include <string_view>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::ConfigValues;
using nha::FormatError;

ConfigValues values(std::string_view text) {
  return ConfigValues(text, "a.json");
}
/// The values of an object with one key, "k".
ConfigValues one(const std::string& value) {
  return values("{\"k\": " + value + "}");
}

TEST(ConfigValues, GivesValuesByTypeOrWhatStandsInForThem) {
  const ConfigValues v = values(
      R"({"size": 7, "zero": 0, "real": -2.5, "whole": 3, "negative": -3, "on": true, "text": "a\u00e9"})");
  EXPECT_EQ(v.size("size", 1), 7);
  EXPECT_EQ(v.needed_size("size"), 7);
  EXPECT_EQ(v.size("zero", 1, 0), 0);
  EXPECT_EQ(v.size("other", 9), 9);
  EXPECT_EQ(v.number("real", 1.0), -2.5);
  EXPECT_EQ(v.number("whole", 1.0), 3.0);
  EXPECT_EQ(v.number("negative", 1.0), -3.0);
  EXPECT_EQ(v.number("other", 1.5), 1.5);
  EXPECT_TRUE(v.flag("on", false));
  EXPECT_TRUE(v.flag("other", true));
  EXPECT_EQ(v.text("text", ""), "a\xc3\xa9");
  EXPECT_EQ(v.text("other", "b"), "b");
  EXPECT_EQ(v.source(), "a.json");
}

TEST(ConfigValues, NullCountsAsLeftOut) {
  const ConfigValues v = one("null");
  EXPECT_FALSE(v.has("k"));
  EXPECT_EQ(v.size("k", 4), 4);
  EXPECT_EQ(v.text("k", "x"), "x");
  NHA_EXPECT_ERROR(v.needed_size("k"), FormatError, "a.json: the key k is missing");
}

TEST(ConfigValues, NestedValuesAreThereButHaveNoType) {
  const ConfigValues v = values(R"({"a": {"b": 1, "b": 2}, "l": [1, {"b": 3}], "c": 5})");
  EXPECT_TRUE(v.has("a"));
  EXPECT_TRUE(v.has("l"));
  EXPECT_FALSE(v.has("b"));
  EXPECT_EQ(v.needed_size("c"), 5);
  NHA_EXPECT_ERROR(v.text("a", ""), FormatError, "a.json: a is not a string");
  NHA_EXPECT_ERROR(v.size("l", 1), FormatError, "a.json: l is not an integer");
}

TEST(ConfigValues, ListsOfSizesAreReadWhole) {
  EXPECT_EQ(one("[3, 0, 16777216]").sizes("k"), (std::vector<nha::Index>{3, 0, 16777216}));
  EXPECT_TRUE(one("[]").sizes("k").empty());
  EXPECT_TRUE(one("null").sizes("k").empty());
  const ConfigValues two = values(R"({"a": [1, 2], "b": [[5], {"a": [6]}], "c": [3]})");
  EXPECT_EQ(two.sizes("a"), (std::vector<nha::Index>{1, 2}));
  EXPECT_EQ(two.sizes("c"), (std::vector<nha::Index>{3}));
  for (const char* other : {"7", "{}", R"({"a": 1})", "[1, -1]", "[1, 16777217]", "[1, 2.0]",
                            "[1, null]", "[true]", R"(["1"])", "[1, [2]]", "[[], 1]", "[1, {}]"}) {
    SCOPED_TRACE(other);
    NHA_EXPECT_ERROR(one(other).sizes("k"), FormatError,
                     "a.json: k is not an array of integers from 0 to 16777216");
  }
}

TEST(ConfigValues, ObjectsInAListStandBeforeTheOneAroundThem) {
  const ConfigValues v =
      values(R"({"l": [{"a": 1, "s": [4, 5]}, {}, {"a": null, "n": {"a": 9}}], "a": 2, "b": 3})");
  ASSERT_EQ(v.object_count("l"), 3u);
  const ConfigValues first(v, "l", 0), second(v, "l", 1), third(v, "l", 2);
  EXPECT_EQ(first.needed_size("a"), 1);
  EXPECT_EQ(first.needed_size("b"), 3);
  EXPECT_EQ(first.sizes("s"), (std::vector<nha::Index>{4, 5}));
  EXPECT_EQ(first.keys(), (std::vector<std::string>{"a", "s"}));
  EXPECT_EQ(second.needed_size("a"), 2);
  EXPECT_TRUE(second.keys().empty());
  EXPECT_FALSE(third.has("a"));
  EXPECT_TRUE(third.has("n"));
  EXPECT_EQ(v.needed_size("a"), 2);
  NHA_EXPECT_ERROR(third.needed_size("a"), FormatError, "a.json: l[2]: the key a is missing");
  NHA_EXPECT_ERROR(first.text("b", ""), FormatError, "a.json: l[0]: b is not a string");
  EXPECT_EQ(one("[]").object_count("k"), 0u);
  for (const char* other :
       {"7", "{}", "[1]", "[{}, 1]", "[1, {}]", "[[]]", "[{}, []]", "[{}, null]", R"(["a", {}])"}) {
    SCOPED_TRACE(other);
    NHA_EXPECT_ERROR(one(other).object_count("k"), FormatError,
                     "a.json: k is not an array of objects");
  }
  NHA_EXPECT_ERROR(values(R"({"l": [{"a": 1, "a": 2}]})"), FormatError, "has the key 'a' twice");
}

TEST(ConfigValues, WrongTypesAreNamed) {
  NHA_EXPECT_ERROR(one("\"7\"").size("k", 1), FormatError, "a.json: k is not an integer");
  NHA_EXPECT_ERROR(one("7.0").size("k", 1), FormatError, "k is not an integer");
  NHA_EXPECT_ERROR(one("true").number("k", 1), FormatError, "k is not a number");
  NHA_EXPECT_ERROR(one("1").flag("k", false), FormatError, "k is not true or false");
  NHA_EXPECT_ERROR(one("false").text("k", ""), FormatError, "k is not a string");
}

TEST(ConfigValues, SizesHaveARange) {
  EXPECT_EQ(one("16777216").size("k", 1), nha::kLargestSize);
  NHA_EXPECT_ERROR(one("16777217").size("k", 1), FormatError,
                   "a.json: k is 16777217; expected 1 to 16777216");
  NHA_EXPECT_ERROR(one("0").size("k", 1), FormatError, "k is 0; expected 1");
  NHA_EXPECT_ERROR(one("-5").size("k", 1, 0), FormatError, "k is -5; expected 0");
  NHA_EXPECT_ERROR(one("18446744073709551615").size("k", 1), FormatError,
                   "k is 18446744073709551615; expected 1");
  // Beyond every integer type it is a real number.
  NHA_EXPECT_ERROR(one("99999999999999999999").size("k", 1), FormatError, "k is not an integer");
}

TEST(ConfigValues, HugeNumbersAreRefused) {
  EXPECT_EQ(one("1e300").number("k", 0), 1e300);
  NHA_EXPECT_ERROR(one("1e999"), FormatError, "a.json is not valid JSON in UTF-8, at its byte");
  NHA_EXPECT_ERROR(one("-1e999"), FormatError, "a.json is not valid JSON");
  NHA_EXPECT_ERROR(one("NaN"), FormatError, "a.json is not valid JSON");
}

TEST(ConfigValues, OnlyAnObjectWillDo) {
  NHA_EXPECT_ERROR(values(""), FormatError, "a.json is not valid JSON in UTF-8, at its byte");
  NHA_EXPECT_ERROR(values("not JSON"), FormatError, "a.json is not valid JSON");
  NHA_EXPECT_ERROR(values("[1]"), FormatError, "a.json is an array; expected an object");
  NHA_EXPECT_ERROR(values("12"), FormatError, "a.json is a single value; expected an object");
  NHA_EXPECT_ERROR(values("{} {}"), FormatError, "a.json is not valid JSON");
  EXPECT_FALSE(values("{}").has("k"));
}

TEST(ConfigValues, TruncatedTextIsRefusedAtEveryByte) {
  const std::string text = R"({"a": [1, {"b": null}], "c": -1.5e2, "d": "\u00e9", "e": true})";
  EXPECT_EQ(values(text).number("c", 0), -150);
  for (std::size_t length = 0; length < text.size(); ++length)
    NHA_EXPECT_ERROR(values(text.substr(0, length)), FormatError, "a.json is not valid JSON");
}

TEST(ConfigValues, BadUtf8IsRefused) {
  NHA_EXPECT_ERROR(one("\"\xff\""), FormatError, "a.json is not valid JSON in UTF-8");
  NHA_EXPECT_ERROR(one("\"\xc3\""), FormatError, "a.json is not valid JSON in UTF-8");
  NHA_EXPECT_ERROR(values("{\"\xc0\x80\": 1}"), FormatError, "a.json is not valid JSON in UTF-8");
  NHA_EXPECT_ERROR(values(std::string_view("{\"k\": 1}\0 more", 14)), FormatError,
                   "a.json has a zero byte at 8");
}

TEST(ConfigValues, AKeyMayStandOnlyOnce) {
  NHA_EXPECT_ERROR(values(R"({"k": 1, "k": 1})"), FormatError, "a.json has the key 'k' twice");
  NHA_EXPECT_ERROR(values(R"({"k": null, "\u006b": 1})"), FormatError, "has the key 'k' twice");
  NHA_EXPECT_ERROR(values(R"({"a\nb": 1, "a\nb": 1})"), FormatError, "has the key 'a?b' twice");
}

TEST(ConfigValues, DeepNestingIsNoDanger) {
  constexpr std::size_t kDepth = 200000;
  const std::string open(kDepth, '['), close(kDepth, ']');
  EXPECT_TRUE(one(open + close).has("k"));
  NHA_EXPECT_ERROR(one(open), FormatError, "a.json is not valid JSON");
}

TEST(ConfigValues, TheNameOfTheSourceIsKeptToOneLine) {
  NHA_EXPECT_ERROR(ConfigValues("", "two\nlines"), FormatError, "two?lines is not valid JSON");
}

}  // namespace
