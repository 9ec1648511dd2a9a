// SPDX-License-Identifier: MIT
#include <nha/io/safetensors_header.hpp>

#include <gtest/gtest.h>

#include <string>

#include "io/safetensors_bytes.hpp"
#include "support/expect_error.hpp"

namespace {

using nha_test::entry;

auto parse(const std::string& text) {
  return nha::detail::parse_safetensors_header(text, "file");
}

TEST(SafetensorsHeader, ReadsTensorsAndMetadata) {
  const auto header = parse("{\"__metadata__\":{\"format\":\"pt\",\"empty\":\"\"}," +
                            entry("b", "F32", "[2,3]", "[0,24]") + "," +
                            entry("a \\u00e9", "I64", "[]", "[24,32]") + "}  \n ");
  EXPECT_EQ(header.metadata, (nha::Metadata{{"format", "pt"}, {"empty", ""}}));
  ASSERT_EQ(header.tensors.size(), 2u);
  const auto& b = header.tensors.at("b");
  EXPECT_EQ(b.dtype, nha::StoredType::f32);
  EXPECT_EQ(b.shape, (std::vector<nha::Index>{2, 3}));
  EXPECT_EQ(b.begin, 0u);
  EXPECT_EQ(b.end, 24u);
  EXPECT_TRUE(header.tensors.at("a \xc3\xa9").shape.empty());
}

TEST(SafetensorsHeader, EmptyObjectHasNothing) {
  EXPECT_TRUE(parse("{}").tensors.empty());
  EXPECT_TRUE(parse("{\"__metadata__\":{}}").metadata.empty());
}

struct Hostile {
  const char* what;
  std::string text;
  const char* message;
};

class HostileHeader : public testing::TestWithParam<Hostile> {};

TEST_P(HostileHeader, IsRefusedWithOneLine) {
  NHA_EXPECT_ERROR(parse(GetParam().text), nha::FormatError, GetParam().message);
#if NHA_HAS_EXCEPTIONS
  try {
    parse(GetParam().text);
  } catch (const nha::FormatError& error) {
    const std::string message = error.what();
    EXPECT_EQ(message.rfind("file: ", 0), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    EXPECT_LT(message.size(), 1000u);
  }
#endif
}

const std::string kA = entry("a", "F32", "[1]", "[0,4]");

INSTANTIATE_TEST_SUITE_P(
    SafetensorsHeader, HostileHeader,
    testing::Values(
        Hostile{"Nothing", "", "does not begin with '{'"},
        Hostile{"Space", " {}", "does not begin with '{'"},
        Hostile{"ByteOrderMark", "\xef\xbb\xbf{}", "does not begin with '{'"},
        Hostile{"Array", "[]", "does not begin with '{'"},
        Hostile{"Unfinished", "{" + kA, "not valid JSON"},
        Hostile{"TextAfterEnd", "{" + kA + "} x", "not valid JSON"},
        Hostile{"TwoObjects", "{}{}", "not valid JSON"},
        Hostile{"TrailingComma", "{" + kA + ",}", "not valid JSON"},
        Hostile{"ZeroByte", "{" + kA + "}" + std::string(3, '\0'), "zero byte at 54"},
        Hostile{"ZeroByteThenMore", "{}" + std::string(1, '\0') + "{}", "zero byte at 2"},
        Hostile{"BadUtf8Name", "{" + entry("\xff\xfe", "F32", "[1]", "[0,4]") + "}",
                "not valid JSON in UTF-8"},
        Hostile{"OverlongUtf8", "{" + entry("\xc0\xaf", "F32", "[1]", "[0,4]") + "}",
                "not valid JSON in UTF-8"},
        Hostile{"LoneSurrogate", "{" + entry("\\ud800", "F32", "[1]", "[0,4]") + "}",
                "not valid JSON in UTF-8"},
        Hostile{"BadUtf8Metadata", "{\"__metadata__\":{\"a\":\"\x80\"}}",
                "not valid JSON in UTF-8"},
        Hostile{"TensorTwice", "{" + kA + "," + kA + "}", "'a' comes twice"},
        Hostile{"MetadataTwice", "{\"__metadata__\":{},\"__metadata__\":{}}",
                "'__metadata__' comes twice"},
        Hostile{"MetadataKeyTwice", "{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}",
                "metadata key 'k' comes twice"},
        Hostile{"FieldTwice", "{\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}}",
                "tensor 'a' has two keys dtype"},
        Hostile{"NoDtype", "{\"a\":{\"shape\":[],\"data_offsets\":[0,4]}}", "'a' has no dtype"},
        Hostile{"NoShape", "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}",
                "'a' has no shape"},
        Hostile{"NoOffsets", "{\"a\":{\"dtype\":\"F32\",\"shape\":[]}}", "'a' has no data_offsets"},
        Hostile{"UnknownField", "{\"a\":{\"color\":1}}", "unknown key 'color'"},
        Hostile{"UnknownDtype", "{" + entry("a", "F33", "[1]", "[0,4]") + "}",
                "unknown dtype 'F33'"},
        Hostile{"LowerCaseDtype", "{" + entry("a", "f32", "[1]", "[0,4]") + "}",
                "unknown dtype 'f32'"},
        Hostile{"DtypeNumber", "{\"a\":{\"dtype\":32}}",
                "dtype of tensor 'a' is a number; expected a string"},
        Hostile{"DtypeArray", "{\"a\":{\"dtype\":[\"F32\"]}}",
                "dtype of tensor 'a' is an array; expected a string"},
        Hostile{"ShapeString", "{" + entry("a", "F32", "\"1\"", "[0,4]") + "}",
                "shape of tensor 'a' is a string; expected an array of sizes"},
        Hostile{"ShapeNumber", "{" + entry("a", "F32", "4", "[0,4]") + "}",
                "shape of tensor 'a' is a number"},
        Hostile{"ShapeNull", "{" + entry("a", "F32", "null", "[0,4]") + "}",
                "shape of tensor 'a' is null"},
        Hostile{"ShapeNested", "{" + entry("a", "F32", "[[1]]", "[0,4]") + "}",
                "shape of tensor 'a' holds an array"},
        Hostile{"ShapeOfObjects", "{" + entry("a", "F32", "[{}]", "[0,4]") + "}",
                "shape of tensor 'a' holds an object"},
        Hostile{"NegativeExtent", "{" + entry("a", "F32", "[-1]", "[0,4]") + "}",
                "shape of tensor 'a' holds a negative number"},
        Hostile{"FractionalExtent", "{" + entry("a", "F32", "[1.5]", "[0,4]") + "}",
                "shape of tensor 'a' holds a number that is no size"},
        Hostile{"ExponentExtent", "{" + entry("a", "F32", "[1e0]", "[0,4]") + "}",
                "a number that is no size"},
        Hostile{"BooleanExtent", "{" + entry("a", "F32", "[true]", "[0,4]") + "}",
                "shape of tensor 'a' holds a boolean"},
        Hostile{"ExtentBeyondIndex",
                "{" + entry("a", "F32", "[9223372036854775808]", "[0,4]") + "}",
                "extent of 9223372036854775808"},
        Hostile{"ExtentBeyond64Bits",
                "{" + entry("a", "F32", "[18446744073709551616]", "[0,4]") + "}",
                "a number that is no size"},
        Hostile{"ExtentBeyondDouble", "{" + entry("a", "F32", "[1e999]", "[0,4]") + "}",
                "not valid JSON"},
        Hostile{"OneOffset", "{" + entry("a", "F32", "[1]", "[0]") + "}",
                "data_offsets of tensor 'a' has 1 numbers; expected 2"},
        Hostile{"ThreeOffsets", "{" + entry("a", "F32", "[1]", "[0,4,8]") + "}",
                "data_offsets of tensor 'a' holds a number; expected an array of two offsets"},
        Hostile{"NegativeOffset", "{" + entry("a", "F32", "[1]", "[-4,0]") + "}",
                "data_offsets of tensor 'a' holds a negative number"},
        Hostile{"TensorIsNumber", "{\"a\":1}", "'a' is a number; expected an object"},
        Hostile{"TensorIsArray", "{\"a\":[]}", "'a' is an array; expected an object"},
        Hostile{"MetadataIsString", "{\"__metadata__\":\"x\"}", "'__metadata__' is a string"},
        Hostile{"MetadataNumber", "{\"__metadata__\":{\"k\":1}}",
                "metadata 'k' is a number; expected a string"},
        Hostile{"MetadataNested", "{\"__metadata__\":{\"k\":{}}}",
                "metadata 'k' is an object; expected a string"},
        Hostile{"DeepArrays", "{\"a\":" + std::string(1000000, '['), "'a' is an array"},
        Hostile{"DeepObjects",
                [] {
                  std::string text;
                  for (int i = 0; i < 100000; ++i) text += "{\"a\":";
                  return text;
                }(),
                "unknown key 'a'"},
        Hostile{"LineBreaksInName", "{\"a\\nb\\u0000c\":1}", "'a?b?c' is a number"},
        Hostile{"LongName", "{\"" + std::string(100000, 'n') + "\":1}", "nnn...' is a number"}),
    [](const auto& instance) { return std::string(instance.param.what); });

}  // namespace
