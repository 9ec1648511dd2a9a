// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/rows.hpp>

#include <gtest/gtest.h>

#include <cmath>

#include "support/backward_call.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::detail::Chunk;
using Rows = nha::detail::BackwardRows<BackwardCall<float>::Call>;

// The second of two packed sequences, which begins at row 3 of the tensors, in the second of two
// key/value heads with three query heads each; the chunk is its tokens 4 and 5.
struct PackedRows {
  explicit PackedRows(Index window = 4) : b(shape(), {.window = window}, 0, 2, 1, 1) {}
  static CaseShape shape() {
    return {.kv_heads = 2, .group = 3, .key_dim = 5, .value_dim = 18, .lengths = {3, 9}};
  }

  BackwardCall<float> b;
  Cotangents<float> given = random_cotangents<float>(b.c.shape);
  nha::detail::HeadCotangents<float> cotangents = b.head_part(given.views());
  Rows rows{b.call, cotangents, b.scratch.rows, Chunk{4, 2}};
};

TEST(BackwardRows, AreTheQueriesOfTheHeadsTokenByToken) {
  const PackedRows r;
  EXPECT_EQ(r.rows.count(), 6);
  EXPECT_EQ(r.rows.token(2), 0);
  EXPECT_EQ(r.rows.token(3), 1);
  EXPECT_EQ(r.rows.position(3), 5);
  EXPECT_EQ(r.rows.call_token(3), 5);
  EXPECT_EQ(r.rows.head(0), 0);
  EXPECT_EQ(r.rows.head(5), 2);
  EXPECT_EQ(r.b.call.q_window.row(r.rows.call_token(4), r.rows.head(4)),
            &r.b.inputs.q_window(0, 3 + 5, 4, 0));
  EXPECT_EQ(r.rows.scores(3), r.b.scratch.rows.scores + 3 * r.b.plan.chunks.row_stride());
  EXPECT_EQ(r.rows.d_scores(3), r.b.scratch.rows.d_scores + 3 * r.b.plan.chunks.row_stride());
}

TEST(BackwardRows, NumbersLeftOutAreZero) {
  const PackedRows r;
  EXPECT_EQ(r.rows.number(r.cotangents.lse, 4), r.given.lse(0, 3 + 5, 4));
  EXPECT_EQ(r.rows.number(r.cotangents.slot_share, 3), r.given.slot_share(0, 3 + 5, 3));
  const auto none = r.b.head_part(nha::AttentionCotangents<float>());
  EXPECT_EQ(r.rows.number(none.lse, 4), 0.0f);
}

TEST(BackwardRows, PackScaledQueriesAndTheirCotangents) {
  PackedRows r;
  r.rows.pack(Chunk{6, 2}, true);
  EXPECT_EQ(r.rows.count(), 6);
  EXPECT_TRUE(r.rows.finite);
  const float scale = r.b.call.softmax_scale;
  for (Index row = 0; row < 6; ++row) {
    const Index t = 3 + 6 + row / 3, h = 3 + row % 3;
    const auto expect_row = [&](const float* packed, const float* from, float factor, Index count) {
      for (Index d = 0; d < nha::padded(count); ++d)
        ASSERT_EQ(packed[d], d < count ? factor * from[d] : 0.0f) << "row " << row;
    };
    expect_row(r.b.scratch.rows.q_slot + row * 16, &r.b.c.q_slot(0, t, h, 0), scale, 5);
    expect_row(r.b.scratch.rows.q_window + row * 16, &r.b.c.q_window(0, t, h, 0), scale, 5);
    expect_row(r.b.scratch.rows.d_output + row * 32, &r.given.o(0, t, h, 0), 1, 18);
  }
}

TEST(BackwardRows, AreFiniteIfAllThatWasPackedIs) {
  const auto is_finite_with = [](auto&& spoil, Index window, bool with_slots) {
    PackedRows r(window);
    spoil(r);
    r.rows.pack(Chunk{4, 2}, with_slots);
    return r.rows.finite;
  };
  const auto nothing = [](PackedRows&) {};
  const auto q_window = [](PackedRows& r) { r.b.c.q_window(0, 3 + 5, 5, 4) = INFINITY; };
  const auto q_slot = [](PackedRows& r) { r.b.c.q_slot(0, 3 + 4, 3, 0) = NAN; };
  const auto d_output = [](PackedRows& r) { r.given.o(0, 3 + 4, 4, 17) = -INFINITY; };
  const auto elsewhere = [](PackedRows& r) {
    r.b.c.q_window(0, 3 + 5, 2, 0) = NAN;  // another key/value head
    r.b.c.q_slot(0, 3 + 6, 5, 0) = NAN;    // another chunk
    r.given.o(0, 2, 5, 0) = NAN;           // another sequence
  };
  EXPECT_TRUE(is_finite_with(nothing, 4, true));
  EXPECT_FALSE(is_finite_with(q_window, 4, true));
  EXPECT_TRUE(is_finite_with(q_window, 0, true));
  EXPECT_FALSE(is_finite_with(q_slot, 4, true));
  EXPECT_TRUE(is_finite_with(q_slot, 4, false));
  EXPECT_FALSE(is_finite_with(d_output, 4, false));
  EXPECT_TRUE(is_finite_with(elsewhere, 4, true));
}

}  // namespace
