// SPDX-License-Identifier: MIT
// The definition, where its results are plain to see. tests/io has it against the golden cases.
#include <nha/attention/definition.hpp>

#include <gtest/gtest.h>

#include <cmath>

namespace {

using nha::DefinitionInputs;
using nha::DefinitionResults;
using nha::EmptySlots;
using nha::Index;

/// One slot, keys and values of one number: token t has value 10 + t; all else is the caller's.
struct DefinitionHead {
  explicit DefinitionHead(Index tokens)
      : q_window({tokens, 1}),
        k_window(q_window),
        q_slot(q_window),
        k_slot(q_window),
        v(q_window),
        log_gate(q_window) {
    for (Index t = 0; t < tokens; ++t) v(t, 0) = 10.0 + static_cast<double>(t);
  }
  DefinitionInputs inputs() const {
    return {.q_window = q_window,
            .k_window = k_window,
            .q_slot = q_slot,
            .k_slot = k_slot,
            .v = v,
            .log_gate = log_gate};
  }
  nha::Tensor<double, 2> q_window, k_window, q_slot, k_slot, v, log_gate;
};

TEST(Definition, IsOneSoftmaxOverSlotsAndWindow) {
  DefinitionHead head(2);
  head.q_window(1, 0) = head.q_slot(1, 0) = 2;
  head.k_slot(0, 0) = 3;
  head.k_window(1, 0) = -1;
  head.log_gate(0, 0) = std::log(0.75);  // token 0 adds a quarter of itself to the slot
  const auto out = nha::definition(head.inputs(), {.window = 1});
  // Token 0: logits 0 and 0. Token 1: slot key 0.75 and value 2.5, logit 1.5; window logit -2.
  EXPECT_DOUBLE_EQ(out.o(0, 0), 5);
  EXPECT_DOUBLE_EQ(out.lse(0), std::log(2.0));
  const double slot = std::exp(1.5), window = std::exp(-2.0);
  EXPECT_DOUBLE_EQ(out.o(1, 0), (2.5 * slot + 11 * window) / (slot + window));
  EXPECT_DOUBLE_EQ(out.lse(1), std::log(slot + window));
  EXPECT_DOUBLE_EQ(out.slot_share(1), slot / (slot + window));
  EXPECT_DOUBLE_EQ(out.slots.key(0, 0), 0.75);
  EXPECT_DOUBLE_EQ(out.slots.value(0, 0), 2.5);
  EXPECT_DOUBLE_EQ(out.slots.mass(0), 0.25);
}

TEST(Definition, MassCorrectedSlotsAreWeightedMeans) {
  DefinitionHead head(2);
  head.q_slot(1, 0) = 3;
  head.k_slot(0, 0) = 2;
  head.log_gate(0, 0) = std::log(0.9);
  const auto out =
      nha::definition(head.inputs(), {.window = 1, .empty_slots = EmptySlots::mass_corrected});
  const double slot = 0.1 * std::exp(6.0);  // the mean of one token is the token, of mass 0.1
  EXPECT_EQ(out.slot_share(0), 0);          // nothing was written yet
  EXPECT_NEAR(out.o(1, 0), (10 * slot + 11) / (slot + 1), 1e-13);
}

TEST(Definition, SinksStayVisibleAndNeverEnterTheSlots) {
  DefinitionHead head(4);
  head.log_gate(0, 0) = -nha::kInfinity<double>;  // token 0 would fill the slot
  for (Index t = 1; t < 4; ++t) head.log_gate(t, 0) = std::log(0.5);
  const auto out = nha::definition(head.inputs(), {.window = 1, .empty_slots = EmptySlots::masked},
                                   /*sinks=*/1);
  EXPECT_DOUBLE_EQ(out.o(1, 0), (10.0 + 11) / 2);  // the sink and the token itself; no slot yet
  // Tokens 1 and 2 are in the slot: 0.5 * (0.5 * 11) + 0.5 * 12. All logits are 0.
  EXPECT_DOUBLE_EQ(out.o(3, 0), (8.75 + 10 + 13) / 3);
}

TEST(Definition, NothingToReadGivesZeroAndMinusInfinity) {
  const auto reads_nothing = [](const DefinitionResults& out, Index t) {
    EXPECT_EQ(out.o(t, 0), 0);
    EXPECT_EQ(out.lse(t), -nha::kInfinity<double>);
    EXPECT_EQ(out.slot_share(t), 0);
  };
  // The delay keeps token 0 out of the slots while token 0 reads; the window is empty throughout.
  DefinitionHead head(1);
  const DefinitionInputs all = head.inputs();
  DefinitionInputs without_slots = all;
  without_slots.q_slot = without_slots.k_slot = without_slots.log_gate = {};
  reads_nothing(nha::definition(without_slots, {.window = 0}), 0);
  for (const EmptySlots rule : {EmptySlots::masked, EmptySlots::mass_corrected})
    reads_nothing(nha::definition(all, {.window = 0, .slot_delay = 1, .empty_slots = rule}), 0);
  // A gate that keeps everything writes nothing, and a slot without mass is no mean.
  reads_nothing(nha::definition(all, {.window = 0, .empty_slots = EmptySlots::mass_corrected}), 0);
  // By the published rule the empty slot has logit 0.
  EXPECT_EQ(nha::definition(all, {.window = 0, .slot_delay = 1}).lse(0), 0);
}

TEST(Definition, NanAmongTheLogitsOfATokenGivesNanResultsOfThatTokenAlone) {
  const auto is_nan_at = [](const DefinitionResults& out, Index nan) {
    for (Index t = 0; t < out.lse.size(); ++t) {
      EXPECT_EQ(std::isnan(out.o(t, 0)), t == nan) << t;
      EXPECT_EQ(std::isnan(out.lse(t)), t == nan) << t;
      EXPECT_EQ(std::isnan(out.slot_share(t)), t == nan) << t;
    }
  };
  DefinitionHead window_query(3), slot_query(3), key(3);
  window_query.q_window(1, 0) = std::nan("");
  slot_query.q_slot(1, 0) = std::nan("");
  key.k_window(1, 0) = std::nan("");  // which token 0 may not read, and token 2 no more
  for (const DefinitionHead* head : {&window_query, &slot_query, &key})
    is_nan_at(nha::definition(head->inputs(), {.window = 1}), 1);
  is_nan_at(nha::definition(slot_query.inputs(), {.window = 0}), 1);
}

TEST(Definition, NanDoesNotReachTokensThatMayNotReadIt) {
  DefinitionHead head(3);
  head.k_window(0, 0) = head.k_slot(0, 0) = head.v(0, 0) = std::nan("");
  // Token 0 leaves the window when token 1 comes, and enters the slots when token 2 comes.
  DefinitionInputs in = head.inputs();
  in.q_slot = in.k_slot = in.log_gate = {};
  const auto out = nha::definition(in, {.window = 1});
  EXPECT_TRUE(std::isnan(out.o(0, 0)));
  EXPECT_EQ(out.o(1, 0), 11);
  EXPECT_EQ(out.o(2, 0), 12);
}

}  // namespace
