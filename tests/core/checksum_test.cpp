// SPDX-License-Identifier: MIT
#include <nha/core/checksum.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <span>
#include <string>

namespace {

std::span<const std::byte> checksum_bytes(const std::string& text) {
  return std::as_bytes(std::span<const char>(text));
}

// Values published with the algorithm.
TEST(Checksum, GivesThePublishedValues) {
  EXPECT_EQ(nha::fnv1a({}), nha::kFnv1aStart);
  EXPECT_EQ(nha::fnv1a(checksum_bytes("a")), 0xaf63dc4c8601ec8cu);
  EXPECT_EQ(nha::fnv1a(checksum_bytes("foobar")), 0x85944171f73967e8u);
}

TEST(Checksum, PiecesGiveWhatTheWholeDoes) {
  EXPECT_EQ(nha::fnv1a(checksum_bytes("bar"), nha::fnv1a(checksum_bytes("foo"))),
            nha::fnv1a(checksum_bytes("foobar")));
}

}  // namespace
