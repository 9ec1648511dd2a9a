// SPDX-License-Identifier: MIT
#include <nha/train/text_batches.hpp>

#include "support/expect_error.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <set>
#include <span>
#include <string>

namespace {

/// Bytes that say where they are: 0, 1, 2, ... 255.
std::array<std::byte, 256> counting_bytes() {
  std::array<std::byte, 256> bytes{};
  for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::byte>(i);
  return bytes;
}

}  // namespace

TEST(TextBatches, ArePiecesOfTheTextAndWhatFollowsEachByte) {
  const auto text = counting_bytes();
  const nha::TextBatches batches(text, 5, 9, 1);
  const nha::TextBatch batch = batches.at(3);
  ASSERT_EQ(batch.tokens.extents(), (std::array<nha::Index, 2>{5, 9}));
  ASSERT_EQ(batch.targets.extents(), batch.tokens.extents());
  std::set<int> begins;
  for (nha::Index b = 0; b < 5; ++b) {
    begins.insert(batch.tokens(b, 0));
    for (nha::Index t = 0; t < 9; ++t) {
      EXPECT_EQ(batch.tokens(b, t), batch.tokens(b, 0) + t);
      EXPECT_EQ(batch.targets(b, t), batch.tokens(b, t) + 1);
    }
  }
  EXPECT_GT(begins.size(), 1u);
}

TEST(TextBatches, BeginAnywhereThatFitsEquallyOften) {
  const std::string text = "abcdefgh";
  const nha::TextBatches batches(std::as_bytes(std::span(text)), 4, 5, 2);
  std::array<int, 3> count{};
  constexpr int kSteps = 1500;
  for (nha::Index step = 0; step < kSteps; ++step) {
    const nha::TextBatch batch = batches.at(step);
    for (nha::Index b = 0; b < 4; ++b) {
      const auto first = static_cast<std::size_t>(batch.tokens(b, 0) - 'a');
      ASSERT_LT(first, 3u);
      EXPECT_EQ(batch.targets(b, 4), batch.tokens(b, 0) + 5);
      ++count[first];
    }
  }
  for (const int n : count) EXPECT_NEAR(n, 4 * kSteps / 3, 5 * std::sqrt(4 * kSteps * 2.0 / 9));
}

TEST(TextBatches, DependOnTheSeedAndTheStepAlone) {
  const auto text = counting_bytes();
  const nha::TextBatches batches(text, 4, 16, 1), same(text, 4, 16, 1), other(text, 4, 16, 2);
  const auto begins = [](const nha::TextBatch& batch) {
    return std::array{batch.tokens(0, 0), batch.tokens(1, 0), batch.tokens(2, 0),
                      batch.tokens(3, 0)};
  };
  const auto first = begins(batches.at(5));
  (void)batches.at(6);
  EXPECT_EQ(begins(batches.at(5)), first);
  EXPECT_EQ(begins(same.at(5)), first);
  EXPECT_NE(begins(other.at(5)), first);
  EXPECT_NE(begins(batches.at(6)), first);
}

TEST(TextBatches, BytesAboveSevenBitsAreTokensTo255) {
  const std::array<std::byte, 2> text{std::byte{0xff}, std::byte{0x80}};
  const nha::TextBatch batch = nha::TextBatches(text, 1, 1, 0).at(0);
  EXPECT_EQ(batch.tokens(0, 0), 255);
  EXPECT_EQ(batch.targets(0, 0), 128);
}

TEST(TextBatches, RefuseATextThatIsTooShortAndSizesOutOfRange) {
  const auto text = counting_bytes();
  const auto make = [&](nha::Index batch, nha::Index length) {
    (void)nha::TextBatches(text, batch, length, 0);
  };
  make(1, 255);
  NHA_EXPECT_ERROR(make(1, 256), nha::ArgumentError,
                   "text has 256 bytes; expected more than the length of a piece, 256");
  NHA_EXPECT_ERROR(make(0, 4), nha::ArgumentError, "batch is 0");
  NHA_EXPECT_ERROR(make(1, 0), nha::ArgumentError, "length is 0");
  NHA_EXPECT_ERROR((void)nha::TextBatches(text, 1, 4, 0).at(-1), nha::ArgumentError,
                   "step is -1; expected 0 or more");
}
