// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/rows.hpp>

#include <gtest/gtest.h>

#include "support/backward_call.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::detail::Chunk;
using Rows = nha::detail::ChunkRows<BackwardCall<float>::Call>;

// The second of two packed sequences, which begins at row 3 of the tensors, in the second of two
// key/value heads with three query heads each; the chunk is its tokens 4 and 5.
struct PackedRows {
  BackwardCall<float> b{
      {.kv_heads = 2, .group = 3, .key_dim = 5, .lengths = {3, 9}}, {.window = 4}, 0, 2, 1, 1};
  Rows rows{b.call, Chunk{4, 2}};
  nha::Tensor<float, 4> gradient{{1, 12, 6, 5}};
};

TEST(ChunkRows, AreTheQueriesOfTheHeadsTokenByToken) {
  const PackedRows r;
  EXPECT_EQ(r.rows.rows(), 6);
  EXPECT_EQ(r.rows.token(2), 0);
  EXPECT_EQ(r.rows.token(3), 1);
  EXPECT_EQ(r.rows.position(3), 5);
  EXPECT_EQ(r.rows.query_head(0), 3);
  EXPECT_EQ(r.rows.query_head(5), 5);
  EXPECT_EQ(r.rows.query(r.b.inputs.q_window, 4), &r.b.inputs.q_window(0, 3 + 5, 4, 0));
}

TEST(ChunkRows, NumbersLeftOutAreZero) {
  const PackedRows r;
  nha::Tensor<float, 3> lse({1, 12, 6});
  lse(0, 3 + 5, 4) = 2.5f;
  EXPECT_EQ(r.rows.number(lse.view(), 4), 2.5f);
  EXPECT_EQ(r.rows.number(lse.view(), 3), 0.0f);
  EXPECT_EQ(r.rows.number(nha::AttentionCotangents<float>().lse, 4), 0.0f);
}

TEST(ChunkRows, StoreAndClearOneRow) {
  PackedRows r;
  for (float& x : r.gradient.values()) x = 9;
  auto expected = r.gradient;
  const float row[5] = {1, 2, 3, 4, 5};
  r.rows.store(r.gradient.view(), 5, 4, row, 4, 0.5f);
  for (Index d = 0; d < 4; ++d) expected(0, 3 + 5, 4, d) = 0.5f * row[d];
  EXPECT_EQ(relative_error(r.gradient, expected), 0);
  r.rows.clear(r.gradient.view(), 5, 4, 3);
  for (Index d = 0; d < 3; ++d) expected(0, 3 + 5, 4, d) = 0;
  EXPECT_EQ(relative_error(r.gradient, expected), 0);
}

TEST(ChunkRows, LeaveAloneWhatIsNotWanted) {
  const PackedRows r;
  const nha::AttentionGradients<float> none;
  const float row[5] = {};
  r.rows.store(none.q_slot, 5, 4, row, 5);
  r.rows.clear(none.q_slot, 5, 4, 5);
  EXPECT_EQ(none.q_slot.data(), nullptr);
}

}  // namespace
