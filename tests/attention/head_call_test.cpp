// SPDX-License-Identifier: MIT
#include <nha/attention/head_call.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <vector>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::EmptySlots;
using PlainCall = nha::detail::HeadCall<float>;

static_assert(std::is_trivially_copyable_v<PlainCall> &&
              std::is_trivially_copyable_v<nha::detail::HeadCall<double>> &&
              std::is_trivially_copyable_v<nha::detail::HeadCall<nha::bfloat16, nha::float16>>);
static_assert(std::is_trivially_copyable_v<nha::detail::HeadOutputs<float>>);

/// A call of `tokens` tokens after `past` others.
struct CallOf {
  CallOf(const CaseShape& shape, const nha::AttentionOptions& options, Index past = 0)
      : c(shape), state(c.attention_shape(), options) {
    CaseOutputs<float> ignored(c.shape);
    if (past > 0) prefill_range(c, state, ignored, 0, past, past);
    inputs = past > 0 ? c.inputs().tokens(past, shape.tokens - past) : c.inputs();
  }
  PlainCall call(Index sequence = 0, Index head = 0) const {
    return nha::detail::head_call(inputs, state, c.shape.kv_heads * c.shape.group, sequence, head);
  }

  RandomCase<float> c;
  AttentionState<float> state;
  nha::AttentionInputs<float> inputs;
};

TEST(HeadCall, AnswersWhatAQuerySeesAsPlainListsDo) {
  for (const Index past : {0, 1, 5, 30})
    for (const Index window : {0, 1, 4, 12, 100})
      for (const Index delay : {Index{0}, window / 2, window}) {
        const CallOf of({.tokens = past + 20}, {.window = window, .slot_delay = delay}, past);
        const PlainCall call = of.call();
        EXPECT_EQ(call.begin, past);
        EXPECT_EQ(call.end, past + 20);
        EXPECT_EQ(call.tokens(), 20);
        for (std::int64_t p = past; p < past + 20; ++p) {
          SCOPED_TRACE(p);
          std::vector<std::int64_t> seen, entered;
          for (std::int64_t i = 0; i <= p; ++i) {
            if (p - i < window) seen.push_back(i);
            if (p - i >= delay) entered.push_back(i);
          }
          EXPECT_EQ(call.visible(p), static_cast<Index>(seen.size()));
          EXPECT_EQ(call.oldest_visible(p), seen.empty() ? p + 1 : seen.front());
          // The newest of those in the slots has just entered; before the first there is none.
          if (entered.empty())
            EXPECT_LT(call.entering(p), 0);
          else
            EXPECT_EQ(call.entering(p), entered.back());
          EXPECT_EQ(call.slots_are_written(p), !entered.empty());
          EXPECT_TRUE(call.in_call(p));
          EXPECT_EQ(call.token(p), p - past);
        }
        for (std::int64_t p = 0; p < past; ++p) EXPECT_FALSE(call.in_call(p));
      }
}

TEST(HeadCall, SlotsTakePartAsTheRuleForEmptySlotsSays) {
  for (const EmptySlots rule :
       {EmptySlots::participate, EmptySlots::masked, EmptySlots::mass_corrected})
    for (const bool given : {false, true}) {
      CallOf of({.tokens = 12}, {.window = 5, .slot_delay = 4, .empty_slots = rule});
      if (given) {
        const nha::Tensor<float, 4> slots({1, 1, 8, 16});
        of.state.set_initial_slots(slots, slots);
      }
      const PlainCall call = of.call();
      for (std::int64_t p = 0; p < 12; ++p) {
        const bool written = given || p >= 4;
        EXPECT_EQ(call.slots_are_written(p), written) << p;
        EXPECT_EQ(call.slots_take_part(p), written || rule == EmptySlots::participate) << p;
      }
    }
}

TEST(HeadCall, WithoutSlotsNothingIsWrittenToThem) {
  const CallOf of({.tokens = 12, .slots = 0}, {.window = 5, .slot_delay = 0});
  for (std::int64_t p = 0; p < 12; ++p) EXPECT_FALSE(of.call().slots_are_written(p));
}

TEST(HeadCall, FindsTheHeadsRowsInPackedSequences) {
  const CallOf of({.kv_heads = 2,
                   .group = 3,
                   .key_dim = 5,
                   .value_dim = 7,
                   .explicit_write = true,
                   .lengths = {3, 0, 9}},
                  {.window = 4});
  const PlainCall call = of.call(2, 1);
  const RandomCase<float>& c = of.c;
  EXPECT_EQ(call.tokens(), 9);
  EXPECT_EQ(call.group, 3);
  EXPECT_EQ(call.slots(), 8);
  EXPECT_EQ(call.key_dim(), 5);
  EXPECT_EQ(call.value_dim(), 7);
  EXPECT_EQ(call.q_window.row(4, 2), &c.q_window(0, 3 + 4, 3 + 2, 0));
  EXPECT_EQ(call.q_slot.row(4, 1), &c.q_slot(0, 3 + 4, 3 + 1, 0));
  EXPECT_EQ(call.window_key(8), &c.k_window(0, 3 + 8, 1, 0));
  EXPECT_EQ(call.slot_key(8), &c.k_slot(0, 3 + 8, 1, 0));
  EXPECT_EQ(call.value(0), &c.v(0, 3, 1, 0));
  EXPECT_EQ(call.log_gate.row(5), &c.log_gate(0, 3 + 5, 1, 0));
  EXPECT_EQ(call.write.row(5), &c.write(0, 3 + 5, 1, 0));
  EXPECT_EQ(of.call(1, 1).tokens(), 0);

  CaseOutputs<float> out(c.shape);
  const auto outputs = nha::detail::head_outputs(of.inputs, out.views(), 3, 2, 1);
  EXPECT_EQ(outputs.o.row(4, 2), &out.o(0, 3 + 4, 3 + 2, 0));
  EXPECT_EQ(outputs.lse.row(4, 2), &out.lse(0, 3 + 4, 3 + 2));
  EXPECT_EQ(outputs.slot_share.row(4, 2), &out.slot_share(0, 3 + 4, 3 + 2));
}

TEST(HeadCall, KnowsWhatWasLeftOut) {
  const CallOf of({.tokens = 4}, {.window = 4});
  EXPECT_FALSE(of.call().write);
  CaseOutputs<float> out(of.c.shape);
  const auto outputs = nha::detail::head_outputs(of.inputs, {.o = out.o}, 1, 0, 0);
  EXPECT_TRUE(outputs.o);
  EXPECT_FALSE(outputs.lse);
  EXPECT_FALSE(outputs.slot_share);
}

TEST(HeadCall, TakesEachHeadsOwnWindow) {
  const CallOf of({.tokens = 4, .kv_heads = 2}, {.softmax_scale = 0.75, .head_windows = {3, 20}});
  EXPECT_EQ(of.call(0, 0).window, 3);
  EXPECT_EQ(of.call(0, 0).slot_delay, 3);
  EXPECT_EQ(of.call(0, 1).window, 20);
  EXPECT_EQ(of.call(0, 1).slot_delay, 20);
  EXPECT_EQ(of.call().softmax_scale, 0.75f);
}

TEST(HeadCall, FindsEarlierTokensInTheState) {
  const CallOf later({.tokens = 60}, {.window = 20, .slot_delay = 18}, 50);
  const PlainCall call = later.call();
  EXPECT_EQ(call.begin, 50);
  std::vector<float> keep(16), add(16);
  for (std::int64_t p = 50 - 18; p < 60; ++p) {
    const RandomCase<float>& c = later.c;
    const auto same = [&](const float* a, const float* b) { return std::equal(a, a + 16, b); };
    EXPECT_TRUE(same(call.value(p), &c.v(0, p, 0, 0))) << p;
    EXPECT_TRUE(same(call.window_key(p), &c.k_window(0, p, 0, 0))) << p;
    EXPECT_TRUE(same(call.slot_key(p), &c.k_slot(0, p, 0, 0))) << p;
    EXPECT_EQ(call.value(p) == &c.v(0, p, 0, 0), p >= 50) << p;
    int converted = 0;
    call.gates(p, keep.data(), add.data(),
               [&](const float* log_gate, const float* given, float* retention, float* write) {
                 ++converted;
                 EXPECT_EQ(log_gate, &c.log_gate(0, p, 0, 0));
                 EXPECT_EQ(given, nullptr);
                 for (Index m = 0; m < 8; ++m) {
                   retention[m] = std::exp(log_gate[m]);
                   write[m] = -std::expm1(log_gate[m]);
                 }
               });
    EXPECT_EQ(converted, p >= 50 ? 1 : 0) << p;
    for (Index m = 0; m < 8; ++m) {
      const auto at = static_cast<std::size_t>(m);
      EXPECT_NEAR(keep[at], std::exp(c.log_gate(0, p, 0, m)), 2e-7f);
      EXPECT_NEAR(add[at], -std::expm1(c.log_gate(0, p, 0, m)), 2e-7f);
    }
  }
}

}  // namespace
