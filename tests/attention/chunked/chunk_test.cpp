// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/chunk.hpp>

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::AttentionState;
using nha::detail::Chunk;
using PlainChunks = nha::detail::ChunkedCall<nha::detail::HeadCall<float>>;

/// A call in chunks of 16, after `past` tokens.
struct CallInChunks {
  CallInChunks(Index tokens, const nha::AttentionOptions& options, Index max_rollback = 0,
               Index past = 0)
      : c({.tokens = past + tokens, .group = 2}),
        state(c.attention_shape(), options, max_rollback) {
    CaseOutputs<float> ignored(c.shape);
    if (past > 0) prefill_range(c, state, ignored, 0, past, past);
    inputs = c.inputs().tokens(past, tokens);
  }
  PlainChunks call() const {
    const auto plan = nha::detail::chunk_plan(state.shape(), nha::head_options(state.options(), 0),
                                              2, inputs.v.extent(1), 0, 16);
    return {nha::detail::head_call(inputs, state, 2, 0, 0), plan, state.max_rollback()};
  }

  RandomCase<float> c;
  AttentionState<float> state;
  nha::AttentionInputs<float> inputs;
};

TEST(ChunkedCall, CutsTheTokensIntoChunksThatEndWhereASnapshotIsDue) {
  const CallInChunks plain(50, {.window = 4});
  EXPECT_EQ(plain.call().chunk_at(32).end(), 48);
  EXPECT_EQ(plain.call().chunk_at(48).end(), 50);
  // Snapshots at the last two multiples of max_rollback, 40 and 45, not at those before.
  const CallInChunks kept(47, {.window = 4}, 5);
  EXPECT_EQ(kept.call().chunk_at(16).end(), 32);
  EXPECT_EQ(kept.call().chunk_at(32).end(), 40);
  EXPECT_EQ(kept.call().chunk_at(40).end(), 45);
}

TEST(ChunkedCall, KnowsWhichTokensEnterDuringAChunk) {
  const CallInChunks delayed(50, {.window = 20, .slot_delay = 18});
  const PlainChunks call = delayed.call();
  EXPECT_FALSE(call.slots_are_written(Chunk{0, 16}));
  EXPECT_TRUE(call.slots_are_written(Chunk{16, 16}));
  EXPECT_FALSE(call.slots_are_written(Chunk{}));
  EXPECT_EQ(call.first_entering(Chunk{0, 16}), 16);
  EXPECT_EQ(call.first_entering(Chunk{16, 16}), 2);
  EXPECT_EQ(call.first_entering(Chunk{32, 16}), 0);
  EXPECT_EQ(call.entering(Chunk{32, 16}, 3), 17);
}

TEST(ChunkedCall, GatesOfEnteringTokensAreThoseOfTheirPositions) {
  // The chunk's first tokens came with an earlier call and wait in the state.
  const CallInChunks later(30, {.window = 9, .slot_delay = 6}, 0, 20);
  const PlainChunks call = later.call();
  std::vector<float> retention(16 * 16), write(16 * 16);
  const auto gates = call.entering_gates<nha::cpu::simd::default_arch>(
      Chunk{20, 16}, retention.data(), write.data());
  EXPECT_EQ(gates.first, 0);
  EXPECT_EQ(gates.count, 16);
  for (Index i = 0; i < 16; ++i)
    for (Index m = 0; m < 16; ++m) {
      const auto at = static_cast<std::size_t>(i * 16 + m);
      if (m >= 8) {
        EXPECT_EQ(write[at], 0.0f);  // into a padded slot
        continue;
      }
      const float gate = later.c.log_gate(0, 20 - 6 + i, 0, m);
      EXPECT_NEAR(retention[at], std::exp(gate), 2e-7f);
      EXPECT_NEAR(write[at], -std::expm1(gate), 2e-7f);
    }
}

TEST(ChunkedCall, ListsTheRowsOfItsOwnTokensAlone) {
  const CallInChunks later(5, {.window = 4}, 0, 20);
  const PlainChunks call = later.call();
  const auto listed = [&](const auto& rows, std::int64_t first, std::int64_t last, Index heads) {
    nha::cpu::RowPrefetcher prefetcher;
    call.list_rows(prefetcher, rows, first, last, heads, 16);
    std::vector<const void*> found;
    while (prefetcher.take_row([&](const std::byte* row, Index bytes) {
      EXPECT_EQ(bytes, 64);
      found.push_back(row);
    })) {
    }
    return found;
  };
  using Found = std::vector<const void*>;
  const auto key = [&](Index token) { return &later.inputs.k_window(0, token, 0, 0); };
  const auto query = [&](Index token, Index h) { return &later.inputs.q_window(0, token, h, 0); };
  EXPECT_EQ(listed(call.k_window, 21, 23, 1), (Found{key(1), key(2)}));
  EXPECT_EQ(listed(call.q_window, 22, 23, 2), (Found{query(2, 0), query(2, 1)}));
  EXPECT_EQ(listed(call.k_window, 12, 22, 1), (Found{key(0), key(1)}));
  EXPECT_EQ(listed(call.k_window, 24, 30, 1), Found{key(4)});
  EXPECT_EQ(listed(call.k_window, 10, 20, 1), Found{});
  EXPECT_EQ(listed(call.k_window, 25, 40, 1), Found{});
  EXPECT_EQ(listed(nha::detail::HeadRows<const float>(), 20, 25, 1), Found{});
}

}  // namespace
