// SPDX-License-Identifier: MIT
#include <nha/core/names.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <string_view>

namespace {

using nha::EmptySlots;

TEST(Names, OfEmptySlotsGoBothWays) {
  for (const auto& [name, value] : nha::kEmptySlotsNames) {
    EXPECT_EQ(nha::find_name(nha::kEmptySlotsNames, value), name);
    EXPECT_EQ(nha::find_value(nha::kEmptySlotsNames, name), value);
  }
  EXPECT_EQ(nha::find_value(nha::kEmptySlotsNames, "masked"), EmptySlots::masked);
  EXPECT_FALSE(nha::find_value(nha::kEmptySlotsNames, "Masked").has_value());
  EXPECT_FALSE(nha::find_value(nha::kEmptySlotsNames, "").has_value());
  EXPECT_FALSE(nha::find_name(nha::kEmptySlotsNames, static_cast<EmptySlots>(7)).has_value());
  EXPECT_EQ(nha::name_list(nha::kEmptySlotsNames), "participate, masked or mass_corrected");
}

TEST(Names, PlacesOfEmptySlotsAreTheirCodes) {
  // What saved states hold: never to change.
  EXPECT_EQ(nha::kEmptySlotsNames[0].name, "participate");
  EXPECT_EQ(nha::kEmptySlotsNames[1].name, "masked");
  EXPECT_EQ(nha::kEmptySlotsNames[2].name, "mass_corrected");
  for (int code = 0; code < 3; ++code)
    EXPECT_EQ(static_cast<int>(nha::kEmptySlotsNames[code].value), code);
}

TEST(Names, OfNumberTypesAreThoseOfCheckpoints) {
  EXPECT_EQ(std::string(nha::dtype_name<float>()), "F32");
  EXPECT_EQ(std::string(nha::dtype_name<double>()), "F64");
  EXPECT_EQ(std::string(nha::dtype_name<nha::bfloat16>()), "BF16");
  EXPECT_EQ(std::string(nha::dtype_name<nha::float16>()), "F16");
  EXPECT_EQ(nha::dtype_code<float>(), 0u);
  EXPECT_EQ(nha::dtype_code<double>(), 1u);
  EXPECT_EQ(nha::dtype_code<nha::bfloat16>(), 2u);
  EXPECT_EQ(nha::dtype_code<nha::float16>(), 3u);
}

TEST(Names, ANumberTypeIsFoundByItsName) {
  for (std::uint32_t code = 0; code < 4; ++code) {
    std::uint32_t found = 99;
    const bool known = nha::with_dtype(
        nha::kDtypeNames[code], [&](auto number) { found = nha::dtype_code<decltype(number)>(); });
    EXPECT_TRUE(known);
    EXPECT_EQ(found, code);
  }
  EXPECT_FALSE(nha::with_dtype("F8", [](auto) { FAIL(); }));
}

}  // namespace
