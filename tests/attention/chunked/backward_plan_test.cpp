// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/backward_plan.hpp>
#include <nha/attention/chunked/chunk.hpp>
#include <nha/attention/head_call.hpp>

#include <gtest/gtest.h>

#include <algorithm>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT
using nha::detail::backward_plan;
using nha::detail::BackwardPlan;

constexpr nha::AttentionShape kBackwardShape{.key_dim = 20, .value_dim = 20, .slots = 20};

std::size_t scratch_bytes(const BackwardPlan& plan) {
  nha::Arena cursor(nullptr);
  nha::detail::BackwardScratch<float>::take(cursor, plan);
  return cursor.used();
}

TEST(BackwardPlan, TheBandHoldsARegionAndTheWindowBeforeIt) {
  for (const Index window : {0, 1, 15, 16, 17, 200, 513, 5000})
    for (const Index tokens : {1, 3, 16, 17, 100, 4000})
      for (const std::int64_t past : {0, 10, 600, 100000})
        for (const Index chunk : {0, 1, 7, 64}) {
          const BackwardPlan plan =
              backward_plan(kBackwardShape, {window, window}, 2, tokens, past, chunk);
          const auto reach = std::min<std::int64_t>(window, past + tokens);
          EXPECT_GE(plan.region, plan.chunks.chunk);
          EXPECT_EQ(plan.region % plan.chunks.chunk, 0);
          EXPECT_GE(plan.band, reach + std::min(plan.region, tokens));
          EXPECT_EQ(plan.band % nha::kRowPadding, 0);
          EXPECT_LE(plan.chunks.chunk, nha::kMostBackwardChunk);
          EXPECT_GE(plan.step, plan.chunks.chunk);
          EXPECT_LE(plan.step, nha::kMostBackwardChunk);
          if (chunk > 0) {
            EXPECT_EQ(plan.chunks.chunk, std::min(chunk, tokens));
          }
        }
}

TEST(BackwardPlan, HasRoomForEveryChunkOfACall) {
  for (const Index tokens : {1, 5, 16, 100, 129})
    for (const Index past : {0, 3, 50})
      for (const Index max_rollback : {0, 1, 2, 7, 30}) {
        const RandomCase<float> c({.tokens = past + tokens});
        nha::AttentionState<float> state(c.attention_shape(), {.window = 9}, max_rollback);
        CaseOutputs<float> ignored(c.shape);
        if (past > 0) prefill_range(c, state, ignored, 0, past, past);
        for (const Index chunk : {0, 1, 7, 64}) {
          const BackwardPlan plan = backward_plan(
              state.shape(), nha::head_options(state.options(), 0), 1, tokens, past, chunk);
          const auto inputs = c.inputs().tokens(past, tokens);
          const nha::detail::ChunkedCall<nha::detail::HeadCall<float>> call(
              nha::detail::head_call(inputs, state, 1, 0, 0), plan.chunks, max_rollback);
          Index chunks = 0;
          for (std::int64_t at = call.begin; at < call.end; at = call.chunk_at(at).end()) ++chunks;
          EXPECT_LE(chunks, plan.most_chunks)
              << "tokens " << tokens << ", past " << past << ", max_rollback " << max_rollback;
        }
      }
}

TEST(BackwardPlan, ScratchDoesNotGrowWithTheTokensOrThePast) {
  const auto bytes = [](Index tokens, std::int64_t past) {
    return scratch_bytes(backward_plan(kBackwardShape, {64, 64}, 1, tokens, past, 0));
  };
  EXPECT_EQ(bytes(4000, 0), bytes(1000000, 0));
  EXPECT_EQ(bytes(4000, 0), bytes(4000, 1000000));
  EXPECT_LT(bytes(4, 0), bytes(4000, 0));
}

TEST(BackwardPlan, WithoutAWindowTheBandHasNoKeys) {
  const BackwardPlan alone = backward_plan(kBackwardShape, {0, 0}, 1, 100, 0, 0);
  BackwardPlan with_window = alone;
  with_window.chunks.window = 1;
  EXPECT_LT(scratch_bytes(alone), scratch_bytes(with_window));
}

}  // namespace
