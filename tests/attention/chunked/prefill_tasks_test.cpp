// SPDX-License-Identifier: MIT
#include <nha/attention/chunked/prefill_tasks.hpp>

#include <gtest/gtest.h>

#include <vector>

#include "support/random_case.hpp"

namespace {

using namespace nha_test;  // NOLINT

/// How many tasks a prefill has.
Index tasks_of(const CaseShape& shape, Index workers, const nha::AttentionOptions& options = {}) {
  const RandomCase<float> c(shape);
  nha::AttentionState<float> state(c.attention_shape(), options);
  CaseOutputs<float> out(c.shape);
  const auto inputs = c.inputs();
  const auto outputs = out.views();
  nha::detail::PrefillTasks<nha::cpu::simd::default_arch, float, float> tasks(inputs, state,
                                                                              outputs, {}, workers);
  nha::Workspace workspace;
  workspace.reserve(tasks.bytes());
  tasks.prepare(workspace.data());
  return tasks.count();
}

TEST(PrefillTasks, AreAHeadEachWhereThatIsEven) {
  EXPECT_EQ(tasks_of({.batch = 2, .tokens = 512, .kv_heads = 2}, 1), 4);
  EXPECT_EQ(tasks_of({.batch = 2, .tokens = 512, .kv_heads = 2}, 2), 4);
  EXPECT_EQ(tasks_of({.batch = 2, .tokens = 512, .kv_heads = 2}, 4), 4);
}

TEST(PrefillTasks, AreOneMoreForEachWorkerWhereHeadsAreShared) {
  EXPECT_EQ(tasks_of({.tokens = 512}, 2), 1 + 2);
  EXPECT_EQ(tasks_of({.tokens = 512, .kv_heads = 3}, 2), 3 + 2);
  // One sequence is longer than all others together.
  EXPECT_EQ(tasks_of({.lengths = {40, 700, 40, 40}}, 2), 4 + 2);
}

TEST(PrefillTasks, AreNotSharedForAFewTokens) {
  EXPECT_EQ(tasks_of({.tokens = 64}, 2), 1);
  EXPECT_EQ(tasks_of({.tokens = 3}, 2), 1);
}

}  // namespace
