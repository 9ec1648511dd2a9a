// SPDX-License-Identifier: MIT
#include <nha/io/stored_type.hpp>

#include <gtest/gtest.h>

#include <cstdint>

namespace {

using nha::StoredType;

TEST(StoredType, NamesAndSizesAreThoseOfTheFormat) {
  EXPECT_EQ(nha::stored_name(StoredType::f64), "F64");
  EXPECT_EQ(nha::stored_name(StoredType::bf16), "BF16");
  EXPECT_EQ(nha::stored_name(StoredType::u16), "U16");
  EXPECT_EQ(nha::stored_name(StoredType::boolean), "BOOL");
  EXPECT_EQ(nha::stored_name(StoredType::f8_e5m2), "F8_E5M2");
  EXPECT_EQ(nha::stored_name(StoredType::c64), "C64");
  EXPECT_EQ(nha::stored_bytes(StoredType::f64), 8u);
  EXPECT_EQ(nha::stored_bytes(StoredType::f16), 2u);
  EXPECT_EQ(nha::stored_bytes(StoredType::f8_e4m3), 1u);
  EXPECT_EQ(nha::stored_bytes(StoredType::c64), 8u);
}

TEST(StoredType, IsFoundByItsNameAlone) {
  for (int i = 0; i <= static_cast<int>(StoredType::c64); ++i)
    EXPECT_EQ(nha::find_stored_type(nha::stored_name(static_cast<StoredType>(i))),
              static_cast<StoredType>(i));
  EXPECT_FALSE(nha::find_stored_type("f32"));
  EXPECT_FALSE(nha::find_stored_type("F32 "));
  EXPECT_FALSE(nha::find_stored_type(""));
}

TEST(StoredType, OfCppTypes) {
  static_assert(nha::stored_type_of<float>() == StoredType::f32);
  static_assert(nha::stored_type_of<double>() == StoredType::f64);
  static_assert(nha::stored_type_of<nha::bfloat16>() == StoredType::bf16);
  static_assert(nha::stored_type_of<nha::float16>() == StoredType::f16);
  static_assert(nha::stored_type_of<std::int64_t>() == StoredType::i64);
  static_assert(nha::stored_type_of<long long>() == StoredType::i64);
  static_assert(nha::stored_type_of<std::uint32_t>() == StoredType::u32);
  static_assert(nha::stored_type_of<std::uint16_t>() == StoredType::u16);
  static_assert(nha::stored_type_of<std::int8_t>() == StoredType::i8);
  static_assert(nha::stored_type_of<bool>() == StoredType::boolean);
}

}  // namespace
