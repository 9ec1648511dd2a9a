// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/plan.hpp>
#include <nha/attention/chunked/prefill_head.hpp>

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>

namespace {

using nha::Index;
using nha::detail::chunk_plan;
using nha::detail::ChunkPlan;

constexpr nha::AttentionShape kShape{.key_dim = 20, .value_dim = 20, .slots = 20};

TEST(ChunkPlan, HoldsTheWindowAndAChunkForEverySize) {
  for (const Index window : {0, 1, 15, 16, 17, 200, 511, 512, 513, 5000, 20000})
    for (const Index tokens : {1, 3, 16, 17, 100, 4000})
      for (const std::int64_t past : {0, 10, 600, 100000})
        for (const Index chunk : {0, 1, 7, 64, 1000}) {
          const ChunkPlan plan = chunk_plan(kShape, {window, window}, 2, tokens, past, chunk);
          const auto reach = std::min<std::int64_t>(window, past + tokens);
          EXPECT_GE(plan.chunk, 1);
          EXPECT_LE(plan.chunk, tokens);
          EXPECT_GE(plan.band, reach + plan.chunk);
          EXPECT_GE(plan.block, nha::padded(plan.chunk));
          EXPECT_EQ(plan.block % nha::kRowPadding, 0);
          EXPECT_EQ(plan.band % nha::kRowPadding, 0);
          if (chunk > 0) {
            EXPECT_EQ(plan.chunk, std::min(chunk, tokens));
          }
        }
}

TEST(ChunkPlan, ScratchDoesNotGrowWithTheTokensOrThePast) {
  const auto bytes = [](Index tokens, std::int64_t past) {
    return nha::detail::ChunkScratch<float>::bytes(
        chunk_plan(kShape, {64, 64}, 1, tokens, past, 0));
  };
  EXPECT_EQ(bytes(4000, 0), bytes(1000000, 0));
  EXPECT_EQ(bytes(4000, 0), bytes(4000, 1000000));
  EXPECT_LT(bytes(4, 0), bytes(4000, 0));
}

TEST(ChunkPlan, ReadsALongWindowForMoreQueriesAtOnceAndAFarOneForMoreStill) {
  for (const Index group : {1, 2, 4}) {
    const auto chunk = [&](Index window) {
      return chunk_plan(kShape, {window, window}, group, 100000, 0, 0).chunk;
    };
    EXPECT_GT(chunk(1000), chunk(500));
    EXPECT_GT(chunk(20000), chunk(1000));
  }
}

TEST(ChunkPlan, OneOfTheLargestCallsNeedsMost) {
  for (const Index window : {100, 513, 1000, 7000, 20000})
    for (const Index tokens : {1, 30, 600, 9000}) {
      const auto bytes = [&](Index count, std::int64_t past) {
        return nha::detail::ChunkScratch<float>::bytes(
            chunk_plan(kShape, {window, window}, 1, count, past, 0));
      };
      std::size_t most = 0;
      for (const auto& call : nha::detail::largest_calls(kShape, tokens)) {
        EXPECT_LE(call.tokens, tokens);
        most = std::max(most, bytes(call.tokens, call.past));
      }
      for (const Index count : {tokens, std::min<Index>(tokens, 512), tokens / 2})
        for (std::int64_t past = 0; past < 25000; past += 37)
          EXPECT_LE(bytes(count, past), most) << count << " tokens after " << past;
    }
}

}  // namespace
