// SPDX-License-Identifier: MIT
#include <nha/core/little_endian.hpp>

#include <gtest/gtest.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace {

TEST(LittleEndian, LeastSignificantByteComesFirst) {
  std::array<std::byte, 9> bytes{};
  nha::store_little<std::uint64_t>(0x0807060504030201u, bytes.data() + 1);
  for (std::size_t i = 0; i < 9; ++i) EXPECT_EQ(bytes[i], static_cast<std::byte>(i));
  EXPECT_EQ(nha::load_little<std::uint32_t>(bytes.data() + 1), 0x04030201u);
  EXPECT_EQ(nha::load_little<std::uint16_t>(bytes.data() + 3), 0x0403u);
}

TEST(LittleEndian, FloatsKeepTheirBits) {
  std::array<std::byte, 8> bytes{};
  nha::store_little(1.0f, bytes.data());
  EXPECT_EQ(nha::load_little<std::uint32_t>(bytes.data()), 0x3f800000u);
  nha::store_little(-0.1, bytes.data());
  EXPECT_EQ(nha::load_little<double>(bytes.data()), -0.1);
}

}  // namespace
