// SPDX-License-Identifier: MIT
// The memory of training steps: how a batch is cut, and what a step allocates when one of the same
// sizes has run before it. Global operator new watches.
#include <nha/train/training_workspace.hpp>

#include <nha/parallel/thread_pool.hpp>
#include <nha/train/training_step.hpp>

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "support/counted_allocations.hpp"
#include "support/random_model.hpp"

namespace {

using nha::Index;

class TrainingWorkspaceTest : public testing::Test {
 protected:
  void prepare(Index sequences, Index micro_batches, const std::vector<nha::Parameter<float>>* list,
               const std::vector<Index>& windows = {}, Index workers = 2) {
    workspace.prepare(model, nha_test::random_tokens(sequences, kLength, options.vocabulary),
                      {windows, micro_batches, 0, list}, workers);
  }
  static constexpr Index kLength = 8;
  nha::ModelOptions options = nha_test::small_model(nha::nha_v1(3));
  nha::LanguageModel<float> model = nha_test::random_model<float>(options);
  nha::TrainingWorkspace<float> workspace;
  nha::LanguageModelWeights<float> gradients = nha::zero_weights<float>(options);
  std::vector<nha::Parameter<float>> wanted = nha::parameters(options, gradients);
};

TEST_F(TrainingWorkspaceTest, MicroBatchesAreOfWholeSequencesInOrderAndOfAlmostOneSize) {
  for (const Index sequences : {1, 2, 5, 8, 13})
    for (const Index asked : {1, 2, 3, 8, 100}) {
      prepare(sequences, asked, nullptr);
      const auto& parts = workspace.micro_batches();
      ASSERT_EQ(static_cast<Index>(parts.size()), std::min(asked, sequences));
      const Index least = sequences / static_cast<Index>(parts.size());
      Index next = 0;
      for (const auto& part : parts) {
        EXPECT_EQ(part.first, next);
        EXPECT_TRUE(part.count == least || part.count == least + 1) << part.count;
        EXPECT_LE(part.count, parts.back().count);  // which memory is taken for
        EXPECT_EQ(part.state->batch(), part.count);
        next += part.count;
      }
      EXPECT_EQ(next, sequences);
    }
}
TEST_F(TrainingWorkspaceTest, TasksThatRunAtOnceHaveMemoryOfTheirOwnAndNoOthersDo) {
  // More workers than micro-batches: any of them may run a micro-batch's task.
  prepare(8, 3, nullptr, {}, 64);
  EXPECT_EQ(workspace.workers().size(), 3u);
  for (const Index part : {0, 1, 2})
    for (const Index worker : {0, 5, 63})
      EXPECT_EQ(&workspace.worker(part, worker),
                &workspace.workers()[static_cast<std::size_t>(part)]);
  // More micro-batches than workers: a worker computes one after the other.
  prepare(8, 8, nullptr, {}, 5);
  EXPECT_EQ(workspace.workers().size(), 5u);
  for (const Index part : {0, 3, 7})
    for (const Index worker : {0, 4})
      EXPECT_EQ(&workspace.worker(part, worker),
                &workspace.workers()[static_cast<std::size_t>(worker)]);
}
TEST_F(TrainingWorkspaceTest, GradientsAreMadeWhereTheyAreAskedForAndOnlyForLaterMicroBatches) {
  prepare(3, 3, nullptr);
  for (const auto& part : workspace.micro_batches()) EXPECT_TRUE(part.parameters.empty());
  prepare(3, 3, &wanted);
  EXPECT_TRUE(workspace.micro_batches().front().parameters.empty());
  for (std::size_t n = 1; n < 3; ++n)
    EXPECT_EQ(workspace.micro_batches()[n].parameters.front().values.data(),
              workspace.micro_batches()[n].gradients.embeddings.data());
  // More micro-batches than before: the list of each must be that of where its gradients are now.
  prepare(9, 9, &wanted);
  ASSERT_EQ(workspace.micro_batches().size(), 9u);
  for (std::size_t n = 1; n < 9; ++n)
    EXPECT_EQ(workspace.micro_batches()[n].parameters.front().values.data(),
              workspace.micro_batches()[n].gradients.embeddings.data());
}
TEST_F(TrainingWorkspaceTest, OnlyGradientsThatTheCallerWantsAreMade) {
  const auto names = [&] {
    std::vector<std::string> found;
    for (const auto& parameter : workspace.micro_batches()[1].parameters)
      found.push_back(parameter.name);
    return found;
  };
  auto of_norms = nha::zero_weights<float>(
      options, [](std::string_view name) { return name.ends_with("norm.weight"); });
  const auto norms = nha::parameters(options, of_norms);
  prepare(2, 2, &norms);
  ASSERT_EQ(names().size(), norms.size());
  for (std::size_t n = 0; n < norms.size(); ++n) EXPECT_EQ(names()[n], norms[n].name);
  EXPECT_EQ(workspace.micro_batches()[1].gradients.embeddings.size(), 0);
  prepare(2, 2, &wanted);
  EXPECT_EQ(names().size(), wanted.size());
  prepare(2, 2, &norms);
  EXPECT_EQ(names().size(), norms.size());
  const std::vector<nha::Parameter<float>> none;
  prepare(2, 2, &none);
  EXPECT_EQ(names().size(), 0u);
  EXPECT_EQ(workspace.micro_batches()[1].gradients.layers.size(), options.layers.size());
}
TEST_F(TrainingWorkspaceTest, WithoutABackwardPassMemoryIsThatOfOneLayer) {
  const auto bytes = [](Index layers, Index first_kept, bool with_gradients) {
    nha::ModelOptions deep = nha_test::small_model(nha::nha_v1(3));
    deep.layers = nha::repeat(layers, deep.layers.front());
    const auto model_of = nha_test::random_model<float>(deep);
    auto of = nha::zero_weights<float>(deep);
    const auto list = nha::parameters(deep, of);
    nha::TrainingWorkspace<float> fresh;
    const std::vector<Index> windows;
    fresh.prepare(model_of, nha_test::random_tokens(1, 64, deep.vocabulary),
                  {windows, 1, first_kept, with_gradients ? &list : nullptr}, 1);
    return fresh.workers().front().tape.bytes();
  };
  EXPECT_EQ(bytes(8, 8, false), bytes(2, 2, false));
  EXPECT_GT(bytes(8, 0, true), 2 * bytes(2, 0, true));
  // Layers below those that train keep nothing either.
  EXPECT_LT(bytes(8, 6, true), bytes(3, 0, true));
}
TEST_F(TrainingWorkspaceTest, WindowsAreNoLongerThanTheTokens) {
  const auto window = [&](std::size_t part, Index layer) {
    return workspace.micro_batches()[part].state->layer(layer).attention().options().window;
  };
  prepare(2, 2, nullptr, {0, 1 << 20});
  for (const std::size_t part : {0u, 1u}) {
    EXPECT_EQ(window(part, 0), 0);
    EXPECT_EQ(window(part, 1), kLength);
  }
  prepare(2, 2, nullptr);
  EXPECT_EQ(window(0, 0), 3);
}
TEST_F(TrainingWorkspaceTest, WindowsOfHeadsAreNoLongerThanTheTokensEither) {
  for (nha::LayerSpec& layer : options.layers) layer.options.attention.head_windows = {2, 1 << 20};
  model = nha_test::random_model<float>(options);
  const auto heads = [&](Index layer) {
    return workspace.micro_batches().front().state->layer(layer).attention().options().head_windows;
  };
  prepare(2, 2, nullptr);
  for (const Index layer : {0, 1}) EXPECT_EQ(heads(layer), (std::vector<Index>{2, kLength}));
  // Windows that a step asks for are those of all heads.
  prepare(2, 2, nullptr, {5});
  for (const Index layer : {0, 1}) EXPECT_TRUE(heads(layer).empty());
  // A delay that no window may be shorter than.
  for (nha::LayerSpec& layer : options.layers) {
    layer.options.attention.slot_delay = 12;
    layer.options.attention.head_windows = {12, 1 << 20};
  }
  model = nha_test::random_model<float>(options);
  prepare(2, 2, nullptr);
  EXPECT_EQ(heads(0), (std::vector<Index>{12, 12}));
}
TEST_F(TrainingWorkspaceTest, AddsTheGradientsOfMicroBatchesInOrder) {
  prepare(4, 4, &wanted);
  // Only in this order is nothing lost to rounding but the 1 that meets 2^25 first.
  const float large = 33554432.0f;
  gradients.norm(0) = large;
  workspace.micro_batches()[1].gradients.norm(0) = 1;
  workspace.micro_batches()[2].gradients.norm(0) = -large;
  workspace.micro_batches()[3].gradients.norm(0) = 1;
  workspace.micro_batches()[3].gradients.head(2, 1) = 4;
  workspace.add_gradients(wanted, nha::Serial{});
  EXPECT_EQ(gradients.norm(0), 1);
  EXPECT_EQ(gradients.head(2, 1), 4);
  EXPECT_EQ(gradients.head(2, 2), 0);
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
  const NewUse list = new_use([&] { (void)nha::parameters(options, gradients); });
  const auto use = [&](Index batch, Index tokens, Index micro_batches, auto&& executor) {
    const auto given = nha_test::random_tokens(batch, tokens, options.vocabulary);
    const nha::TrainingBatch data{given, given};
    const nha::TrainingOptions how{.slot_share = {.coefficient = 0.1},
                                   .micro_batches = micro_batches};
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
