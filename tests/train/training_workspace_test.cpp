// SPDX-License-Identifier: MIT
// The memory of training steps: how a batch is cut, and what a step allocates when one of the same
// sizes has run before it. Global operator new watches.
#include <nha/train/training_workspace.hpp>

#include <nha/parallel/thread_pool.hpp>
#include <nha/train/training_step.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "support/counted_allocations.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

class TrainingWorkspaceTest : public testing::Test {
 protected:
  void prepare(Index sequences, Index shares, bool with_gradients,
               const std::vector<Index>& windows = {}, Index workers = 2) {
    workspace.prepare(model, nha_test::random_tokens(sequences, kLength, options.vocabulary),
                      windows, shares, with_gradients, workers);
  }
  static constexpr Index kLength = 8;
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(3));
  nha::LanguageModel<float> model = nha_test::random_model<float>(options);
  nha::TrainingWorkspace<float> workspace;
};

TEST_F(TrainingWorkspaceTest, SharesAreOfWholeSequencesInOrderAndOfAlmostOneSize) {
  for (const Index sequences : {1, 2, 5, 8, 13})
    for (const Index wanted : {1, 2, 3, 8, 100}) {
      prepare(sequences, wanted, false);
      const auto& shares = workspace.shares();
      ASSERT_EQ(static_cast<Index>(shares.size()), std::min(wanted, sequences));
      const Index least = sequences / static_cast<Index>(shares.size());
      Index next = 0;
      for (const auto& share : shares) {
        EXPECT_EQ(share.first, next);
        EXPECT_TRUE(share.count == least || share.count == least + 1) << share.count;
        EXPECT_LE(share.count, shares.back().count);  // which memory is taken for
        EXPECT_EQ(share.state->batch(), share.count);
        next += share.count;
      }
      EXPECT_EQ(next, sequences);
    }
}
TEST_F(TrainingWorkspaceTest, TasksThatRunAtOnceHaveMemoryOfTheirOwnAndNoOthersDo) {
  // More workers than shares: any of them may run a share's task.
  prepare(8, 3, false, {}, 64);
  EXPECT_EQ(workspace.workers().size(), 3u);
  for (const Index share : {0, 1, 2})
    for (const Index worker : {0, 5, 63})
      EXPECT_EQ(&workspace.worker(share, worker),
                &workspace.workers()[static_cast<std::size_t>(share)]);
  // More shares than workers: a worker computes one after the other.
  prepare(8, 8, false, {}, 5);
  EXPECT_EQ(workspace.workers().size(), 5u);
  for (const Index share : {0, 3, 7})
    for (const Index worker : {0, 4})
      EXPECT_EQ(&workspace.worker(share, worker),
                &workspace.workers()[static_cast<std::size_t>(worker)]);
}
TEST_F(TrainingWorkspaceTest, GradientsAreMadeWhereTheyAreAskedForAndOnlyForLaterShares) {
  prepare(3, 3, false);
  for (const auto& share : workspace.shares()) EXPECT_TRUE(share.parameters.empty());
  prepare(3, 3, true);
  EXPECT_TRUE(workspace.shares().front().parameters.empty());
  for (std::size_t n = 1; n < 3; ++n)
    EXPECT_EQ(workspace.shares()[n].parameters.front().values.data(),
              workspace.shares()[n].gradients.embeddings.data());
  // More shares than before: the list of each must be that of where its gradients are now.
  prepare(9, 9, true);
  ASSERT_EQ(workspace.shares().size(), 9u);
  for (std::size_t n = 1; n < 9; ++n)
    EXPECT_EQ(workspace.shares()[n].parameters.front().values.data(),
              workspace.shares()[n].gradients.embeddings.data());
}
TEST_F(TrainingWorkspaceTest, WindowsAreNoLongerThanTheTokens) {
  const auto window = [&](std::size_t share, Index layer) {
    return workspace.shares()[share].state->layer(layer).attention().options().window;
  };
  prepare(2, 2, false, {0, 1 << 20});
  for (const std::size_t share : {0u, 1u}) {
    EXPECT_EQ(window(share, 0), 0);
    EXPECT_EQ(window(share, 1), kLength);
  }
  prepare(2, 2, false);
  EXPECT_EQ(window(0, 0), 3);
}
TEST_F(TrainingWorkspaceTest, WindowsOfHeadsAreNoLongerThanTheTokensEither) {
  options.layer.attention.head_windows = {2, 1 << 20};
  model = nha_test::random_model<float>(options);
  const auto heads = [&](Index layer) {
    return workspace.shares().front().state->layer(layer).attention().options().head_windows;
  };
  prepare(2, 2, false);
  for (const Index layer : {0, 1}) EXPECT_EQ(heads(layer), (std::vector<Index>{2, kLength}));
  // Windows that a step asks for are those of all heads.
  prepare(2, 2, false, {5});
  for (const Index layer : {0, 1}) EXPECT_TRUE(heads(layer).empty());
  // A delay that no window may be shorter than.
  options.layer.attention.slot_delay = 12;
  options.layer.attention.head_windows = {12, 1 << 20};
  model = nha_test::random_model<float>(options);
  prepare(2, 2, false);
  EXPECT_EQ(heads(0), (std::vector<Index>{12, 12}));
}
TEST_F(TrainingWorkspaceTest, AddsTheGradientsOfSharesInOrder) {
  prepare(4, 4, true);
  auto sum = nha::zero_weights<float>(options);
  const auto list = nha::parameters(options, sum);
  // Only in this order is nothing lost to rounding but the 1 that meets 2^25 first.
  const float large = 33554432.0f;
  sum.norm(0) = large;
  workspace.shares()[1].gradients.norm(0) = 1;
  workspace.shares()[2].gradients.norm(0) = -large;
  workspace.shares()[3].gradients.norm(0) = 1;
  workspace.shares()[3].gradients.head(2, 1) = 4;
  workspace.add_gradients(list, nha::Serial{});
  EXPECT_EQ(sum.norm(0), 1);
  EXPECT_EQ(sum.head(2, 1), 4);
  EXPECT_EQ(sum.head(2, 2), 0);
}

/// What `run` takes from operator new.
struct NewUse {
  long calls;
  std::size_t largest;
};
template <class Run>
NewUse new_use(Run&& run) {
  const long before = nha_test::new_calls;
  nha_test::new_largest = 0;
  run();
  return {nha_test::new_calls - before, nha_test::new_largest};
}

TEST_F(TrainingWorkspaceTest, AStepOfSizesSeenBeforeAllocatesNothingThatGrowsWithTheBatch) {
  auto gradients = nha::zero_weights<float>(options);
  const NewUse list = new_use([&] { (void)nha::parameters(options, gradients); });
  const auto use = [&](Index batch, Index tokens, Index shares, auto&& executor) {
    const auto given = nha_test::random_tokens(batch, tokens, options.vocabulary);
    const nha::TrainingBatch data{given, given};
    const nha::TrainingOptions how{.slot_share = {.coefficient = 0.1}, .shares = shares};
    const auto step = [&] {
      nha::loss_and_gradients(model, data, gradients, workspace, how, executor);
    };
    const auto look = [&] { nha::evaluate(model, data, workspace, how, executor); };
    EXPECT_GT(new_use(step).largest, 10000u);  // the first takes memory
    const NewUse found = new_use(step), read = new_use(look);
    // Nothing beyond the list of the gradients and a few vectors of one number for each layer.
    EXPECT_LE(found.calls - read.calls, list.calls);
    EXPECT_LE(found.largest, list.largest);
    EXPECT_LE(read.calls, 8);
    EXPECT_LE(read.largest, 64u);
  };
  use(4, 8, 1, nha::Serial{});
  use(6, 40, 3, nha::Serial{});
  nha::ThreadPool threads(3);
  use(9, 50, 6, threads);
}

}  // namespace
