// SPDX-License-Identifier: MIT
#include <nha/attention/head_call.hpp>

#include <gtest/gtest.h>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::detail::Chunk;

using PlainCall = nha::detail::ChunkCall<float, nha::Dynamic, nha::Dynamic, nha::Dynamic>;

struct CallOf {
  CallOf(Index tokens, const nha::AttentionOptions& options, Index max_rollback = 0)
      : c({.tokens = tokens}),
        state(c.attention_shape(), options, max_rollback),
        inputs(c.inputs()) {}
  PlainCall call() {
    const auto plan = nha::detail::chunk_plan(state.shape(), nha::head_options(state.options(), 0),
                                              1, c.shape.tokens, 0, 16);
    nha::Arena cursor(nullptr);
    return {inputs, state, plan, 0, 0, cursor};
  }

  RandomCase<float> c;
  AttentionState<float> state;
  nha::AttentionInputs<float> inputs;
};

TEST(ChunkCall, CutsTheTokensIntoChunksThatEndWhereASnapshotIsDue) {
  CallOf plain(50, {.window = 4});
  EXPECT_EQ(plain.call().chunk_at(32).end(), 48);
  EXPECT_EQ(plain.call().chunk_at(48).end(), 50);
  // Snapshots at the last two multiples of max_rollback, 40 and 45, not at those before.
  CallOf kept(47, {.window = 4}, 5);
  EXPECT_EQ(kept.call().chunk_at(16).end(), 32);
  EXPECT_EQ(kept.call().chunk_at(32).end(), 40);
  EXPECT_EQ(kept.call().chunk_at(40).end(), 45);
}

TEST(ChunkCall, KnowsWhichTokensEnterDuringAChunk) {
  CallOf delayed(50, {.window = 20, .slot_delay = 18});
  const PlainCall call = delayed.call();
  EXPECT_FALSE(call.slots_are_written(Chunk{0, 16}));
  EXPECT_TRUE(call.slots_are_written(Chunk{16, 16}));
  EXPECT_EQ(call.first_entering(Chunk{0, 16}), 16);
  EXPECT_EQ(call.first_entering(Chunk{16, 16}), 2);
  EXPECT_EQ(call.first_entering(Chunk{32, 16}), 0);
  EXPECT_EQ(call.entering(Chunk{32, 16}, 3), 17);
}

TEST(ChunkCall, FindsEarlierTokensInTheState) {
  CallOf first(50, {.window = 20, .slot_delay = 18});
  const PlainCall before = first.call();
  std::vector<float> retention(16), write(16);
  before.remember_newest<nha::cpu::simd::default_arch>(retention.data(), write.data());
  nha::detail::StateAccess::advance(first.state, 0, 50);
  const PlainCall after = first.call();
  EXPECT_EQ(after.start, 50);
  for (std::int64_t p = 50 - 18; p < 50; ++p) {
    EXPECT_NE(after.value(p), before.value(p));
    EXPECT_EQ(*after.value(p), *before.value(p));
    EXPECT_EQ(*after.window_key(p), *before.window_key(p));
    EXPECT_EQ(*after.slot_key(p), *before.slot_key(p));
  }
}

}  // namespace
