// SPDX-License-Identifier: MIT
#include <nha/attention/head_gradients.hpp>

#include <gtest/gtest.h>

#include "support/backward_call.hpp"
#include "support/random_gradients.hpp"

namespace {

using namespace nha_test;  // NOLINT
using OneHead = nha::detail::HeadGradients<float>;

// The second of two packed sequences, which begins at row 3 of the tensors, in the second of two
// key/value heads with three query heads each.
BackwardCall<float> second_head() {
  return {{.kv_heads = 2, .group = 3, .key_dim = 5, .lengths = {3, 9}}, {.window = 4}, 0, 2, 1, 1};
}

TEST(HeadGradients, StoreAndClearOneRow) {
  const auto b = second_head();
  Gradients<float> gradients = unwritten_gradients(b.c);
  for (float& x : gradients.q_window.values()) x = 9;
  const OneHead to = b.head_part(gradients.views<float>());
  auto expected = gradients.q_window;
  const float row[5] = {1, 2, 3, 4, 5};
  OneHead::store(to.q_window, 5, 1, row, 4, 0.5f);
  for (Index d = 0; d < 4; ++d) expected(0, 3 + 5, 4, d) = 0.5f * row[d];
  EXPECT_EQ(relative_error(gradients.q_window, expected), 0);
  OneHead::clear(to.q_window, 5, 1, 3);
  for (Index d = 0; d < 3; ++d) expected(0, 3 + 5, 4, d) = 0;
  EXPECT_EQ(relative_error(gradients.q_window, expected), 0);
}

TEST(HeadGradients, LeaveAloneWhatIsNotWanted) {
  const auto b = second_head();
  const OneHead none = b.head_part(nha::AttentionGradients<float>());
  const float row[5] = {};
  OneHead::store(none.q_slot, 5, 1, row, 5);
  OneHead::clear(none.q_slot, 5, 1, 5);
  EXPECT_FALSE(none.q_slot);
  EXPECT_FALSE(none.slots);
}

TEST(HeadGradients, FindTheHeadsRowsOfEveryTensor) {
  const auto b = second_head();
  Gradients<float> g = unwritten_gradients(b.c);
  const OneHead to = b.head_part(g.views<float>());
  EXPECT_EQ(to.q_window.row(2, 1), &g.q_window(0, 3 + 2, 3 + 1, 0));
  EXPECT_EQ(to.q_slot.row(2, 2), &g.q_slot(0, 3 + 2, 3 + 2, 0));
  EXPECT_EQ(to.k_window.row(8), &g.k_window(0, 3 + 8, 1, 0));
  EXPECT_EQ(to.k_slot.row(0), &g.k_slot(0, 3, 1, 0));
  EXPECT_EQ(to.v.row(1), &g.v(0, 3 + 1, 1, 0));
  EXPECT_EQ(to.log_gate.row(1), &g.log_gate(0, 3 + 1, 1, 0));
  EXPECT_FALSE(to.write);  // the case has no write strengths
  ASSERT_TRUE(to.slots);
  EXPECT_EQ(to.slots.key_row(3), &g.slot_k(1, 1, 3, 0));
  EXPECT_EQ(to.slots.value_row(3), &g.slot_v(1, 1, 3, 0));
  EXPECT_EQ(&to.slots.mass_of(3), &g.mass(1, 1, 3));

  const Cotangents<float> c = random_cotangents<float>(b.c.shape);
  const auto from = b.head_part(c.views());
  EXPECT_EQ(from.o.row(4, 2), &c.o(0, 3 + 4, 3 + 2, 0));
  EXPECT_EQ(from.lse.row(4, 2), &c.lse(0, 3 + 4, 3 + 2));
  EXPECT_EQ(from.slot_share.row(4, 2), &c.slot_share(0, 3 + 4, 3 + 2));
  EXPECT_EQ(from.slots.key_row(3), &c.slot_k(1, 1, 3, 0));
  EXPECT_EQ(&from.slots.mass_of(3), &c.mass(1, 1, 3));
}

TEST(HeadGradients, SlotsAreThereIfAnyOfTheirTensorsIs) {
  const auto b = second_head();
  Gradients<float> g = unwritten_gradients(b.c);
  EXPECT_TRUE(b.head_part(nha::AttentionGradients<float>{.slot_k = g.slot_k}).slots);
  EXPECT_TRUE(b.head_part(nha::AttentionGradients<float>{.slot_v = g.slot_v}).slots);
  EXPECT_TRUE(b.head_part(nha::AttentionGradients<float>{.mass = g.mass}).slots);
  EXPECT_FALSE(b.head_part(nha::AttentionGradients<float>{.v = g.v}).slots);
}

}  // namespace
