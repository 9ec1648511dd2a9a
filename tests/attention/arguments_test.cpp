// SPDX-License-Identifier: MIT
#include <nha/attention/arguments.hpp>

#include <gtest/gtest.h>

#include "support/expect_error.hpp"
#include "support/random_case.hpp"

namespace {

using nha_test::CaseOutputs;
using nha_test::RandomCase;

TEST(Arguments, TokensAreAPieceOfEveryTensorThatIsThere) {
  const RandomCase<float> c({.batch = 2, .tokens = 10});
  const auto piece = c.inputs().tokens(3, 4);
  EXPECT_EQ(piece.v.extent(1), 4);
  EXPECT_EQ(&piece.v(1, 0, 0, 0), &c.v(1, 3, 0, 0));
  EXPECT_EQ(&piece.log_gate(0, 3, 0, 2), &c.log_gate(0, 6, 0, 2));
  EXPECT_EQ(piece.write.data(), nullptr);
  CaseOutputs<float> out(c.shape);
  const nha::AttentionOutputs<float> views{.o = out.o, .lse = out.lse};
  EXPECT_EQ(&views.tokens(9, 1).lse(1, 0, 0), &out.lse(1, 9, 0));
  EXPECT_EQ(views.tokens(9, 1).slot_share.data(), nullptr);
  NHA_EXPECT_ERROR((void)c.inputs().tokens(7, 4), nha::ArgumentError, "slice of 4 from 7");
  NHA_EXPECT_ERROR((void)views.tokens(-1, 4), nha::ArgumentError, "slice of 4 from -1");
}

TEST(Arguments, APieceOfPackedSequencesHasNoOffsets) {
  const RandomCase<float> c({.lengths = {3, 4}});
  EXPECT_FALSE(c.inputs().cu_seqlens.empty());
  EXPECT_TRUE(c.inputs().tokens(0, 3).cu_seqlens.empty());
}

}  // namespace
