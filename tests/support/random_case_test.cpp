// SPDX-License-Identifier: MIT
// The random cases have what tests believe they have, and their outputs are judged as a whole.
#include "support/random_case.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace {

using namespace nha_test;  // NOLINT

const CaseShape kCase{
    .batch = 2, .tokens = 9, .kv_heads = 2, .group = 2, .key_dim = 5, .value_dim = 3, .slots = 4};

CaseOutputs<float> case_result(const RandomCase<float>& c) {
  CaseOutputs<float> out(c.shape);
  nha::AttentionState<float> state(c.attention_shape(), {.window = 3});
  prefill_range(c, state, out, 0, c.shape.tokens, 4);
  return out;
}

TEST(RandomCase, IsTheSameForOneSeedAndAnotherForAnother) {
  const RandomCase<float> a(kCase, 1), same(kCase, 1), other(kCase, 2);
  EXPECT_TRUE(std::ranges::equal(a.log_gate.values(), same.log_gate.values()));
  EXPECT_TRUE(std::ranges::equal(a.k_slot.values(), same.k_slot.values()));
  EXPECT_FALSE(std::ranges::equal(a.log_gate.values(), other.log_gate.values()));
  EXPECT_FALSE(std::ranges::equal(a.k_slot.values(), other.k_slot.values()));
}

TEST(RandomCase, NoTwoInputsAreAlike) {
  // Tensors of one size: a kernel that reads one for another gives another result.
  CaseShape shape = kCase;
  shape.group = 1, shape.value_dim = shape.key_dim = shape.slots = 4;
  const RandomCase<float> c(shape);
  const std::vector<std::span<const float>> tensors = {
      c.q_window.values(), c.k_window.values(), c.q_slot.values(), c.k_slot.values(),
      c.v.values(),        c.log_gate.values(), c.write.values()};
  for (std::size_t i = 0; i < tensors.size(); ++i)
    for (std::size_t j = 0; j < i; ++j)
      EXPECT_FALSE(std::ranges::equal(tensors[i], tensors[j])) << i << " and " << j;
}

TEST(RandomCase, GatesAreOfTheirKind) {
  const auto extremes = [](Gates gates) {
    CaseShape shape = kCase;
    shape.tokens = 200;
    shape.gates = gates;
    const RandomCase<float> c(shape);
    const auto [least, most] = std::ranges::minmax(c.log_gate.values());
    EXPECT_LE(most, 0.0f);
    return std::pair(least, most);
  };
  EXPECT_GT(extremes(Gates::usual).first, -1.0f);
  EXPECT_LT(extremes(Gates::usual).first, -0.1f);
  EXPECT_LT(extremes(Gates::fast).first, -30.0f);
  EXPECT_GT(extremes(Gates::slow).first, -2e-6f);
  EXPECT_LT(extremes(Gates::mixed).first, -10.0f);
  EXPECT_GT(extremes(Gates::mixed).second, -1e-5f);
}

TEST(RandomCase, PackedLengthsMakeOneBatch) {
  CaseShape shape = kCase;
  shape.lengths = {3, 0, 5};
  const RandomCase<float> c(shape);
  EXPECT_EQ(c.cu_seqlens, (std::vector<std::int64_t>{0, 3, 3, 8}));
  EXPECT_EQ(c.v.extents(), (std::array<Index, 4>{1, 8, 2, 3}));
  EXPECT_EQ(c.attention_shape().batch, 3);
}

TEST(CaseOutputs, EveryWrongElementOfEveryOutputShows) {
  const RandomCase<float> c(kCase);
  const CaseOutputs<float> right = case_result(c);
  EXPECT_EQ(relative_error(right, right), 0);
  const auto expect_seen = [&](auto member) {
    for (const float wrong : {1000.0f, -INFINITY, std::numeric_limits<float>::quiet_NaN()})
      for (Index i = 0; i < (right.*member).size(); ++i) {
        CaseOutputs<float> out = right;
        (out.*member).data()[i] = wrong;
        ASSERT_GT(relative_error(out, right), 1) << i;
      }
  };
  expect_seen(&CaseOutputs<float>::o);
  expect_seen(&CaseOutputs<float>::lse);
  expect_seen(&CaseOutputs<float>::slot_share);
}

TEST(CaseOutputs, WhatIsNotWrittenShows) {
  const RandomCase<float> c(kCase);
  const CaseOutputs<float> right = case_result(c);
  EXPECT_EQ(relative_error(CaseOutputs<float>(c.shape), right), INFINITY);
  EXPECT_EQ(relative_error(CaseOutputs<float>(c.shape), CaseOutputs<float>(c.shape)), INFINITY);
  CaseOutputs<float> without_last(c.shape);
  nha::AttentionState<float> state(c.attention_shape(), {.window = 3});
  prefill_range(c, state, without_last, 0, c.shape.tokens - 1, 4);
  EXPECT_EQ(relative_error(without_last, right), INFINITY);
  const Index last = c.shape.tokens - 1;
  EXPECT_EQ(relative_error(without_last, right, 0, last), 0);
  EXPECT_EQ(relative_error(without_last, right, last, 1), INFINITY);
  without_last.lse(1, last - 1, 3) += 1;
  EXPECT_EQ(relative_error(without_last, right, 0, last - 1), 0);
  EXPECT_GT(relative_error(without_last, right, last - 1, 1), 0.01);
  CaseOutputs<float> without_share = right;
  without_share.slot_share = {};
  EXPECT_EQ(relative_error(without_share, right), INFINITY);
}

TEST(SlotError, SeesEachPartOfTheSlotsAndTheirShape) {
  const RandomCase<float> c(kCase), other(kCase, 2);
  nha::AttentionState<float> a(c.attention_shape()), b = a;
  EXPECT_EQ(slot_error(a, b), 0);
  const auto set = [](nha::AttentionState<float>& state, Index part) {
    nha::Tensor<float, 4> k({2, 2, 4, 5}), v({2, 2, 4, 3});
    nha::Tensor<float, 3> mass({2, 2, 4});
    for (float& x : k.values()) x = 1;
    for (float& x : v.values()) x = 1;
    for (float& x : mass.values()) x = 1e6f;
    if (part == 1) k(1, 0, 3, 4) = 1.5f;
    if (part == 2) v(0, 1, 3, 2) = 1.5f;
    if (part == 3) mass(1, 1, 3) = 1.5e6f;
    state.set_initial_slots(k, v, mass);
  };
  set(b, 0);
  for (Index part : {1, 2, 3}) {
    set(a, part);
    EXPECT_GT(slot_error(a, b), 0.01) << part;  // masses are much larger, and hide nothing
  }
  set(a, 0);
  EXPECT_EQ(slot_error(a, b), 0);
  auto shape = c.attention_shape();
  shape.batch = 1;
  EXPECT_EQ(slot_error(nha::AttentionState<float>(shape), b), INFINITY);
}

}  // namespace
