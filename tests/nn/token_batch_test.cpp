// SPDX-License-Identifier: MIT
#include <nha/nn/token_batch.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "support/expect_error.hpp"

namespace {

using nha::ArgumentError;
using nha::TokenBatch;

TEST(TokenBatch, SequencesOfABatchFollowEachOther) {
  const TokenBatch tokens{3, 5};
  EXPECT_EQ(tokens.rows(), 15);
  EXPECT_EQ(tokens.sequences(), 3);
  EXPECT_EQ(tokens.first_row(2), 10);
  EXPECT_EQ(tokens.count(2), 5);
  nha::validate(tokens, 3);
}

TEST(TokenBatch, PackedSequencesLieBetweenTheirOffsets) {
  const std::vector<std::int64_t> cu = {0, 4, 4, 9};
  const TokenBatch tokens{1, 9, cu};
  EXPECT_EQ(tokens.rows(), 9);
  EXPECT_EQ(tokens.sequences(), 3);
  EXPECT_EQ(tokens.first_row(2), 4);
  EXPECT_EQ(tokens.count(0), 4);
  EXPECT_EQ(tokens.count(1), 0);
  EXPECT_EQ(tokens.count(2), 5);
  EXPECT_EQ(tokens.longest(), 5);
  nha::validate(tokens, 3);
}

TEST(TokenBatch, NoTokensAndNoSequencesAreFine) {
  nha::validate(TokenBatch{2, 0}, 2);
  nha::validate(TokenBatch{0, 5}, 0);
  const std::vector<std::int64_t> none = {0};
  nha::validate(TokenBatch{1, 0, none}, 0);
}

TEST(TokenBatch, OffsetsThatDoNotFitAreRefused) {
  const auto refuses = [](const std::vector<std::int64_t>& cu, nha::Index batch,
                          const char* message) {
    NHA_EXPECT_ERROR(nha::validate(TokenBatch{batch, 9, cu}, 2), ArgumentError, message);
  };
  refuses({0, 4, 9}, 2, "with cu_seqlens the batch axis has extent 2; expected 1");
  refuses({1, 4, 9}, 1, "cu_seqlens goes from 1 to 9; expected 0 to 9");
  refuses({0, 4, 8}, 1, "cu_seqlens goes from 0 to 8; expected 0 to 9");
  refuses({0, 10, 9}, 1, "cu_seqlens falls from 10 to 9 at entry 2");
  refuses({0, 9}, 1, "the tokens are of 1 sequences; the state holds 2");
}

TEST(TokenBatch, TheStateSaysHowManySequences) {
  NHA_EXPECT_ERROR(nha::validate(TokenBatch{3, 9}, 2), ArgumentError,
                   "the tokens are of 3 sequences; the state holds 2");
}

}  // namespace
